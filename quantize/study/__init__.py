"""The measurements behind docs/quantization.md: `python -m quantize.study` makes all of its tables again."""
