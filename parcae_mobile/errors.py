"""Errors that a user sees, one class for each way a thing can be wrong.

Every message is one line: it names the thing, then what to do next. The command line prints it after `error:` and
leaves with the class's `exit_code`: 2 usage, 3 bad input, 4 a gate or budget failed, 5 a tool is missing.
"""

from __future__ import annotations


class ParcaeError(Exception):
    """Base of all errors that are reported to the user as one line."""

    exit_code = 1


class UsageError(ParcaeError):
    """The command or call asks for something that does not exist or does not fit together."""

    exit_code = 2


class OutputExistsError(UsageError):
    """The output folder exists already and `--force` was not given."""


class InputError(ParcaeError):
    """A file or value that was given is wrong."""

    exit_code = 3


class ConfigError(InputError):
    """A `config.json` that is unreadable, unknown in part, or outside of what is supported."""


class CheckpointError(InputError):
    """A checkpoint file that cannot be read."""


class MissingTensorError(CheckpointError):
    """The configuration needs a tensor that the checkpoint does not have."""


class UnexpectedTensorError(CheckpointError):
    """The checkpoint has a tensor that the configuration does not know."""


class TensorShapeError(CheckpointError):
    """A tensor's shape is not the one that the configuration gives it."""


class TensorValueError(CheckpointError):
    """A tensor holds NaN, an infinity, or values that contradict another tensor."""


class UnsafeCheckpointError(CheckpointError):
    """A pickle that holds anything but plain tensors. It is never executed."""


class TextError(InputError):
    """A text or tokenizer that cannot serve the purpose it was given for."""


class PromptTooLongError(InputError):
    """Prompt and requested tokens do not fit the model's context."""


class ManifestError(InputError):
    """A manifest that does not follow the schema or names a file it may not name."""


class ChecksumError(InputError):
    """An artifact file whose content is not what the manifest says."""


class ReferenceMismatchError(InputError):
    """A golden reference that was made for other weights, text or initial state."""


class GateError(ParcaeError):
    """An artifact (or a fall-back budget) failed its gate; nothing was published."""

    exit_code = 4


class ToolMissingError(ParcaeError):
    """A library, device or target that this machine or version does not have."""

    exit_code = 5


class AppManifestError(ManifestError):
    """An app's manifest, or a file that it lists, that an app has to refuse: `kind` says why, `where` names the place.

    Kinds: json, format, field, path, platform, runtime, missing, size, checksum. Every app has the same ones.
    """

    def __init__(self, kind: str, where: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.where = kind, where
