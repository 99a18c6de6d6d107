"""Core ML: writer, lowering, forms, package, host; mil/ is the interpreter."""
