"""The kit itself: small, up to date, in ASCII, and what it says of the tokenizers is true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app_kit.make import write_definitions
from app_kit.manifest_vectors import changed

KIT = Path(__file__).parents[2] / "app_kit"
DATA = sorted(path.relative_to(KIT).as_posix() for path in KIT.rglob("*.json"))


def test_the_kit_is_what_its_command_makes(tmp_path: Path) -> None:
    write_definitions(tmp_path)
    made = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json"))
    assert made == [name for name in DATA if name != "vectors/model.json"]  # that one is held to a real artifact
    for name in made:
        assert (tmp_path / name).read_bytes() == (KIT / name).read_bytes(), f"{name}: run make app-kit"


def test_the_kit_is_small_and_any_parser_reads_it() -> None:
    assert sum(path.stat().st_size for path in KIT.rglob("*") if path.is_file()) < 1_000_000
    for name in DATA:
        content = (KIT / name).read_bytes()
        json.loads(content)
        if name.startswith("vectors/"):
            assert content.isascii() and max(map(len, content.splitlines())) < 20_000


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    values: dict[str, Any] = json.loads((KIT / "vectors" / "manifest.json").read_text())
    return values


def test_the_schema_takes_good_manifests_and_refuses_fields_that_are_wrong_by_themselves(
    manifests: dict[str, Any],
) -> None:
    schema = json.loads((KIT / "schema" / "app.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    refused = 0
    for case in manifests["cases"]:
        if "text" not in case:
            valid = validator.is_valid(json.loads(changed(manifests["base"], case.get("changes", []))))
            refused += not valid
            assert valid or case["kind"] in ("field", "format"), case["case"]
    assert refused >= 25  # the others break rules between fields, which the page states in words


def test_there_are_enough_bad_manifests(manifests: dict[str, Any]) -> None:
    kinds = [case["kind"] for case in manifests["cases"] if case["kind"] is not None]
    assert len(kinds) >= 30
    assert set(kinds) == {"json", "format", "field", "path", "platform", "runtime", "missing", "size", "checksum"}
