"""Errors that a user sees, one class for each way a thing can be wrong.

Every message is one line: it names the thing, then what to do next. The command line prints it after `error:` and
leaves with the class's `exit_code`: 2 usage, 3 bad input, 4 a gate or budget failed, 5 a tool is missing.
"""

from __future__ import annotations


def reason_of(error: BaseException) -> str:
    """The first line of what a library said, at most 200 characters of it; the error's type where it said nothing."""
    lines = str(error).splitlines()
    return lines[0][:200] if lines and lines[0] else type(error).__name__


class ParcaeError(Exception):
    """Base of all errors that are reported to the user as one line."""

    exit_code = 1
    next_step = ""  # what a reader of docs/errors.md can do; the message itself names the thing


class UsageError(ParcaeError):
    """The command or call asks for something that does not exist or does not fit together."""

    exit_code = 2
    next_step = (
        "Read the end of the line: it names the option to change. `parcae-export COMMAND --help` lists them all."
    )


class OutputExistsError(UsageError):
    """The output folder exists already and `--force` was not given."""

    next_step = "Choose another `--out`, or add `--force` to replace what is there."


class InputError(ParcaeError):
    """A file or value that was given is wrong."""

    exit_code = 3
    next_step = "Look at the file or value that the line names; give another one, or repair it."


class ConfigError(InputError):
    """A `config.json` that is unreadable, unknown in part, or outside of what is supported."""

    next_step = (
        "Compare the named key with the original model's `config.json`; `docs/models.md` lists what is supported."
    )


class CheckpointError(InputError):
    """A checkpoint file that cannot be read."""

    next_step = "Download or save the checkpoint again; `parcae-export inspect FOLDER` reads it without exporting."


class MissingTensorError(CheckpointError):
    """The configuration needs a tensor that the checkpoint does not have."""

    next_step = (
        "The checkpoint and its `config.json` belong to different models, or a shard is missing: fetch both again."
    )


class UnexpectedTensorError(CheckpointError):
    """The checkpoint has a tensor that the configuration does not know."""

    next_step = "The checkpoint and its `config.json` belong to different models: fetch both from the same place."


class TensorShapeError(CheckpointError):
    """A tensor's shape is not the one that the configuration gives it."""

    next_step = "The checkpoint and its `config.json` belong to different models: fetch both from the same place."


class TensorValueError(CheckpointError):
    """A tensor holds NaN, an infinity, or values that contradict another tensor."""

    next_step = (
        "Training diverged or the file is damaged: fetch it again, or take an earlier checkpoint (`--checkpoint`)."
    )


class UnsafeCheckpointError(CheckpointError):
    """A pickle that holds anything but plain tensors. It is never executed."""

    next_step = "Do not load it elsewhere either. Ask its authors for safetensors."


class ResourceError(InputError):
    """The machine has not the memory or the disk that the work needs; nothing was begun."""

    next_step = "Free what the line names, or choose another place; `--no-resource-check` tries all the same."


class TextError(InputError):
    """A text or tokenizer that cannot serve the purpose it was given for."""

    next_step = (
        "Give a longer UTF-8 text (`--text`, `--calibration`), or the tokenizer that the model was trained "
        "with (`--tokenizer`)."
    )


class PromptTooLongError(InputError):
    """Prompt and requested tokens do not fit the model's context."""

    next_step = "Shorten the prompt, ask for fewer `--tokens`, or export again with a larger `--context`."


class ManifestError(InputError):
    """A manifest that does not follow the schema or names a file it may not name."""

    next_step = "The folder is no whole artifact, or of another version: export it again."


class ChecksumError(InputError):
    """An artifact file whose content is not what the manifest says."""

    next_step = "A file was changed or cut off on its way: copy the folder again, then `parcae-export verify` it."


class SignatureError(InputError):
    """A manifest without the signature that was asked for."""

    next_step = "Get the artifact from whom you trust, or check with the key that signed it."


class ReferenceMismatchError(InputError):
    """A golden reference that was made for other weights, text or initial state."""

    next_step = "Make a reference of these weights and this text: `parcae-export reference`."


class GateError(ParcaeError):
    """An artifact (or a fall-back budget) failed its gate; nothing was published."""

    exit_code = 4
    next_step = (
        "Open `report.html` in `NAME.failed/`. Then a recipe with more bits (`--quant int8`), a larger KV "
        "cache (`--kv full`) or another loop form; a wrong function is a fault to report."
    )


class ToolMissingError(ParcaeError):
    """A library, device or target that this machine or version does not have."""

    exit_code = 5
    next_step = "Install what the line names; `parcae-export doctor` lists what is here."


class ToolCrashedError(ParcaeError):
    """A converter or runtime in native code ended the process by a signal; nothing was published."""

    next_step = "Try again with `--threads 1`, or with more memory free if it was killed; report the line if it stays."

    exit_code = 5


class AppManifestError(ManifestError):
    """An app's manifest, or a file that it lists, that an app has to refuse: `kind` says why, `where` names the place.

    Kinds: json, format, field, path, platform, runtime, missing, size, checksum. Every app has the same ones.
    """

    next_step = "Bundle the artifact again with `parcae-export bundle`, for the platform of this app."

    def __init__(self, kind: str, where: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.where = kind, where
