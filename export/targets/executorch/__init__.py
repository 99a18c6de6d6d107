"""ExecuTorch: writer, lowering, forms, read-back, memory, host."""
