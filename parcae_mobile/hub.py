"""Repositories of the Hugging Face hub, through its client's cache.

folder = download("SandyResearch/parcae-140m", None, ["config.json", "*.bin"])
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from .errors import CheckpointError, ToolMissingError, reason_of

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(text: str) -> bool:
    """Whether a text has the form `owner/name`."""
    return _HUB_ID.fullmatch(text) is not None


def download(hub_id: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The snapshot of a repository's files that match. Raises `CheckpointError` if the hub does not deliver them."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
        from requests.exceptions import RequestException
    except ImportError:
        raise ToolMissingError("huggingface_hub is not installed: pip install huggingface_hub") from None
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RequestException, OSError) as error:
        said = reason_of(error)
        raise CheckpointError(f"{hub_id}: no such folder, and the hub did not deliver it ({said})") from None
