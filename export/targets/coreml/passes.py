"""A package as a tool would write it that loads it into coremltools, runs the default passes and saves it again.

    reprocess(folder / "model.mlpackage", other / "model.mlpackage")

A compiler on a phone may do the same things. The two passes that change what is computed in (to fp16, to int16) are
left out: they are conversions that a tool asks for, not clean-ups.
"""

from __future__ import annotations

from pathlib import Path

from export.targets.coreml.noise import quiet
from export.targets.coreml.package import FOLDER, save_package

with quiet():
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load as to_program
    from coremltools.converters.mil.mil.passes.pass_pipeline import PassPipelineManager
    from coremltools.models.utils import load_spec

RETYPING = {"common::add_fp16_cast", "common::add_int16_cast"}


def reprocess(package: Path, to: Path) -> None:
    """Load `package`, run coremltools' default pipeline over every function, write it to `to`, which must not exist."""
    with quiet():
        specification = load_spec(str(package))
        program = to_program(
            specification,
            specification_version=specification.specificationVersion,
            file_weights_dir=str(package / "Data" / FOLDER / "weights"),
        )
        pipeline = ct.PassPipeline.DEFAULT
        pipeline.remove_passes(RETYPING)
        PassPipelineManager.apply_pipeline(program, pipeline)
    metadata = dict(specification.description.metadata.userDefined)
    default = specification.description.defaultFunctionName or "main"
    save_package(to, program.functions, default, metadata)
    saved = to / "Data" / FOLDER / "model.mlmodel"
    rewritten = load_spec(str(saved))
    outputs = [output.name for output in rewritten.description.output]
    rewritten.description.CopyFrom(specification.description)  # the program alone does not know the ranges of shapes
    for output, name in zip(rewritten.description.output, outputs, strict=True):
        output.name = name  # coremltools calls an output `state` another name
    saved.write_bytes(rewritten.SerializeToString(deterministic=True))
