"""What an app checks before it loads a model: its manifest, its runtime, its files.

    manifest = read_app_manifest(text)                     # format and fields
    check_runtime(manifest, "web", "onnxruntime", "1.30.0")
    check_files(manifest, folder)                          # present, sizes, SHA-256, in this order

Each refusal has a kind that is the same in every app (`app_kit/vectors/manifest.json`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .app_manifest import APP_FORMAT, APP_MANIFEST, MOST_APP_MANIFEST, AppManifest
from .errors import AppManifestError
from .json_file import parse
from .manifest import relative_path, sha256_of

_NUMBERS = re.compile(r"^[0-9.]*")


def read_app_manifest(text: str) -> AppManifest:
    """Validate the text of an `app.json`. Raises `AppManifestError` of kind json, format, path or field.

    Whoever reads the file looks at its size first: more than `MOST_APP_MANIFEST` bytes are refused here, too.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MOST_APP_MANIFEST:
        message = f"{APP_MANIFEST} has more than {MOST_APP_MANIFEST} bytes; bundle the artifact again"
        raise AppManifestError("json", "", message)
    try:
        values = parse(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise AppManifestError("json", "", f"{APP_MANIFEST} is not a JSON object; bundle the artifact again")
    if values.get("format") != APP_FORMAT or isinstance(values["format"], bool):
        message = f"{APP_MANIFEST} has format {values.get('format')}, this app reads {APP_FORMAT}; update the app"
        raise AppManifestError("format", "format", message)
    unsafe = next((name for name in _names(values) if not _is_safe(name)), None)
    if unsafe is not None:
        raise AppManifestError("path", unsafe, f"{APP_MANIFEST} names {unsafe[:100]!r}, a path that leads elsewhere")
    try:
        return AppManifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        message = first["msg"].removeprefix("Value error, ")
        raise AppManifestError("field", where, f"{APP_MANIFEST}: {where}{': ' * bool(where)}{message}") from None


def check_runtime(manifest: AppManifest, platform: str, name: str, version: str) -> None:
    """Raise `AppManifestError` of kind platform or runtime if an app of this platform and runtime cannot run it."""
    if manifest.platform != platform:
        raise AppManifestError("platform", "platform", f"bundled for {manifest.platform}, this app is for {platform}")
    needed = manifest.runtime
    if needed.name != name or not is_at_least(version, needed.minimum):
        message = f"needs {needed.name} {needed.minimum} ({needed.reason}); this app has {name} {version}"
        raise AppManifestError("runtime", "runtime", message)


def is_at_least(version: str, minimum: str) -> bool:
    """Whether a version is not below another, by its leading numbers; missing ones are 0."""
    have, need = ([int(part) for part in _NUMBERS.findall(text)[0].split(".") if part] for text in (version, minimum))
    size = max(len(have), len(need))
    return have + [0] * (size - len(have)) >= need + [0] * (size - len(need))


def check_files(manifest: AppManifest, folder: Path) -> None:
    """Raise `AppManifestError` of kind missing, size or checksum for the first listed file that is not as listed."""
    for name, entry in sorted(manifest.files.items()):
        path = folder / name
        if not path.is_file() or _leads_elsewhere(path, folder):
            raise AppManifestError("missing", name, f"{name} is missing; copy the model again")
        if path.stat().st_size != entry.bytes:
            raise AppManifestError("size", name, f"{name} has {path.stat().st_size} bytes, not {entry.bytes}")
        if sha256_of(path) != entry.sha256:
            raise AppManifestError("checksum", name, f"{name} is not what was bundled; copy the model again")


def _leads_elsewhere(path: Path, folder: Path) -> bool:
    """Whether a listed file is a link, or lies below one, to a place outside of the model's folder."""
    return not path.resolve().is_relative_to(folder.resolve())


def _names(values: dict[str, Any]) -> list[str]:
    """Everything in the manifest that names a file."""
    parts = [values.get("tokenizer"), values.get("self_test")]
    graphs = values.get("graphs")
    parts += graphs.values() if isinstance(graphs, dict) else []
    named = [part.get("file") for part in parts if isinstance(part, dict)]
    files = values.get("files")
    return [name for name in [*(files if isinstance(files, dict) else []), *named] if isinstance(name, str)]


def _is_safe(name: str) -> bool:
    try:
        return relative_path(name) == name
    except ValueError:
        return False
