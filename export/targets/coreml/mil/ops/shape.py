"""Operators that move values without computing on them: reshape, transpose, concat, fill and their like."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from export.targets.coreml.mil.dtypes import FP32, INT32, DType
from export.targets.coreml.mil.registry import IOS17, Arguments, always, like, operator


def resolve_shape(a: Arguments, source: list[int], target: list[int]) -> list[int]:
    """`target` of a reshape with 0 (take the source's size) and one -1 (take the rest) filled in.

    Before iOS 17 zeros match by position and need equal ranks; from iOS 17 on they match from the right, and a zero
    without a partner is 1.
    """
    if 0 in target:
        if a.opset < IOS17:
            if len(target) != len(source):
                raise a.fail(f"shape {target} has a 0 and another rank than x {source}")
            target = [old if new == 0 else new for old, new in zip(source, target, strict=True)]
        else:
            padded = [1] * max(0, len(target) - len(source)) + source[max(0, len(source) - len(target)) :]
            target = [old if new == 0 else new for old, new in zip(padded, target, strict=True)]
    if target.count(-1) > 1 or any(size < -1 for size in target):
        raise a.fail(f"shape {target} is not a shape")
    count, known = math.prod(source), math.prod(size for size in target if size != -1)
    if -1 in target and known and count % known == 0:
        target = [count // known if size == -1 else size for size in target]
    if math.prod(target) != count or -1 in target:
        raise a.fail(f"cannot reshape {source} to {target}")
    return target


@operator("reshape", result=like("x"))
def _reshape(a: Arguments) -> Tensor:
    x = a.raw("x")
    return x.reshape(resolve_shape(a, list(x.shape), a.integers("shape")))


@operator("reshape_like", result=like("x"))
def _reshape_like(a: Arguments) -> Tensor:
    shape: list[int] = []
    parts = [a.values(name) for name in ("ref_tensors", "begins", "ends", "end_masks")]
    if len({len(part) for part in parts}) != 1:
        raise a.fail("ref_tensors, begins, ends and end_masks differ in length")
    for reference, begin, end, open_end in zip(*parts, strict=True):
        stop = None if bool(open_end.data.item()) else int(end.data.item())
        shape += list(reference.data.shape)[int(begin.data.item()) : stop]
    x = a.raw("x")
    if math.prod(shape) != x.numel():
        raise a.fail(f"cannot reshape {list(x.shape)} to {shape}")
    return x.reshape(shape)


@operator("transpose", result=like("x"))
def _transpose(a: Arguments) -> Tensor:
    x = a.raw("x")
    perm = [a.axis(axis, x.dim(), "perm") for axis in a.integers("perm")]
    if sorted(perm) != list(range(x.dim())):
        raise a.fail(f"perm {perm} is no permutation of {x.dim()} axes")
    return x.permute(perm)


@operator("expand_dims", result=like("x"))
def _expand_dims(a: Arguments) -> Tensor:
    x, axes = a.raw("x"), a.integers("axes")
    rank = x.dim() + len(axes)
    resolved = sorted(a.axis(axis, rank, "axes") for axis in axes)
    if len(set(resolved)) != len(axes):
        raise a.fail(f"axes {axes} name one axis twice")
    for axis in resolved:
        x = x.unsqueeze(axis)
    return x


@operator("squeeze", result=like("x"))
def _squeeze(a: Arguments) -> Tensor:
    """Axes that are not of size 1 stay, as in torch."""
    x = a.raw("x")
    if not a.has("axes"):
        return x.squeeze()
    return x.squeeze(tuple(a.axis(axis, x.dim(), "axes") for axis in a.integers("axes")))


@operator("concat", result=like("values"))
def _concat(a: Arguments) -> Tensor:
    """Scalars may be joined too: they make a vector."""
    tensors = [v.data.reshape(1) if v.data.dim() == 0 else v.data for v in a.values("values")]
    axis = a.axis(a.integer("axis"), tensors[0].dim())
    for tensor in tensors:
        if tensor.dim() != tensors[0].dim():
            raise a.fail(f"values of rank {tensor.dim()} and {tensors[0].dim()}")
    a.room(sum(tensor.numel() for tensor in tensors))
    if not a.flag("interleave"):
        return torch.cat(tensors, axis)
    if len({tensor.shape for tensor in tensors}) != 1:
        raise a.fail("values to interleave differ in shape")
    return torch.stack(tensors, axis + 1).flatten(axis, axis + 1)


@operator("stack", result=like("values"))
def _stack(a: Arguments) -> Tensor:
    tensors = [v.data for v in a.values("values")]
    a.room(sum(tensor.numel() for tensor in tensors))
    return torch.stack(tensors, a.axis(a.integer("axis"), tensors[0].dim() + 1))


def _split_result(a: Arguments) -> tuple[DType, ...]:
    count = a.integer("num_splits") if a.has("num_splits") else len(a.integers("split_sizes"))
    a.room(count)
    return (a.dtype("x"),) * count


@operator("split", result=_split_result)
def _split(a: Arguments) -> tuple[Tensor, ...]:
    x = a.raw("x")
    axis = a.axis(a.integer("axis"), x.dim())
    size = x.shape[axis]
    if a.has("split_sizes"):
        sizes = a.integers("split_sizes")
    else:
        count = a.integer("num_splits")
        if count < 1 or size % count:
            raise a.fail(f"{size} elements do not split into {count} equal parts")
        sizes = [size // count] * count
    if sum(sizes) != size or min(sizes) < 0:
        raise a.fail(f"split_sizes {sizes} do not add up to {size}")
    return torch.split(x, sizes, axis)


@operator("tile", result=like("x"))
def _tile(a: Arguments) -> Tensor:
    x, reps = a.raw("x"), a.integers("reps")
    if len(reps) != x.dim() or min(reps, default=1) < 1:
        raise a.fail(f"reps {reps} for a tensor of rank {x.dim()}")
    a.room(x.numel(), *reps)
    return x.repeat(reps) if reps else x


def _fill_result(a: Arguments) -> DType:
    return a.dtype("value") if a.has("value") else FP32


def _filled(a: Arguments, shape: list[int]) -> Tensor:
    if any(size < 0 for size in shape):
        raise a.fail(f"shape {shape} is negative")
    a.room(*shape)
    if not a.has("value"):
        return torch.zeros(shape)
    return a.raw("value").reshape(()).expand(shape)


@operator("fill", result=_fill_result)
def _fill(a: Arguments) -> Tensor:
    return _filled(a, a.integers("shape"))


@operator("fill_like", result=_fill_result)
def _fill_like(a: Arguments) -> Tensor:
    return _filled(a, list(a.raw("ref_tensor").shape))


@operator("range_1d", result=like("start", "end", "step"))
def _range_1d(a: Arguments) -> Tensor:
    """start + i * step for all i before `end`, computed from i so that no error accumulates."""
    start, end, step = (a.wide(name).reshape(()) for name in ("start", "end", "step"))
    if step.item() == 0:
        raise a.fail("step is 0")
    count = max(0, math.ceil((end.item() - start.item()) / step.item()))
    a.room(count)
    return start + torch.arange(count, dtype=start.dtype) * step


@operator("shape", result=always(INT32))
def _shape(a: Arguments) -> Tensor:
    return torch.tensor(list(a.raw("x").shape), dtype=torch.int32)


@operator("reverse", result=like("x"))
def _reverse(a: Arguments) -> Tensor:
    x = a.raw("x")
    axes = [a.axis(axis, x.dim(), "axes") for axis in a.integers("axes")] if a.has("axes") else list(range(x.dim()))
    return x.flip(axes)


@operator("band_part", result=like("x"))
def _band_part(a: Arguments) -> Tensor:
    x, lower, upper = a.raw("x"), a.integer("lower", -1), a.integer("upper", -1)
    rows, columns = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])[None]
    keep = ((lower < 0) | (rows - columns <= lower)) & ((upper < 0) | (columns - rows <= upper))
    return torch.where(keep, x, torch.zeros((), dtype=x.dtype))


@operator("pad", result=like("x"))
def _pad(a: Arguments) -> Tensor:
    """`pad` lists before and after for the last dimensions, in their order."""
    x, pad, mode = a.wide("x"), a.integers("pad"), a.text("mode", "constant")
    if len(pad) % 2 or len(pad) > 2 * x.dim() or min(pad, default=0) < 0:
        raise a.fail(f"pad {pad} for a tensor of rank {x.dim()}")
    grown = [sum(pair) for pair in zip(pad[::2], pad[1::2], strict=True)]
    still = x.dim() - len(grown)
    a.room(*x.shape[:still], *(size + more for size, more in zip(x.shape[still:], grown, strict=True)))
    if mode == "constant":
        pairs = [pad[i : i + 2] for i in range(0, len(pad), 2)]
        return F.pad(x, [size for pair in reversed(pairs) for size in pair], value=a.number("constant_val", 0.0))
    if mode not in ("reflect", "replicate"):
        raise a.fail(f"unknown mode {mode}")
    for axis, before, after in zip(range(x.dim() - len(pad) // 2, x.dim()), pad[::2], pad[1::2], strict=True):
        size = x.shape[axis]
        if mode == "reflect" and max(before, after) >= size:
            raise a.fail(f"reflect pads {max(before, after)} beside {size} elements")
        index = torch.arange(-before, size + after)
        if mode == "reflect":
            index = (size - 1) - (index.abs() - (size - 1)).abs()
        x = x.index_select(axis, index.clamp(0, size - 1))
    return x


def _one_hot_result(a: Arguments) -> DType:
    return a.dtype("on_value") if a.has("on_value") else INT32


@operator("one_hot", result=_one_hot_result)
def _one_hot(a: Arguments) -> Tensor:
    indices, size = a.raw("indices"), a.integer("one_hot_vector_size")
    a.room(indices.numel(), max(size, 0))
    hot = indices[..., None] == torch.arange(size)
    hot = hot.movedim(-1, a.axis(a.integer("axis", -1), indices.dim() + 1))
    on = a.raw("on_value") if a.has("on_value") else torch.tensor(1, dtype=torch.int32)
    off = a.raw("off_value") if a.has("off_value") else torch.tensor(0, dtype=torch.int32)
    return torch.where(hot, on, off)
