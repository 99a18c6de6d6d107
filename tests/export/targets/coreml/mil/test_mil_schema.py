"""The protobuf schema: loaded without coremltools itself, and a clear line where it is not installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from export.targets.coreml.mil.files.schema import model_message
from parcae_mobile.errors import ToolMissingError


def test_opening_a_package_does_not_import_coremltools() -> None:
    check = (
        "import sys; from export.targets.coreml.mil.files.schema import model_message;"
        "assert model_message()().SerializeToString() == b''; print('coremltools' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert done.stderr == ""


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "coremltools.proto.Model_pb2", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolMissingError, match=r"pip install 'parcae-mobile\[coreml\]'"):
        model_message.__wrapped__()
