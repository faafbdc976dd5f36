"""Gradients of average poolings and of those of the whole map; `max_pooling` has the others.

Sources: ONNX operator specifications AveragePool-19, GlobalAveragePool-1, GlobalMaxPool-1,
LpPool-18.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from onnx_gradcam.gradients.conv import spread_windows
from onnx_gradcam.gradients.elementwise import absolute, divided_where_positive
from onnx_gradcam.gradients.emitter import Array
from onnx_gradcam.gradients.phases import put_together
from onnx_gradcam.gradients.reduction import divided, element_count, shared_extremum
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering
from onnx_gradcam.gradients.sizes import Size, pad, reshape, sizes_of, smaller, vector
from onnx_gradcam.gradients.windows import Axis, static, window_axes, window_sum


@gradient("GlobalAveragePool")
def _global_average_pool(ctx: Context) -> Gradients:
    x = ctx.inputs[0]
    axes = list(range(2, len(ctx.shape(x))))
    share = divided(ctx.emit, ctx.dy, element_count(ctx, x, axes))
    return [ctx.emit.expand_like(share, x)]


@gradient("GlobalMaxPool")
def _global_max_pool(ctx: Context) -> Gradients:
    x = ctx.inputs[0]
    axes = list(range(2, len(ctx.shape(x))))
    return [shared_extremum(ctx.emit, ctx.dy, x, ctx.outputs[0], axes, largest=True)]


# -- average pooling ---------------------------------------------------------------------------


@gradient("AveragePool")
def _average_pool(ctx: Context) -> Gradients:
    return [average_pool_gradient(ctx, ctx.dy, ctx.inputs[0], ctx.outputs[0])]


@gradient("LpPool")
def _lp_pool(ctx: Context) -> Gradients:
    """y = sum(|x|^p)^(1/p) over a window, dx = sign(x) |x|^(p-1) times the sum of dy / y^(p-1).

    Nothing from windows where y is 0.

    Raises:
        FormulaError: the windows have holes, which AveragePool cannot have in this opset.
    """
    emit, x, y, p = ctx.emit, ctx.inputs[0], ctx.outputs[0], ctx.attribute("p", 2)
    axes = pooled_axes(ctx, x, y)
    if emit.opset < 19 and any(axis.dilation > 1 for axis in axes):
        raise FormulaError("with dilations it needs opset 19")
    if p == 1:
        return [absolute(emit, _summed_over_windows(ctx, ctx.dy, x, axes), x)]
    share = divided_where_positive(emit, ctx.dy, y if p == 2 else emit.pow(y, p - 1.0))
    total = _summed_over_windows(ctx, share, x, axes)
    if p == 2:
        return [emit.mul(x, total)]
    return [absolute(emit, emit.mul(emit.pow(emit.unary("Abs", x), p - 1.0), total), x)]


@lowering("AveragePoolGrad", domain="")
def _lower_average_pool_grad(ctx: Context) -> list[str]:
    dy = ctx.inputs[0]
    return [average_pool_gradient(ctx, dy, ctx.differentiated, dy)]


def average_pool_gradient(ctx: Context, dy: str, x: str, y: str) -> str:
    """Return dL/dx: dy divided by the size of its window, summed over the windows of a position.

    Windows of stride one: an average pooling times the number of elements of a window. Windows
    side by side: dy repeated. Others: a convolution of every channel with ones, transposed. Of y
    only the shape is used.
    """
    emit = ctx.emit
    axes = pooled_axes(ctx, x, y)
    share = _weights(ctx, x, axes)
    scale = emit.value(share)
    if scale is not None and scale.size == 1:
        return _summed_over_windows(ctx, dy, x, axes, float(scale))
    return _summed_over_windows(ctx, emit.mul(dy, share), x, axes)


def _summed_over_windows(
    ctx: Context, dy: str, x: str, axes: list[Axis], scale: float = 1.0
) -> str:
    """Return, per position of x, the sum of dy times a scale over the windows that hold it."""
    emit, channels = ctx.emit, ctx.shape(x)[1]
    kernel = [axis.kernel for axis in axes]
    if all(axis.stride == 1 and not axis.ceil for axis in axes):
        return _summed_at_every_position(ctx, dy, axes, scale)
    if all(map(_is_side_by_side, axes)):
        scaled = emit.mul(dy, scale) if scale != 1 else dy
        return _repeated(ctx, scaled, x, axes)
    if isinstance(channels, int):
        weights = emit.filled(np.full([channels, 1, *kernel], scale), x)
        return spread_windows(ctx, dy, weights, channels, axes)
    maps = reshape(emit, dy, [-1, 1, *(axis.count for axis in axes)])
    weights = emit.filled(np.full([1, 1, *kernel], scale), x)
    return emit.reshape_like(spread_windows(ctx, maps, weights, 1, axes), x)


def _summed_at_every_position(ctx: Context, dy: str, axes: list[Axis], scale: float) -> str:
    """Return the same for windows of stride one."""
    emit = ctx.emit
    kernel, dilations = [axis.kernel for axis in axes], [axis.dilation for axis in axes]
    begins = [axis.reach - static(axis.begin) for axis in axes]
    ends = [axis.reach + static(axis.missing) for axis in axes]
    # not by the pooling's own pads: onnxruntime 1.23 counts those wrongly in opset 19 to 21
    padded = emit.pad(dy, [0, 0, *begins, 0, 0, *ends])
    return window_sum(emit, padded, kernel, dilations, scale=scale)


def _is_side_by_side(axis: Axis) -> bool:
    """Return whether windows along an axis touch, and begin where the map does."""
    begins = isinstance(axis.begin, int) and axis.begin == 0
    known = axis.is_static or not axis.ceil
    return begins and axis.kernel == axis.stride and axis.dilation == 1 and known


def _repeated(ctx: Context, dy: str, x: str, axes: list[Axis]) -> str:
    """Return dy repeated for every position of its window, zeros behind the last one.

    Raises:
        FormulaError: a size is known at run time only, and the opset is below 9.
    """
    emit, rank = ctx.emit, len(axes)
    if all(axis.is_static and axis.count == 1 and axis.kernel == axis.size for axis in axes):
        return emit.expand_like(dy, x)
    strides = [axis.stride for axis in axes]
    if emit.opset >= 13:
        scales = emit.constant(np.array([1, 1, *strides], np.float32), "scales")
        dy = emit.node(
            "Resize",
            [dy, "", scales],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    else:
        behind: list[Size] = []
        for i, axis in reversed(list(enumerate(axes))):
            dy = put_together(emit, [dy] * axis.stride, 2 + i, axis.count, behind)
            behind.insert(0, axis.count * axis.stride)
    ends = [axis.size - axis.count * axis.stride for axis in axes]
    return pad(emit, dy, [0] * (4 + rank) + ends)


def pooled_axes(ctx: Context, x: str, y: str) -> list[Axis]:
    """Return the windows of a pooling whose output is y."""
    axes = window_axes(ctx, x, ctx.attribute("kernel_shape"))
    counts = sizes_of(ctx.emit, y, range(2, 2 + len(axes)))
    return [
        axis if axis.is_static and isinstance(count, int) else replace(axis, windows=count)
        for axis, count in zip(axes, counts, strict=True)
    ]


def _weights(ctx: Context, x: str, axes: list[Axis]) -> str:
    """Return 1 / divisor per output position, ``(1, 1, *out)``; a scalar where all are equal."""
    emit = ctx.emit
    counted = bool(ctx.attribute("count_include_pad", 0))
    if all(_is_full(axis, counted) for axis in axes):
        return emit.filled(1 / math.prod(axis.kernel for axis in axes), x)
    if not counted:
        return _reciprocal(ctx, x, axes, padding=False)
    within = (a.is_static and static(a.missing) >= -static(a.end) for a in axes)
    if emit.opset >= 19 or all(within):
        return _reciprocal(ctx, x, axes, padding=True)
    # Windows that reach over the padding: before opset 19 some versions of onnxruntime (1.23)
    # divide by the size of the window, others (1.32) by what is in the padded map. So ask it.
    ones = emit.expand(emit.filled(1.0, x), vector(emit, [1, 1, *(a.size for a in axes)]))
    names = ("kernel_shape", "strides", "pads", "auto_pad", "ceil_mode", "count_include_pad")
    mean = emit.node("AveragePool", [ones], **{name: ctx.attribute(name) for name in names})
    return emit.mul(mean, _reciprocal(ctx, x, axes, padding=False))


def _is_full(axis: Axis, counted: bool) -> bool:
    """Return whether all windows along an axis are full, whatever the size of the map."""
    padded = isinstance(axis.begin, int) and not axis.begin and axis.end == 0
    return not axis.ceil and (padded or counted)


def _reciprocal(ctx: Context, x: str, axes: list[Axis], *, padding: bool) -> str:
    """Return 1 / the number of elements that each window has in the map (or the padded map)."""
    emit = ctx.emit
    if all(axis.is_static or _is_full(axis, padding) for axis in axes):
        sizes = np.maximum(_window_sizes(axes, padding=padding), 1)
        if np.all(sizes == sizes.flat[0]):
            return emit.filled(1 / sizes.flat[0], x)
        return emit.filled(1 / sizes[None, None], x)
    return emit.div(1.0, _window_sizes_at_run_time(ctx, x, axes, padding=padding))


def _window_sizes_at_run_time(ctx: Context, x: str, axes: list[Axis], *, padding: bool) -> str:
    """Return the same numbers, ``(1, 1, *out)``: a convolution of ones, zeros around them."""
    emit = ctx.emit
    around: list[list[Size]] = []  # zeros before, ones, zeros behind, per axis
    for axis in axes:
        span = (axis.count - 1) * axis.stride + 1 + axis.reach
        ones = axis.size + axis.begin + axis.end if padding else axis.size
        before = 0 if padding else axis.begin
        ones = smaller(ones, span - before)
        around.append([before, ones, span - before - ones])
    ones_map = emit.expand(emit.filled([1.0], x), vector(emit, [1, 1, *(a[1] for a in around)]))
    widths = [0, 0, *(a[0] for a in around), 0, 0, *(a[2] for a in around)]
    kernel = [axis.kernel for axis in axes]
    return emit.conv(
        pad(emit, ones_map, widths),
        emit.filled(np.ones([1, 1, *kernel]), x),
        kernel_shape=kernel,
        strides=[axis.stride for axis in axes],
        dilations=[axis.dilation for axis in axes],
    )


def _window_sizes(axes: list[Axis], *, padding: bool) -> Array:
    """Return how many elements each window has in the map, or in the padded map, ``(*out)``.

    An axis whose windows are all full has size one here.
    """
    sizes = np.ones([1] * len(axes))
    for i, axis in enumerate(axes):
        if _is_full(axis, padding):
            sizes = sizes * axis.kernel
            continue
        count, size, begin, end = map(static, (axis.count, axis.size, axis.begin, axis.end))
        starts = np.arange(count)[:, None] * axis.stride - begin
        positions = starts + np.arange(axis.kernel)[None, :] * axis.dilation
        before, behind = (begin, end) if padding else (0, 0)
        inside = (positions >= -before) & (positions < size + behind)
        along = [-1 if j == i else 1 for j in range(len(axes))]
        sizes = sizes * inside.sum(axis=1).reshape(along)
    return np.asarray(sizes)
