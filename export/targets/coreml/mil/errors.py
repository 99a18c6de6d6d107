"""Errors of the MIL interpreter: one class for each way a package can be wrong.

All derive from `InputError` (exit code 3). Every message is one line that names the package, the function, the operator
where there is one, and what was expected.
"""

from __future__ import annotations

from parcae_mobile.errors import InputError


class MilError(InputError):
    """Base of everything the MIL interpreter refuses."""

    def __init__(self, message: str) -> None:
        # Names come from the package, and a damaged one may hold line breaks.
        super().__init__(" ".join(message.split()))


class PackageError(MilError):
    """The folder is not a readable `.mlpackage` with an ML Program inside."""


class BlobError(MilError):
    """A weight file is missing, truncated, or does not hold what the program says it holds."""


class UnknownOperatorError(MilError):
    """The program has operators that this interpreter does not execute. Nothing was run."""


class UnknownFunctionError(MilError):
    """The package has no function of that name."""


class FeatureError(MilError):
    """An input or state that was passed does not fit the function: missing, unexpected, wrong shape or wrong dtype."""


class DeclarationError(MilError):
    """An operator's result does not have the shape or dtype that the package declares for it."""


class ExecutionError(MilError):
    """An operator was given something it may not be given, such as an index out of range."""


class LimitError(MilError):
    """The program asks for more memory or time than a package of its size can need."""
