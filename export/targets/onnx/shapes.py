"""Which shapes and formats ONNX graphs take: onnxruntime's kernels have sizes of their own, and some can be padded.

`GroupQueryAttention` wants heads of a multiple of 16 channels to rotate, of 8 otherwise: heads are padded with zeros,
which changes nothing (a zero channel adds nothing to a score, and its values are cut off). `MatMulNBits` and
`GatherBlockQuantized` want blocks of a power of two from 16 to 256 columns: a wider or an odd group is several blocks
with one scale, and a table's last block is padded and its rows are cut to length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from parcae_mobile.config import ParcaeConfig
from parcae_mobile.stage_names import LAYER_GROUPS

if TYPE_CHECKING:
    from export.targets.shapes import Asked

LEAST_BLOCK, MOST_BLOCK = 16, 256  # columns that share a scale in the kernels
ROTARY_MULTIPLE, PLAIN_MULTIPLE = 16, 8  # of the channels of a head


def padded_head(size: int, rope: bool) -> int:
    """Channels of a head in the graph and its caches."""
    multiple = ROTARY_MULTIPLE if rope else PLAIN_MULTIPLE
    return -(-size // multiple) * multiple


def head_sizes(config: ParcaeConfig) -> dict[str, int]:
    """Channels of a cached head by stage."""
    rope = config.rope_settings.use_rope
    return {stage: padded_head(config.head_width(stage), rope) for stage in LAYER_GROUPS}


def block_columns(columns: int, group: int, gathered: bool = False) -> int:
    """Columns per block of a matrix in groups of `group`, the whole row if that is `columns`.

    A `gathered` table's blocks divide its rows where one of 16 or more can.
    """
    power = group & -group  # the greatest power of two that divides the group
    if group < columns or (gathered and power >= LEAST_BLOCK):
        return min(power, MOST_BLOCK)
    block = LEAST_BLOCK
    while block < min(columns, MOST_BLOCK):
        block *= 2
    return block


def refusal(asked: Asked) -> str | None:
    """Why ONNX cannot write this, None if it can."""
    if asked.options.portable:
        return _portable_refusal(asked)
    for name, rule in asked.rules.items():
        columns = asked.sizes[name][1]
        if rule.bits not in (4, 8):
            return f"ONNX: {name} has {rule.bits} bits, and MatMulNBits is used with 4 and 8"
        group = rule.groups_for(name, columns)
        if group < columns and block_columns(columns, group) < LEAST_BLOCK:
            return f"ONNX: {name} is in groups of {group}, and MatMulNBits takes multiples of {LEAST_BLOCK}"
    return None


def _portable_refusal(asked: Asked) -> str | None:
    for name, rule in asked.rules.items():
        rows, columns = asked.sizes[name]
        kind = f"{'' if rule.symmetric else 'a'}symmetric, {rule.bits} bits, {rows} x {columns}"
        if rule.bits not in (4, 8) or not rule.symmetric or (rule.bits == 4 and (rows % 2 or columns % 2)):
            return f"ONNX --portable takes symmetric matrices of 4 (even sizes) or 8 bits; {name} is {kind}"
    return None
