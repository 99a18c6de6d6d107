"""The scan form: all stages in one ONNX graph, the loop a Scan over the recurrent layers' stacked caches.

    write_scan(quantized, folder, compute="int8")          # model.onnx beside weights.data

The loop count is the leading dimension of the recurrent caches, so the graph needs no input for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from export.stages import trace_stages
from export.targets.onnx.graph import ACCURACY_LEVELS, declare, rename, save, scales_of
from export.targets.onnx.lowering import StageLowering
from export.targets.onnx.nodes import half_casts
from export.targets.onnx.runtime.mapped_file import WEIGHTS
from export.targets.onnx.weights import WeightFile
from parcae_mobile.kv_cache import CacheScales
from quantize.apply import QuantizedModel


def write_scan(
    quantized: QuantizedModel, folder: Path, compute: str = "fp32", kv_scales: CacheScales | None = None
) -> list[str]:
    """Write one graph and the weights file into `folder`; returns the file names.

    Recurrent caches are stacked over loops: their leading dimension is the loop count.
    """
    composer = _Composer(quantized, WeightFile(folder / WEIGHTS), ACCURACY_LEVELS[compute], kv_scales)
    name = save(composer.graph(), folder / "model.onnx")
    composer.weights.close()
    return [name, WEIGHTS]


class _Composer:
    """The parts of the one graph."""

    def __init__(
        self, quantized: QuantizedModel, weights: WeightFile, level: int, kv_scales: CacheScales | None
    ) -> None:
        self.quantized, self.weights, self.level, self.kv_scales = quantized, weights, level, kv_scales
        self.model = quantized.outline()
        self.stages = trace_stages(self.model)
        self.initializers: dict[str, TensorProto] = {}

    def graph(self) -> GraphProto:
        """Prelude, the loop as a Scan, coda."""
        prelude = self._lower("prelude")
        scan = self._loop()
        coda = self._lower("coda", {"state": "final_state"})
        (body,) = (attribute.g for attribute in scan.attribute if attribute.name == "body")
        nodes = [*prelude, scan, *coda]
        nodes = [*half_casts(self.initializers, [*nodes, *body.node]), *nodes]
        initializers = list(self.initializers.values())
        return helper.make_graph(nodes, "parcae", self._inputs(), self._outputs(), initializer=initializers)

    def _loop(self) -> NodeProto:
        """The Scan over loops: the state is carried, each loop reads and gives its slice of the stacked caches."""
        pasts, presents = self._caches("recur", "past."), self._caches("recur", "present.")
        inner = {value: f"recur/{value}" for value in (*pasts, *presents, "state", "next_state")}
        nodes = self._lower("recur", inner)
        inputs, outputs = (
            [rename(self._declare("recur", value), inner[value]) for value in values]
            for values in (("state", *pasts), ("next_state", *presents))
        )
        return helper.make_node(
            "Scan",
            ["initial_state", *(_scan_name("recur", value) for value in pasts)],
            ["final_state", *(_scan_name("recur", value) for value in presents)],
            name="recurrence",
            body=helper.make_graph(nodes, "recurrent_block", inputs, outputs),
            num_scan_inputs=len(pasts),
        )

    def _lower(self, name: str, names: Mapping[str, str] = MappingProxyType({})) -> list[NodeProto]:
        """A stage's nodes; its caches and what the prelude computes for the loops keep one name in the whole graph."""
        stage = self.stages[name]
        outer = {value: _scan_name(name, value) for value in (*stage.inputs, *stage.outputs) if "." in value}
        outer |= {v: v for v in self.stages["prelude"].outputs if v.startswith("value_embedding")}
        return StageLowering(
            stage,
            self.quantized,
            self.weights,
            self.initializers,
            self.level,
            prefix=f"{name}/",
            names=outer | dict(names),
            kv_scales=scales_of(self.kv_scales, name),
        ).run()

    def _inputs(self) -> list[ValueInfoProto]:
        return [
            self._declare("prelude", "input_ids"),
            self._declare("coda", "positions"),
            self._declare("prelude", "total"),
            rename(self._declare("recur", "state"), "initial_state"),
            *self._stacked("past."),
        ]

    def _outputs(self) -> list[ValueInfoProto]:
        state = rename(self._declare("recur", "state"), "final_state")
        return [self._declare("coda", "logits"), state, *self._stacked("present.")]

    def _stacked(self, prefix: str) -> list[ValueInfoProto]:
        """All stages' caches, the recurrent ones with a dimension for loops."""
        return [
            rename(self._declare(name, value, stacked=name == "recur"), _scan_name(name, value))
            for name in self.stages
            for value in self._caches(name, prefix)
        ]

    def _caches(self, name: str, prefix: str) -> list[str]:
        stage = self.stages[name]
        return [value for value in (*stage.inputs, *stage.outputs) if value.startswith(prefix)]

    def _declare(self, name: str, value: str, stacked: bool = False) -> ValueInfoProto:
        return declare(self.model, name, value, stacked=stacked, int8_cache=self.kv_scales is not None)


def _scan_name(stage: str, value: str) -> str:
    """`past.0.key` of a stage -> `past.prelude.0.key` in the graph that holds all stages."""
    head, _, tail = value.partition(".")
    return f"{head}.{stage}.{tail}" if head in ("past", "present") else value
