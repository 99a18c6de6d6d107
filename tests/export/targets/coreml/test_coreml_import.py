"""coreml's libraries are imported without the frameworks that coremltools would convert from."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from export.targets.coreml import noise


def test_what_is_converted_from_is_hidden_while_coremltools_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    there = ModuleType("already_there")
    monkeypatch.setitem(sys.modules, "already_there", there)
    monkeypatch.setattr(noise, "CONVERTED_FROM", ("already_there", "colorsys_that_is_slow"))
    with noise.importing():
        assert sys.modules["already_there"] is there
        with pytest.raises(ImportError):
            __import__("colorsys_that_is_slow")
    assert "colorsys_that_is_slow" not in sys.modules and sys.modules["already_there"] is there


def test_they_can_be_imported_again_where_coremltools_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "CONVERTED_FROM", ("colorsys_that_is_slow",))
    with pytest.raises(ZeroDivisionError), noise.importing():
        raise ZeroDivisionError
    assert "colorsys_that_is_slow" not in sys.modules
