"""ONNX: the writer with its lowering and forms; portable/ and runtime/ beside it."""
