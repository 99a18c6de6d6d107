"""Which shapes and formats an ExecuTorch program takes: XNNPACK's kernels are particular about integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from export.targets.shapes import Asked
    from quantize.recipe import Rule

LINEAR_GROUP = 32  # XNNPACK's blockwise int4 kernels want groups of a multiple of this
LEAST_CONTEXT = 4  # a program for fewer positions does not trace, or computes something else


def refusal(asked: Asked) -> str | None:
    """Why ExecuTorch cannot write this, None if it can."""
    if asked.options.context < LEAST_CONTEXT:
        return f"ExecuTorch: a context of {asked.options.context} is too short, it takes {LEAST_CONTEXT} tokens or more"
    if asked.rules and asked.options.compute != "int8":
        return (
            f"--compute {asked.options.compute}: ExecuTorch multiplies quantized matrices with int8 activations only; "
            "use --compute int8, or --quant fp32"
        )
    for name, rule in asked.rules.items():
        why = format_refusal(name, rule, asked.sizes[name][1], asked.config.tie_embeddings)
        if why is not None:
            return f"ExecuTorch: {name} {why}"
    return None


def format_refusal(name: str, rule: Rule, columns: int, tied: bool) -> str | None:
    """Why XNNPACK cannot hold a matrix as it is, None if it can."""
    if name.startswith("transformer.adapter."):
        return "stays float in this target; remove quantize_injection_matrix"
    table = name.startswith("value_embeds.") or name == "transformer.wte.weight"
    if table and rule.bits <= 4 and columns % 2:
        return f"is int{rule.bits} with {columns} columns, an odd count; keep it int8"
    if table and not (tied and name == "transformer.wte.weight"):
        return None
    return linear_refusal(rule.bits, rule.groups_for(name, columns), columns, rule.symmetric)


def linear_refusal(bits: int, group: int, columns: int, symmetric: bool) -> str | None:
    """Why XNNPACK cannot multiply with a matrix in this format, None if it can."""
    if not symmetric:
        return "has zero points and XNNPACK takes symmetric weights only"
    if bits > 4 and group < columns:
        return "is int8 in groups and XNNPACK wants one scale per row"
    if bits <= 4 and group % LINEAR_GROUP:
        return f"is int4 in groups of {group}, XNNPACK takes multiples of {LINEAR_GROUP}"
    return None
