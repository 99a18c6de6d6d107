"""`parcae-export doctor`: what is installed, in which version, and which targets can be written and executed here.

diagnose()                                         # findings about this machine
shape_table("folder/", "int4")                     # which targets and loop forms take a model, and why not
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

import torch
from packaging.requirements import Requirement

from export.job import default_computes, shape_of
from export.targets.registry import DYNAMIC, TARGETS, Target, WriteOptions, load_host, load_runtime, load_target
from export.targets.shapes import Answer, answers
from parcae_mobile.checkpoint import find_folder
from parcae_mobile.checkpoint.read import read_config
from parcae_mobile.config import RELEASED_SHAPES, released_config
from parcae_mobile.errors import ToolMissingError
from parcae_mobile.model import Parcae
from quantize.recipe import load_recipe

PACKAGE = "parcae-mobile"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it is fine, and what was found."""

    subject: str
    fine: bool
    detail: str


def diagnose() -> list[Finding]:
    """Python, packages against their pins, targets, devices. Never raises for what is missing."""
    findings = [Finding("python", platform.python_version().startswith("3.11."), platform.python_version())]
    for requirement in _requirements():
        extra = "extra" in str(requirement.marker or "")
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            findings.append(Finding(requirement.name, extra, "not installed" + (" (optional)" if extra else "")))
            continue
        fine = requirement.specifier.contains(installed, prereleases=True)
        wanted = "" if fine else f", the pinned set has {requirement.specifier}"
        findings.append(Finding(requirement.name, fine, installed + wanted))
    for target in TARGETS.values():
        findings.append(_of_target(target))
    has_cuda = torch.cuda.is_available()
    cuda = torch.cuda.get_device_name() if has_cuda else "none: references are made on the CPU, and say so"
    findings.append(Finding("cuda device", True, cuda))
    return findings


def shape_table(model: str, quant: str, context: int | None = None, revision: str | None = None) -> list[Answer]:
    """The answer of every target, flavour and loop form for a model of which only the configuration is read.

    Raises `RecipeError` where the recipe does not fit the model's matrices, whatever the target.
    """
    named = model in RELEASED_SHAPES
    config = released_config(model) if named else read_config(find_folder(model, revision))
    with torch.device("meta"):
        built = Parcae(config)
    recipe = load_recipe(quant)
    options = WriteOptions("stages", DYNAMIC, 1, min(context or config.context, config.context), "fp32")
    return answers(shape_of(options, built, recipe), default_computes(recipe))


def _of_target(target: Target) -> Finding:
    """Whether its writer and its runtime can be imported here, which is tried."""
    subject = f"target {target.name}"
    try:
        load_target(target)
    except ToolMissingError as error:
        return Finding(subject, target.module is None, str(error))
    try:
        load_runtime(target)
        load_host(target)
    except ToolMissingError as error:
        return Finding(subject, False, f"written, and not executed here: {error}")
    return Finding(subject, True, f"written, and executed by {target.host_runtime}")


def _requirements() -> list[Requirement]:
    try:
        listed = requires(PACKAGE) or []
    except PackageNotFoundError:
        return []
    unique: dict[str, Requirement] = {}
    for requirement in map(Requirement, listed):
        if requirement.name != PACKAGE:
            unique.setdefault(requirement.name, requirement)
    return list(unique.values())
