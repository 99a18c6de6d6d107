"""Lowering to a `.pte`: what XNNPACK has to take, and what a process keeps afterwards."""

from __future__ import annotations

import gc
import linecache
from collections.abc import Callable

import pytest
from executorch.exir.backend.utils import is_same_node
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.fx.graph_module import _loader

from export.targets.executorch.layers import friendly_model
from export.targets.executorch.lowering import Partitioner, lower
from export.targets.executorch.stages import trace_methods
from parcae_mobile import Parcae
from parcae_mobile.errors import GateError
from quantize import load_recipe, quantize_with


def test_a_file_that_xnnpack_hardly_takes_fails_its_gate(mini_model: Parcae) -> None:
    from executorch.backends.xnnpack.partition.config import generic_node_configs

    quantized = quantize_with(mini_model, load_recipe("fp32"), "rtn")
    programs = trace_methods(friendly_model(quantized), 32, 2, 32)
    with pytest.raises(GateError, match="0.0% of the multiply-accumulates of coda"):
        lower({"coda": programs["coda"]}, {}, Partitioner(configs=[generic_node_configs.AddConfig]))


def test_a_prelude_without_matrix_products_has_nothing_to_delegate(small: Callable[..., Parcae]) -> None:
    model = small(n_layers_in_prelude=0, injection_type="add")
    programs = trace_methods(friendly_model(quantize_with(model, load_recipe("fp32"), "rtn")), 32, 2, 32)
    _, delegation = lower({"prelude": programs["prelude"]}, {})
    assert delegation["prelude"].macs == 0 and delegation["prelude"].macs_share == 1.0


def test_lowering_leaves_no_graph_behind(small: Callable[..., Parcae]) -> None:
    def environments() -> list[ShapeEnv]:
        gc.collect()
        return [thing for thing in gc.get_objects() if type(thing) is ShapeEnv]

    earlier = environments()
    programs = trace_methods(friendly_model(quantize_with(small(), load_recipe("fp32"), "rtn")), 32, 2, 32)
    lower({"coda": programs["coda"]}, {})
    made = [env for env in environments() if all(env is not other for other in earlier)]
    assert is_same_node.cache_info().currsize == 0
    assert not _loader.eval_cache and not [name for name in linecache.cache if "<eval_with_key>" in name]
    # One that still lists its inputs is kept by their sizes for as long as the process lives.
    assert made and not any(env.tracked_fakes for env in made)
