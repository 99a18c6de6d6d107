"""Memory from the system: zeros that take what is written to."""

from __future__ import annotations

import sys

import psutil
import pytest
import torch

from parcae_mobile.zeros import zeros_on_demand


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.mark.skipif(sys.platform != "linux", reason="pages are counted as Linux counts them")
def test_only_pages_that_are_written_to_take_memory() -> None:
    before = resident()
    cache = zeros_on_demand((64, 8, 2048, 64), torch.float16)  # 134 MB
    cache[:, :, :16] = 1
    assert resident() - before < 20_000_000
    assert float(cache.float().sum(dtype=torch.float64)) == 64 * 8 * 16 * 64
    del cache
    assert resident() - before < 20_000_000


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int32])
@pytest.mark.parametrize("shape", [(3, 5), (1,), (0, 4), ()])
def test_zeros_of_any_shape_and_type(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    zeros = zeros_on_demand(shape, dtype)
    assert zeros.dtype == dtype and tuple(zeros.shape) == shape and not zeros.any()
    zeros += 1
    assert int(zeros.sum()) == zeros.numel()


def test_more_than_there_are_addresses_for_is_an_error_like_others() -> None:
    with pytest.raises(MemoryError):
        zeros_on_demand((2**62,), torch.float16)
