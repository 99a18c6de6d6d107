"""An interpreter for Core ML's ML Programs: runs a saved `.mlpackage` where Core ML does not exist.

See docs/mil-interpreter.md for what it checks and what a pass means.
"""
