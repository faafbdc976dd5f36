"""Gradients of reductions: the incoming gradient goes back to every element that was reduced.

Sources: ONNX operator specifications ReduceSum-13, ReduceMean-18, ReduceMax-18, ReduceL1-18,
ReduceL2-18, ReduceLogSum-18, ReduceLogSumExp-18, ReduceProd-18, ReduceSumSquare-18, GlobalLpPool-2.
"""

from __future__ import annotations

import math

from onnx_gradcam.gradients.elementwise import absolute
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
    return emit.cast(reduced(emit, "ReduceProd", picked, [0], keepdims=False), emit.dtype(x))


def reduced(emit: Emitter, op_type: str, x: str, axes: list[int], *, keepdims: bool = True) -> str:
    """Return a reduction over `axes`, which became an input with opset 18 (not ReduceSum)."""
    if emit.opset >= 18:
        return emit.node(op_type, [x, emit.ints(axes)], keepdims=int(keepdims))
    return emit.node(op_type, [x], axes=axes, keepdims=int(keepdims))


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


def norm_slope(emit: Emitter, x: str, y: str, p: int) -> str:
    """Return d|x|/dx = sign(x) (|x| / y)^(p-1) of y = |x| = sum(|x|^p)^(1/p); 0 where y is 0."""
    if p == 1:
        return absolute(emit, emit.filled(1.0, x), x)
    ratio = emit.div(x, emit.where(emit.greater(y, 0.0), y, 1.0))
    if p == 2:
        return ratio
    return absolute(emit, emit.pow(emit.unary("Abs", ratio), p - 1.0), x)


def _norm(ctx: Context, axes: list[int], p: int) -> Gradients:
    x = ctx.inputs[0]
    y, dy = (_restored(ctx, v, axes) for v in (ctx.outputs[0], ctx.dy))
    return [ctx.emit.mul(dy, norm_slope(ctx.emit, x, y, p))]


@gradient("ReduceL1")
def _reduce_l1(ctx: Context) -> Gradients:
    return _norm(ctx, _reduced_axes(ctx), 1)


@gradient("ReduceL2")
def _reduce_l2(ctx: Context) -> Gradients:
    return _norm(ctx, _reduced_axes(ctx), 2)


@gradient("GlobalLpPool")
def _global_lp_pool(ctx: Context) -> Gradients:
    axes = list(range(2, len(ctx.shape(ctx.inputs[0]))))
    return _norm(ctx, axes, ctx.attribute("p", 2))


@gradient("ReduceSumSquare")
def _reduce_sum_square(ctx: Context) -> Gradients:
    """dx = 2 x dy."""
    dy = _restored(ctx, ctx.dy, _reduced_axes(ctx))
    return [ctx.emit.mul(ctx.inputs[0], ctx.emit.mul(dy, 2.0))]


@gradient("ReduceLogSum")
def _reduce_log_sum(ctx: Context) -> Gradients:
    """y = log(sum(x)): dx = dy / sum(x) = dy exp(-y)."""
    emit, axes = ctx.emit, _reduced_axes(ctx)
    y, dy = (_restored(ctx, v, axes) for v in (ctx.outputs[0], ctx.dy))
    return [emit.expand_like(emit.mul(dy, emit.unary("Exp", emit.neg(y))), ctx.inputs[0])]


@gradient("ReduceLogSumExp")
def _reduce_log_sum_exp(ctx: Context) -> Gradients:
    """y = log(sum(exp(x))): dx = dy exp(x - y)."""
    emit, axes = ctx.emit, _reduced_axes(ctx)
    y, dy = (_restored(ctx, v, axes) for v in (ctx.outputs[0], ctx.dy))
    return [emit.mul(dy, emit.unary("Exp", emit.sub(ctx.inputs[0], y)))]


@gradient("ReduceProd")
def _reduce_prod(ctx: Context) -> Gradients:
    """dx = dy times the product of the other elements.

    That is y / x, but for zeros: of a single zero the product of all others, 0 of those others;
    with two zeros 0 of all.
    """
    emit, x, axes = ctx.emit, ctx.inputs[0], _reduced_axes(ctx)
    dy = _restored(ctx, ctx.dy, axes)
    if not axes:
        return [dy]
    zero = emit.node("Not", [emit.node("Or", [emit.less(x, 0.0), emit.greater(x, 0.0)])])
    count = emit.reduce_sum(emit.cast(zero, emit.dtype(x)), axes)
    factors = emit.where(zero, 1.0, x)
    product = reduced(emit, "ReduceProd", factors, axes)
    of_others = emit.masked(emit.div(product, factors), emit.less(count, 0.5))
    of_zero = emit.masked(product, emit.less(count, 1.5))
    return [emit.mul(dy, emit.where(zero, of_zero, of_others))]


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
