"""Puts an artifact folder on the Hugging Face hub, as one commit, once it has been checked file by file.

    for line in planned(folder): print(line)               # what would go, nothing is sent
    address = push(folder, "owner/name", private=True)

The token is the hub client's own (`huggingface-cli login`, or HF_TOKEN); HF_HUB_OFFLINE is obeyed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from parcae_mobile.errors import InputError, UsageError
from parcae_mobile.hub import is_hub_id
from parcae_mobile.manifest import MANIFEST, SIGNATURE, verify_files


@dataclass(frozen=True)
class PlannedFile:
    """One file of a commit: its path in the repository and its bytes."""

    path: str
    bytes: int


def planned(folder: Path) -> list[PlannedFile]:
    """What a push of this artifact would send. Raises as `verify_files` does for an altered folder."""
    names = [*verify_files(folder).files, MANIFEST, *([SIGNATURE] if (folder / SIGNATURE).is_file() else [])]
    return [PlannedFile(name, (folder / name).stat().st_size) for name in sorted(names)]


def push(folder: Path, repository: str, private: bool = False, message: str | None = None) -> str:
    """Create the repository if there is none and upload the artifact's files; returns the commit's address.

    Raises `UsageError` for a name that is no `owner/name`, `InputError` where the hub refuses or cannot be reached.
    """
    if not is_hub_id(repository):
        raise UsageError(f"--repo {repository}: give owner/name")
    files = planned(folder)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[file.path for file in files],
            commit_message=message or f"Upload {folder.name}",
        )
    except OfflineModeIsEnabled:
        raise InputError(f"cannot push to {repository}: HF_HUB_OFFLINE is set; unset it") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        refused = status in (401, 403)
        advice = "log in with a token that may write there" if refused else "try again, or give another --repo"
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"cannot push to {repository} (HTTP {status}: {reason}); {advice}") from None
    except OSError as error:
        raise InputError(f"cannot push to {repository}: the hub cannot be reached ({error})") from None
    return str(commit.commit_url)
