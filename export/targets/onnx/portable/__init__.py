"""The flavour of ONNX that has standard operators only."""
