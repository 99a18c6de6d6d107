"""Traced methods to the bytes of a `.pte`: XNNPACK takes what lies between two attentions, and a report says how much.

    program, delegation = lower(trace_methods(model, context=2048, slots=16), {"max_loops": 16})
    delegation["recur"].macs_share                         # of the model's matrix products, by multiply-accumulates

Methods are lowered together, so that what two of them read is stored once.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, EdgeProgramManager, ExecutorchBackendConfig, to_edge
from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.backend.partitioner import DelegationSpec
from executorch.exir.backend.utils import is_same_node
from executorch.exir.passes import MemoryPlanningPass
from torch import fx
from torch._ops import OpOverload
from torch.export import ExportedProgram

from export.stages import forget_traces
from export.targets.executorch.layers import HELPERS
from export.targets.executorch.quiet import quiet
from parcae_mobile.errors import GateError
from parcae_mobile.manifest import Delegation

LEAST_DELEGATED = 0.95
_KEPT = (
    torch.ops.aten.linear.default,
    torch.ops.torchao.choose_qparams_affine.default,
    torch.ops.torchao.quantize_affine.default,
    torch.ops.torchao.dequantize_affine.default,
)
_PRODUCTS = {"aten.linear.default": 1, "aten.mm.default": 1, "aten.addmm.default": 2, "aten.bmm.default": 1}
_NO_OPERATORS = ("getitem", "executorch_call_delegate", "sym_", "_assert", "auto_functionalized", "_local_scalar")


class Partitioner(XnnpackPartitioner):
    """XNNPACK's partitioner, whose delegates skip the passes for convolutions and image layouts.

    The traced methods need none of them, and each of the seventeen would trace every delegate again: it is most of the
    time that lowering takes. The backend runs a single pass where a delegate carries this compile spec.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.delegation_spec = DelegationSpec("XnnpackBackend", [CompileSpec("dqlinear_partitioner", b"")])


def lower(
    programs: dict[str, ExportedProgram], constants: dict[str, Any], partitioner: XnnpackPartitioner | None = None
) -> tuple[bytes, dict[str, Delegation]]:
    """Lower methods into one program with constant methods; returns the file's bytes and what was delegated.

    Raises `GateError` where less than 95 % of a method's multiply-accumulates go to XNNPACK.
    """
    config = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True, preserve_ops=list(_KEPT))
    chosen = partitioner or Partitioner()
    try:
        with quiet():
            edge = to_edge(programs, constant_methods=constants, compile_config=config)
            edge = edge.to_backend(dict.fromkeys(programs, chosen))
            delegation = {name: delegation_of(edge, name) for name in programs}
            check_delegation({name: part for name, part in delegation.items() if multiplies(programs[name])})
            # Planned inputs would be copied on every call; caches without initial values are not written to the file.
            plan = MemoryPlanningPass(alloc_graph_input=False)
            program = edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=plan))
    finally:
        is_same_node.cache_clear()  # it keeps every pair of nodes that it compared, and with each its graph
        forget_traces()
    return bytes(program.buffer), delegation


def delegation_of(edge: EdgeProgramManager, method: str) -> Delegation:
    """Count operators and multiply-accumulates inside and outside of the delegates."""
    graph_module = edge.exported_program(method).graph_module
    outside = [node for node in graph_module.graph.nodes if node.op == "call_function"]
    calls = [node for node in outside if "executorch_call_delegate" in str(node.target)]
    inside = [
        node
        for call in calls
        for node in getattr(graph_module, call.args[0].target).original_module.graph_module.graph.nodes
        if node.op == "call_function"
    ]
    left = Counter(_name(node) for node in outside if _is_operator(node))
    macs_inside, macs_outside = sum(map(_macs, inside)), sum(map(_macs, outside))
    operators = sum(map(_is_operator, inside))
    return Delegation(
        delegates=len(calls),
        operators=operators + sum(left.values()),
        operators_delegated=operators,
        macs=macs_inside + macs_outside,
        macs_delegated=macs_inside,
        attention=left["llama.custom_sdpa.default"],
        left=dict(sorted(left.items())),
    )


def check_delegation(delegation: dict[str, Delegation]) -> None:
    """Raise `GateError` for a method that multiplies and of which XNNPACK takes too little."""
    for name, part in delegation.items():
        share = part.macs_share if part.macs else 0.0
        if share < LEAST_DELEGATED:
            raise GateError(
                f"ExecuTorch: XNNPACK takes {share:.1%} of the multiply-accumulates of {name}, "
                f"{LEAST_DELEGATED:.0%} are needed; left behind: {part.left}; report this model's config.json"
            )


def multiplies(program: ExportedProgram) -> bool:
    """Whether a traced method has matrix products: a prelude without layers only looks tokens up."""
    return any(_macs(node) for node in program.graph.nodes)


def _name(node: fx.Node) -> str:
    if isinstance(node.target, OpOverload):  # of a traced program; operators of a lowered one bear the whole name
        return str(node.target)
    return str(getattr(node.target, "__name__", node.target))


def _is_operator(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and not any(part in str(node.target) for part in _NO_OPERATORS)


def _macs(node: fx.Node) -> int:
    place = _PRODUCTS.get(_name(node))
    if place is None:
        return 0
    weight = node.args[place]
    assert isinstance(weight, fx.Node)
    sources = (weight, *weight.all_input_nodes)
    if any(helper in source.name for source in sources for helper in HELPERS):
        return 0
    return math.prod(int(size) for size in weight.meta["val"].shape)
