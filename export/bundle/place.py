"""Bundled models in an app's folder: `NAME/` with `app.json` and the artifact's files, and `models.json` beside them.

    put(artifact, "web", Path("web_demo/public/models"), "parcae-tiny")
    listed(Path("web_demo/public/models")); remove(Path("web_demo/public/models"), "parcae-tiny")

A model appears whole or not at all. Only folders with an `app.json` are ever replaced or removed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from export.artifact.publish import publish, staging
from export.bundle.describe import describe
from export.bundle.platforms import check_platform
from export.gates.verify import verify_artifact
from export.targets.registry import find_target, load_host
from parcae_mobile.app_checks import check_files, read_app_manifest
from parcae_mobile.app_manifest import (
    APP_MANIFEST,
    APP_SIGNATURE,
    MODELS,
    MOST_APP_MANIFEST,
    NAME,
    AppManifest,
    ModelEntry,
    Models,
    Platform,
)
from parcae_mobile.errors import AppManifestError, GateError, InputError, UsageError
from parcae_mobile.given_file import read_text
from parcae_mobile.manifest import read_manifest

Done = Literal["added", "replaced", "unchanged"]


def put(
    artifact: Path, platform: Platform, app: Path, name: str | None = None, threads: int = 0
) -> tuple[AppManifest, Done]:
    """Verify an artifact and put it into an app's folder of models.

    Raises `UsageError` for what the platform cannot run or a name that cannot be, `GateError` for an artifact that
    failed its gates or does here, and what `verify_artifact` raises.
    """
    stated = read_manifest(artifact)
    check_platform(stated, platform)
    name = stated.artifact if name is None else name
    if not re.fullmatch(NAME, name):
        raise UsageError(f"--name {name!r}: give letters, digits, spaces, and . _ - inside of it")
    failed = next((gate for gate in ("lowering", "compression") if getattr(stated, gate).passed is False), None)
    if failed is not None:
        raise GateError(f"{artifact}: failed its {failed} gate; export it again, apps take what passed")
    others = read_all(app)
    foreign = next((other for other in others if other.platform != platform), None)
    if foreign is not None:
        raise UsageError(
            f"{app} holds models for {foreign.platform} ({foreign.name}); give another --app for {platform}"
        )
    final = app / name
    if final.exists() and not (final / APP_MANIFEST).is_file():
        raise UsageError(f"{final} exists and is no bundled model; move it away or give another --name")
    manifest = verify_artifact(artifact, threads).manifest
    host = load_host(find_target(manifest.target))(artifact, manifest, threads)
    try:
        described = describe(artifact, manifest, host, platform, name)
        read_app_manifest(described.to_json())  # no app is given what its reader refuses
    except ValidationError as error:
        raise InputError(f"{artifact}: {error.errors()[0]['msg']}; export the artifact again") from None
    done: Done = "replaced" if final.exists() else "added"
    if done == "replaced" and is_whole(final, described):
        done = "unchanged"
    else:
        with staging(final) as folder:
            try:
                copy(artifact, described, folder)
            except OSError as error:
                raise InputError(f"cannot copy {artifact} into {app} ({error.strerror}); make room there") from None
            publish(folder, final)
    write_index(app, platform)
    return described, done


def copy(artifact: Path, manifest: AppManifest, folder: Path) -> None:
    """Copy the files, compare the copies with their checksums, write `app.json` last."""
    for file in manifest.files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifact / file, folder / file)
    check_files(manifest, folder)
    (folder / APP_MANIFEST).write_text(manifest.to_json(), encoding="utf-8")


def is_whole(folder: Path, manifest: AppManifest) -> bool:
    """Whether a folder holds exactly this manifest and its files; it may be signed."""
    try:
        check_files(manifest, folder)
    except AppManifestError:
        return False
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    same = read_text(folder / APP_MANIFEST, InputError, MOST_APP_MANIFEST) == manifest.to_json()
    return same and present - {APP_SIGNATURE} == {*manifest.files, APP_MANIFEST}


def remove(app: Path, name: str) -> None:
    """Take a model out. Raises `UsageError` if there is none of that name."""
    bundled = next((manifest for manifest in read_all(app) if manifest.name == name), None)
    if bundled is None:
        raise UsageError(f"--remove {name}: {app} has {', '.join(m.name for m in read_all(app)) or 'no models'}")
    gone = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".old", dir=app))
    (app / name).rename(gone / name)  # so that no reader sees half of it
    write_index(app, bundled.platform)
    shutil.rmtree(gone)


def read_all(app: Path) -> list[AppManifest]:
    """The manifests of all bundled models, by name. Raises `InputError` for one that is damaged."""
    if app.exists() and not app.is_dir():
        raise InputError(f"{app} is a file; --app is the folder that the app reads its models from")
    manifests = []
    for path in sorted(app.glob(f"*/{APP_MANIFEST}")):
        try:
            manifest = read_app_manifest(read_text(path, InputError, MOST_APP_MANIFEST))
        except AppManifestError as error:
            raise InputError(f"{path}: {error}; remove the folder or bundle it again") from None
        if manifest.name != path.parent.name:
            raise InputError(f"{path}: the folder is not named {manifest.name}; rename it or bundle it again")
        manifests.append(manifest)
    return manifests


def write_index(app: Path, platform: Platform) -> Models:
    """Write `models.json` anew from what is there, in one step."""
    entries = [
        ModelEntry(
            name=manifest.name,
            model=manifest.model,
            recipe=manifest.recipe,
            loops=manifest.loops,
            bytes=sum(entry.bytes for entry in manifest.files.values()),
            memory=needed(manifest),
        )
        for manifest in read_all(app)
    ]
    index = Models(format=1, platform=platform, models=entries)
    handle, temporary = tempfile.mkstemp(prefix=f".{MODELS}.", dir=app)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(index.to_json())
    os.chmod(temporary, 0o644)
    os.replace(temporary, app / MODELS)
    return index


def needed(manifest: AppManifest) -> int:
    """Bytes at the loop count that a message gets by default, with the cache of the full context."""
    cache = manifest.cache
    return manifest.memory.estimate(manifest.loops.choose(), cache.context, cache.prefill_chunk)
