"""An interpreter for Core ML's ML Programs: runs a saved `.mlpackage` where Core ML does not exist.

    from export.hosts.mil import MilProgram, run_mlpackage

See docs/mil-interpreter.md for what it checks and what a pass means.
"""

from export.hosts.mil.errors import (
    BlobError,
    DeclarationError,
    ExecutionError,
    FeatureError,
    MilError,
    PackageError,
    UnknownFunctionError,
    UnknownOperatorError,
)
from export.hosts.mil.interpreter import MilProgram, MilState, run_mlpackage

__all__ = [
    "BlobError",
    "DeclarationError",
    "ExecutionError",
    "FeatureError",
    "MilError",
    "MilProgram",
    "MilState",
    "PackageError",
    "UnknownFunctionError",
    "UnknownOperatorError",
    "run_mlpackage",
]
