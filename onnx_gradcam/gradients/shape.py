"""Gradients of operators that move values without changing them.

Sources: ONNX operator specifications of Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Concat,
Split, Slice, Pad and Expand, in all forms from opset 7 on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx_gradcam.gradients.broadcasting import unbroadcast
from onnx_gradcam.gradients.emitter import Dim, Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering


@gradient("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(ctx: Context) -> Gradients:
    dx = ctx.emit.reshape_like(ctx.dy, ctx.inputs[0])
    return [dx]


@gradient("Transpose")
def _transpose(ctx: Context) -> Gradients:
    rank = len(ctx.shape(ctx.inputs[0]))
    perm = ctx.attribute("perm", list(range(rank))[::-1])
    return [ctx.emit.transpose(ctx.dy, [perm.index(i) for i in range(rank)])]


@gradient("Expand")
def _expand(ctx: Context) -> Gradients:
    return [unbroadcast(ctx, ctx.dy, ctx.inputs[0], ctx.outputs[0])]


@gradient("Concat")
def _concat(ctx: Context) -> Gradients:
    axis = ctx.attribute("axis", 1) % len(ctx.shape(ctx.outputs[0]))
    results: list[str | None] = []
    start = 0
    for i, name in enumerate(ctx.inputs):
        if not any(ctx.wanted[i:]):
            results.append(None)
            continue
        size = ctx.shape(name)[axis]
        if not isinstance(size, int):
            raise FormulaError(f"the size of {name!r} along the joined axis is not known at export")
        wanted = ctx.wanted[i]
        results.append(ctx.emit.slice(ctx.dy, [start], [start + size], [axis]) if wanted else None)
        start += size
    return results


@gradient("Split")
def _split(ctx: Context) -> Gradients:
    emit = ctx.emit
    axis = ctx.attribute("axis", 0) % len(ctx.shape(ctx.inputs[0]))
    pieces = [
        g if g is not None else emit.zeros_like(y)
        for g, y in zip(ctx.output_gradients, ctx.outputs, strict=True)
    ]
    dx = pieces[0] if len(pieces) == 1 else emit.concat(pieces, axis)
    return [dx]


@gradient("Slice", until=9)
def _slice_attributes(ctx: Context) -> Gradients:
    starts, ends = ctx.attribute("starts"), ctx.attribute("ends")
    axes = ctx.attribute("axes", list(range(len(starts))))
    return [unslice(ctx, ctx.dy, ctx.inputs[0], starts, ends, axes, [1] * len(starts))]


@gradient("Slice", since=10)
def _slice_inputs(ctx: Context) -> Gradients:
    bounds = _constant_bounds(ctx, 1)
    dx = unslice(ctx, ctx.dy, ctx.inputs[0], *bounds)
    return [dx]


@lowering("SliceGrad")
def _lower_slice_grad(ctx: Context) -> list[str]:
    """com.microsoft.SliceGrad(dY, Shape(X), starts, ends, axes, steps)."""
    return [unslice(ctx, ctx.inputs[0], ctx.differentiated, *_constant_bounds(ctx, 2))]


def _constant_bounds(ctx: Context, first: int) -> list[list[int]]:
    """Return starts, ends, axes and steps of a Slice whose starts are input `first`."""
    starts, ends = (
        [int(v) for v in ctx.constant(first + i, what)] for i, what in ((0, "start"), (1, "end"))
    )
    axes, steps = list(range(len(starts))), [1] * len(starts)
    if ctx.has_input(first + 2):
        axes = [int(v) for v in ctx.constant(first + 2, "axis")]
    if ctx.has_input(first + 3):
        steps = [int(v) for v in ctx.constant(first + 3, "step")]
    return [starts, ends, axes, steps]


def unslice(
    ctx: Context,
    dy: str,
    x: str,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int],
    steps: Sequence[int],
) -> str:
    """Return dy put back where the slice took it from x, zeros elsewhere.

    Raises:
        FormulaError: a sliced axis whose size is not known at export.
    """
    x_shape = ctx.shape(x)
    y_shape = list(x_shape)
    rank = len(x_shape)
    begins, tails = [0] * rank, [0] * rank
    strides: dict[int, int] = {}
    for start, end, raw_axis, step in zip(starts, ends, axes, steps, strict=True):
        axis, size = raw_axis % rank, x_shape[raw_axis % rank]
        if start == 0 and end >= 2**31 - 1 and step == 1:
            continue
        if not isinstance(size, int):
            raise FormulaError(f"the size of the sliced axis {axis} is not known at export")
        taken = range(size)[start:end:step]
        count, first = len(taken), min(taken, default=0)
        if step < 0:
            dy, step = ctx.emit.reversed(dy, axis, count), -step
        begins[axis] = first
        tails[axis] = size - first - count * step
        strides[axis] = step
        y_shape[axis] = count
    stuffed = zero_stuff(ctx.emit, dy, y_shape, strides)
    return ctx.emit.pad(stuffed, begins + tails)


def zero_stuff(emit: Emitter, x: str, shape: Sequence[Dim], strides: Mapping[int, int]) -> str:
    """Return x with `stride - 1` zeros after every element along the given axes.

    Args:
        emit: where to write nodes.
        x: tensor to spread.
        shape: its shape; sizes may be unknown where the index is below the first strided axis
            and equal to the position that a Reshape's 0 copies.
        strides: axis -> stride; strides of one change nothing.

    Raises:
        FormulaError: a size that the reshape needs is not known at export.
    """
    axes = {axis: stride for axis, stride in sorted(strides.items()) if stride > 1}
    if not axes:
        return x
    split: list[int] = []
    pads: list[int] = []
    merged: list[int] = []
    for axis, size in enumerate(shape):
        if axis in axes:
            if not isinstance(size, int):
                raise FormulaError(f"the size of axis {axis} is not known at export")
            split += [size, 1]
            pads += [0, axes[axis] - 1]
            merged.append(size * axes[axis])
            continue
        if not isinstance(size, int) and len(split) != axis:
            raise FormulaError(f"the size of axis {axis} is not known at export")
        copied = size if isinstance(size, int) else 0
        split.append(copied)
        pads.append(0)
        merged.append(copied)
    spread = emit.pad(emit.reshape(x, split), [0] * len(pads) + pads)
    return emit.reshape(spread, merged)


@gradient("Pad", until=10)
def _pad_attributes(ctx: Context) -> Gradients:
    return [_unpad(ctx, ctx.attribute("pads"), list(range(len(ctx.shape(ctx.inputs[0])))))]


@gradient("Pad", since=11)
def _pad_inputs(ctx: Context) -> Gradients:
    pads = ctx.constant(1, "padding").tolist()
    rank = len(ctx.shape(ctx.inputs[0]))
    axes = [int(a) % rank for a in ctx.constant(3, "axes")] if ctx.has_input(3) else range(rank)
    return [_unpad(ctx, pads, list(axes))]


def _unpad(ctx: Context, pads: Sequence[int], axes: Sequence[int]) -> str:
    if ctx.attribute("mode", "constant") != "constant":
        raise FormulaError(f"padding mode {ctx.attribute('mode')!r} is not covered")
    rank, count = len(ctx.shape(ctx.inputs[0])), len(axes)
    crop = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        crop[axis], crop[rank + axis] = -pads[i], -pads[count + i]
    return ctx.emit.pad(ctx.dy, crop)
