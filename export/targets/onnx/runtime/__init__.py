"""Hosts that run ONNX artifacts in onnxruntime."""
