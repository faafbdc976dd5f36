"""Gradients of reductions: the incoming gradient goes back to every element that was reduced.

Sources: ONNX operator specifications ReduceSum-13, ReduceMean-18, ReduceMax-18, ReduceL2-18.
"""

from __future__ import annotations

import math

from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import Context, Gradients, gradient, lowering


def _reduced_axes(ctx: Context) -> list[int]:
    rank = len(ctx.shape(ctx.inputs[0]))
    axes = ctx.axes(1, rank)
    if axes:
        return axes
    if ctx.attribute("noop_with_empty_axes", 0):
        return []
    return list(range(rank))


def _restored(ctx: Context, value: str, axes: list[int]) -> str:
    """Return a reduced tensor with its reduced axes present, of size one."""
    return value if ctx.attribute("keepdims", 1) else ctx.emit.unsqueeze(value, axes)


def element_count(ctx: Context, x: str, axes: list[int]) -> str | float:
    """Return how many elements the axes hold: a number, or a scalar tensor when dynamic."""
    sizes = [ctx.shape(x)[a] for a in axes]
    static = [d for d in sizes if isinstance(d, int)]
    if len(static) == len(sizes):
        return float(math.prod(static))
    emit = ctx.emit
    picked = emit.node("Gather", [emit.node("Shape", [x]), emit.ints(axes)], axis=0)
    total = (
        emit.node("ReduceProd", [picked], keepdims=0)
        if emit.opset < 18
        else emit.node("ReduceProd", [picked, emit.ints([0])], keepdims=0)
    )
    return emit.cast(total, emit.dtype(x))


def divided(emit: Emitter, value: str, count: str | float) -> str:
    """Return value / count; by a known count as a product."""
    return emit.mul(value, 1 / count) if isinstance(count, float) else emit.div(value, count)


@gradient("ReduceSum")
def _reduce_sum(ctx: Context) -> Gradients:
    axes = _reduced_axes(ctx)
    dx = ctx.emit.expand_like(_restored(ctx, ctx.dy, axes), ctx.inputs[0])
    return [dx]


@gradient("ReduceMean")
def _reduce_mean(ctx: Context) -> Gradients:
    x, axes = ctx.inputs[0], _reduced_axes(ctx)
    share = divided(ctx.emit, _restored(ctx, ctx.dy, axes), element_count(ctx, x, axes))
    return [ctx.emit.expand_like(share, x)]


@gradient("ReduceMax", "ReduceMin")
def _reduce_extremum(ctx: Context) -> Gradients:
    """Share dy equally among the elements that attain the extremum, as PyTorch's amax does."""
    x, axes = ctx.inputs[0], _reduced_axes(ctx)
    y, dy = (_restored(ctx, v, axes) for v in (ctx.outputs[0], ctx.dy))
    dx = shared_extremum(ctx.emit, dy, x, y, axes, largest=ctx.node.op_type == "ReduceMax")
    return [dx]


def shared_extremum(
    emit: Emitter, dy: str, x: str, y: str, axes: list[int], *, largest: bool
) -> str:
    """Return dy where x attains the extremum y over `axes`, divided by how many do."""
    if not axes:
        return dy
    compare = emit.less if largest else emit.greater
    attained = emit.cast(emit.node("Not", [compare(x, y)]), emit.dtype(x))
    return emit.mul(attained, emit.div(dy, emit.reduce_sum(attained, axes)))


@gradient("ReduceL2")
def _reduce_l2(ctx: Context) -> Gradients:
    """y = |x|: dx = dy x / y, nothing where all of x is zero."""
    x, axes = ctx.inputs[0], _reduced_axes(ctx)
    y, dy = (_restored(ctx, v, axes) for v in (ctx.outputs[0], ctx.dy))
    if axes:
        y = ctx.emit.where(ctx.emit.greater(y, 0.0), y, 1.0)
    return [ctx.emit.mul(x, ctx.emit.div(dy, y))]


@lowering("Scale")
def _lower_scale(ctx: Context) -> list[str]:
    """com.microsoft.Scale: x times a scalar, or divided by it with scale_down."""
    x, scale = ctx.inputs
    value = ctx.emit.value(scale)
    down = bool(ctx.attribute("scale_down", 0))
    if value is not None and value.size == 1:
        number = float(value.reshape(-1)[0])
        scaled = ctx.emit.mul(x, 1 / number if down else number)
    else:
        factor = ctx.emit.cast(scale, ctx.emit.dtype(x))
        scaled = ctx.emit.div(x, factor) if down else ctx.emit.mul(x, factor)
    ctx.emit.declare(scaled, ctx.emit.dtype(x), ctx.emit.shape(x))
    return [scaled]
