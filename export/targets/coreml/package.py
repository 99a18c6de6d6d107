"""From MIL functions to the bytes of an `.mlpackage`, and nothing in them that differs from run to run.

save_package(folder / "model.mlpackage", functions, default="main", metadata={...})

    reprocess(folder / "model.mlpackage", other / "model.mlpackage")  # as a tool would write it that loads and saves it

The package is what `coremltools.convert` would save, without its optimization passes, conversion date and random UUIDs.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.targets.coreml.builder import TARGET
from export.targets.coreml.noise import importing, quiet

with importing():
    # coremltools has no public way to save a MIL program without running its passes over it; the version is pinned.
    from coremltools.converters.mil.backend.mil.load import load as to_specification
    from coremltools.converters.mil.frontend.milproto.load import load as to_program
    from coremltools.converters.mil.mil import Program
    from coremltools.converters.mil.mil.passes.pass_pipeline import PassPipeline
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
    from coremltools.models.utils import load_spec

NAMESPACE = uuid.UUID("3f0c3c5e-54a7-5f6b-9c39-6a3c2c0f7f10")
FOLDER = "com.apple.CoreML"
# No clean-ups: conversions to another type, which a tool has to ask for, and new names for ports (it finds that `state`
# is a word of MIL), by which hosts could not call the package.
LEFT_OUT = {"common::add_fp16_cast", "common::add_int16_cast", "common::sanitize_input_output_names"}


def save_package(path: Path, functions: Mapping[str, Any], default: str, metadata: Mapping[str, str]) -> None:
    """Write MIL functions as one package at `path`, which must not exist."""
    weights = path / "Data" / FOLDER / "weights"
    weights.mkdir(parents=True)
    program = Program()
    for name, function in functions.items():
        program.add_function(name, function)
    program.default_function_name = default
    program.export_as_multifunction = len(functions) > 1
    with quiet():
        specification = to_specification(
            program,
            weights_dir=str(weights),
            specification_version=TARGET.value,
            convert_to="mlprogram",
            convert_from="milinternal",
        )
    specification.description.metadata.userDefined.update(metadata)
    (weights.parent / "model.mlmodel").write_bytes(specification.SerializeToString(deterministic=True))
    entries = {
        "model.mlmodel": "CoreML Model Specification",
        "weights": "CoreML Model Weights",
    }
    items = {
        str(uuid.uuid5(NAMESPACE, name)).upper(): {
            "author": FOLDER, "description": description, "name": name, "path": f"{FOLDER}/{name}"
        }
        for name, description in entries.items()
    }  # fmt: skip
    root = str(uuid.uuid5(NAMESPACE, "model.mlmodel")).upper()
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": items, "rootModelIdentifier": root}
    (path / "Manifest.json").write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n", encoding="utf-8")


def reprocess(package: Path, to: Path) -> None:
    """Load `package`, run coremltools' default pipeline over every function, write it to `to`, which must not exist.

    A compiler on a phone may do the same things.
    """
    with quiet():
        specification = load_spec(str(package))
        program = to_program(
            specification,
            specification_version=specification.specificationVersion,
            file_weights_dir=str(package / "Data" / FOLDER / "weights"),
        )
        pipeline = PassPipeline.DEFAULT
        pipeline.remove_passes(LEFT_OUT)
        for name in pipeline.passes:  # their manager also prints and checks the program after each, half of the time
            graph_pass = PASS_REGISTRY[name]
            graph_pass.set_options(pipeline.get_options(name))
            graph_pass(program)
        program.validate()
    metadata = dict(specification.description.metadata.userDefined)
    default = specification.description.defaultFunctionName or "main"
    save_package(to, program.functions, default, metadata)
    saved = to / "Data" / FOLDER / "model.mlmodel"
    rewritten = load_spec(str(saved))
    rewritten.description.CopyFrom(specification.description)  # the program alone does not know the ranges of shapes
    saved.write_bytes(rewritten.SerializeToString(deterministic=True))
