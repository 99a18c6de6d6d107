"""Gathers, scatters and slices. Every index is checked: nothing is clamped, nothing wraps that MIL does not wrap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from export.targets.coreml.mil.registry import IOS17, Arguments, like, operator

GROUP_WORK = 10_000  # multiplications that take as long as one look-up


def checked_indices(a: Arguments, name: str, size: int) -> Tensor:
    """The integer parameter `name` as int64 in [0, size). Negative ones count from the end before iOS 17 only."""
    indices = a.raw(name)
    if indices.is_floating_point() or indices.dtype is torch.bool:
        raise a.fail(f"'{name}' is {a.dtype(name)}, want integers")
    indices = indices.long()
    low = 0 if a.opset >= IOS17 else -size
    bad = (indices < low) | (indices >= size)
    if bool(bad.any()):
        raise a.fail(f"'{name}' has {indices[bad].reshape(-1)[0].item()}, out of range [{low}, {size})")
    return torch.where(indices < 0, indices + size, indices)


@operator("gather", result=like("x"))
def _gather(a: Arguments) -> Tensor:
    """Rows of x along `axis`; the first `batch_dims` dimensions of x and indices run together."""
    x = a.raw("x")
    axis, batch = a.axis(a.integer("axis", 0), x.dim()), a.integer("batch_dims", 0)
    indices = checked_indices(a, "indices", x.shape[axis])
    if not 0 <= batch <= min(axis, indices.dim()) or x.shape[:batch] != indices.shape[:batch]:
        raise a.fail(f"batch_dims {batch} does not fit x {list(x.shape)}, indices {list(indices.shape)}, axis {axis}")
    a.room(x.numel() // max(1, x.shape[axis]), indices.numel())
    if batch == 0:
        picked = x.index_select(axis, indices.reshape(-1))
        return picked.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])
    groups = int(torch.tensor(x.shape[:batch]).prod())
    a.room(groups, work=GROUP_WORK)  # each is a look-up of its own
    rows = x.reshape(groups, *x.shape[batch:])
    each = [row.index_select(axis - batch, i) for row, i in zip(rows, indices.reshape(groups, -1), strict=True)]
    return torch.stack(each).reshape(x.shape[:axis] + indices.shape[batch:] + x.shape[axis + 1 :])


@operator("gather_along_axis", result=like("x"))
def _gather_along_axis(a: Arguments) -> Tensor:
    x = a.raw("x")
    axis = a.axis(a.integer("axis", 0), x.dim())
    indices = checked_indices(a, "indices", x.shape[axis])
    _same_but_axis(a, x, indices, axis)
    return x.gather(axis, indices)


@operator("gather_nd", result=like("x"))
def _gather_nd(a: Arguments) -> Tensor:
    x, batch = a.raw("x"), a.integer("batch_dims", 0)
    indices = a.raw("indices")
    if not 0 <= batch < indices.dim() or x.shape[:batch] != indices.shape[:batch]:
        raise a.fail(f"batch_dims {batch} does not fit x {list(x.shape)}, indices {list(indices.shape)}")
    depth = indices.shape[-1]
    if depth > x.dim() - batch:
        raise a.fail(f"indices of depth {depth} into rank {x.dim()} with {batch} batch dimensions")
    a.room(indices.numel() // max(1, depth), *x.shape[batch + depth :])
    columns = _nd_columns(a, indices, tuple(x.shape[batch : batch + depth]))
    grids = [
        torch.arange(size).reshape([-1 if i == axis else 1 for i in range(indices.dim() - 1)])
        for axis, size in enumerate(indices.shape[:batch])
    ]
    return x[tuple(grids + columns)]


@operator("scatter", result=like("data", "updates"))
def _scatter(a: Arguments) -> Tensor:
    data, updates = a.wide("data"), a.wide("updates")
    axis = a.axis(a.integer("axis", 0), data.dim())
    indices = checked_indices(a, "indices", data.shape[axis])
    want = data.shape[:axis] + indices.shape + data.shape[axis + 1 :]
    if updates.shape != want or indices.dim() != 1:
        raise a.fail(f"updates {list(updates.shape)}, want {list(want)} for {indices.dim()}-dimensional indices")
    shape = [-1 if i == axis else 1 for i in range(data.dim())]
    return _reduce_at(a, data, axis, indices.reshape(shape).expand(updates.shape), updates)


@operator("scatter_along_axis", result=like("data", "updates"))
def _scatter_along_axis(a: Arguments) -> Tensor:
    data, updates = a.wide("data"), a.wide("updates")
    axis = a.axis(a.integer("axis", 0), data.dim())
    indices = checked_indices(a, "indices", data.shape[axis])
    _same_but_axis(a, data, indices, axis)
    if updates.shape != indices.shape:
        raise a.fail(f"updates {list(updates.shape)}, want {list(indices.shape)}")
    return _reduce_at(a, data, axis, indices, updates)


@operator("scatter_nd", result=like("data", "updates"))
def _scatter_nd(a: Arguments) -> Tensor:
    data, updates, indices = a.wide("data"), a.wide("updates"), a.raw("indices")
    depth = indices.shape[-1]
    want = indices.shape[:-1] + data.shape[depth:]
    if depth > data.dim() or updates.shape != want:
        raise a.fail(f"updates {list(updates.shape)}, want {list(want)}")
    flat = torch.zeros(indices.shape[:-1], dtype=torch.long)
    for column, size in zip(_nd_columns(a, indices, tuple(data.shape[:depth])), data.shape[:depth], strict=True):
        flat = flat * size + column
    rows = data.reshape(-1, *data.shape[depth:]) if depth else data[None]
    index = flat.reshape(-1, *[1] * (rows.dim() - 1)).expand(-1, *rows.shape[1:])
    return _reduce_at(a, rows, 0, index, updates.reshape(index.shape)).reshape(data.shape)


def _same_but_axis(a: Arguments, x: Tensor, indices: Tensor, axis: int) -> None:
    if x.dim() != indices.dim() or any(i != axis and size != indices.shape[i] for i, size in enumerate(x.shape)):
        raise a.fail(f"indices {list(indices.shape)} do not fit {list(x.shape)} outside of axis {axis}")


def _nd_columns(a: Arguments, indices: Tensor, sizes: tuple[int, ...]) -> list[Tensor]:
    columns = []
    for i, size in enumerate(sizes):
        column = indices[..., i].long()
        low = 0 if a.opset >= IOS17 else -size
        bad = (column < low) | (column >= size)
        if bool(bad.any()):
            raise a.fail(f"'indices' has {column[bad].reshape(-1)[0].item()}, out of range [{low}, {size}) on axis {i}")
        columns.append(torch.where(column < 0, column + size, column))
    return columns


def _reduce_at(a: Arguments, data: Tensor, axis: int, index: Tensor, updates: Tensor) -> Tensor:
    mode = a.text("mode", "add")
    if mode == "update":
        return data.scatter(axis, index, updates)
    if mode == "sub":
        return data.scatter_reduce(axis, index, -updates, "sum")
    if mode == "div":
        return data.scatter_reduce(axis, index, 1 / updates, "prod")
    reductions = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    if mode not in reductions:
        raise a.fail(f"unknown mode {mode}")
    return data.scatter_reduce(axis, index, updates, reductions[mode])


def _flags(a: Arguments, name: str, rank: int) -> list[bool]:
    flags = [bool(flag) for flag in a.raw(name).reshape(-1).tolist()] if a.has(name) else [False] * rank
    if len(flags) != rank:
        raise a.fail(f"'{name}' has {len(flags)} entries for rank {rank}")
    return flags


def _vector(a: Arguments, name: str, rank: int) -> list[int]:
    numbers = a.integers(name)
    if len(numbers) != rank:
        raise a.fail(f"'{name}' has {len(numbers)} entries for rank {rank}")
    return numbers


def slice_ranges(a: Arguments, shape: tuple[int, ...]) -> tuple[list[range], list[int]]:
    """What slice_by_index and slice_update take of each axis, and the axes that squeeze_mask removes.

    A masked begin or end is the end of the axis. Negative positions count from the end. Whatever lies outside of the
    axis after that, or runs against the stride, is an error.
    """
    rank = len(shape)
    begin, end = _vector(a, "begin", rank), _vector(a, "end", rank)
    stride = _vector(a, "stride", rank) if a.has("stride") else [1] * rank
    begin_mask, end_mask, squeeze = (_flags(a, name, rank) for name in ("begin_mask", "end_mask", "squeeze_mask"))
    ranges: list[range] = []
    for axis, size in enumerate(shape):
        step = stride[axis]
        if step == 0:
            raise a.fail(f"stride 0 on axis {axis}")
        first, last = (0, size) if step > 0 else (size - 1, -1)
        if not begin_mask[axis]:
            first = _position(a, "begin", begin[axis], size, axis, closed=step < 0 or squeeze[axis])
        if squeeze[axis]:
            step, last = 1, first + 1
            _position(a, "begin", first, size, axis, closed=True)
        elif not end_mask[axis]:
            last = _position(a, "end", end[axis], size, axis, closed=step < 0)
        if (last - first) * step < 0:
            raise a.fail(f"on axis {axis} the slice runs from {first} to {last} with stride {step}")
        ranges.append(range(first, last, step))
    return ranges, [axis for axis in range(rank) if squeeze[axis]]


def _position(a: Arguments, name: str, value: int, size: int, axis: int, closed: bool) -> int:
    """`value` counted from the front; `size` itself is a position too unless `closed`."""
    if not -size <= value < size + (0 if closed else 1):
        raise a.fail(f"'{name}' {value} is out of range for axis {axis} of size {size}")
    return value + size if value < 0 else value


def _take(x: Tensor, ranges: list[range]) -> Tensor:
    for axis, span in enumerate(ranges):
        if span.step > 0:
            x = x[(slice(None),) * axis + (slice(span.start, span.stop, span.step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(span), dtype=torch.long))
    return x


@operator("slice_by_index", result=like("x"))
def _slice_by_index(a: Arguments) -> Tensor:
    x = a.raw("x")
    ranges, squeezed = slice_ranges(a, tuple(x.shape))
    return _take(x, ranges).squeeze(tuple(squeezed))


@operator("slice_by_size", result=like("x"))
def _slice_by_size(a: Arguments) -> Tensor:
    x = a.raw("x")
    begin, size = _vector(a, "begin", x.dim()), _vector(a, "size", x.dim())
    ranges = []
    for axis, total in enumerate(x.shape):
        first = _position(a, "begin", begin[axis], total, axis, closed=False)
        last = total if size[axis] == -1 else first + size[axis]
        if size[axis] < -1 or last > total:
            raise a.fail(f"'size' {size[axis]} from {first} is out of range for axis {axis} of size {total}")
        ranges.append(range(first, last))
    return _take(x, ranges)


@operator("slice_update", result=like("x", "update"))
def _slice_update(a: Arguments) -> Tensor:
    """x with the slice replaced by `update`, which must have exactly the slice's shape."""
    x, update = a.raw("x"), a.raw("update")
    ranges, squeezed = slice_ranges(a, tuple(x.shape))
    want = [len(span) for axis, span in enumerate(ranges) if axis not in squeezed]
    if list(update.shape) != want:
        raise a.fail(f"update {list(update.shape)}, the slice is {want}")
    update = update.reshape([len(span) for span in ranges])
    index: tuple[Any, ...]
    if all(span.step > 0 for span in ranges):
        index = tuple(slice(span.start, span.stop, span.step) for span in ranges)
    else:
        index = torch.meshgrid(*(torch.tensor(list(span), dtype=torch.long) for span in ranges), indexing="ij")
    result = a.writable(x, index)
    result[index] = update
    return result
