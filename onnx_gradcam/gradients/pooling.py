"""Gradients of pooling operators.

Sources: ONNX operator specifications MaxPool-12, AveragePool-19, GlobalAveragePool-1,
GlobalMaxPool-1.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from onnx import helper

from onnx_gradcam.gradients.emitter import Array
from onnx_gradcam.gradients.reduction import divided, element_count, shared_extremum
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering
from onnx_gradcam.gradients.shape import zero_stuff
from onnx_gradcam.gradients.windows import Axis, window_axes, window_sum


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


@lowering("AveragePoolGrad", domain="")
def _lower_average_pool_grad(ctx: Context) -> list[str]:
    dy = ctx.inputs[0]
    return [average_pool_gradient(ctx, dy, ctx.differentiated, dy)]


def average_pool_gradient(ctx: Context, dy: str, x: str, y: str) -> str:
    """Return dL/dx: dy divided by the size of its window, summed over the windows of a position.

    The sum over windows is an average pooling of stride one over dy with zeros put between its
    elements, times the number of elements of a window. Of y only the shape is used.
    """
    emit = ctx.emit
    axes = _pooled_axes(ctx, x, y)
    share = emit.mul(dy, _weights(ctx, x, axes))
    shape = (*ctx.shape(x)[:2], *(None if a.size is None else a.count for a in axes))
    spread = zero_stuff(emit, share, shape, {2 + i: a.stride for i, a in enumerate(axes)})
    begins = [axis.reach - axis.begin for axis in axes]
    ends = [axis.reach + axis.missing - (axis.stride - 1) for axis in axes]
    padded = emit.pad(spread, [0, 0, *begins, 0, 0, *ends])
    return window_sum(emit, padded, [a.kernel for a in axes], [a.dilation for a in axes])


def _pooled_axes(ctx: Context, x: str, y: str) -> list[Axis]:
    """Return the windows of a pooling whose output is y.

    Raises:
        FormulaError: y is not as long as the model says. ONNX's shape inference (1.23) counts a
            last window that starts in the end padding, which onnxruntime leaves out.
    """
    axes = window_axes(ctx, x, ctx.attribute("kernel_shape"))
    for axis, size in zip(axes, (ctx.emit.shape(y) or ())[2:], strict=False):
        if isinstance(size, int) and axis.size is not None and size != axis.count:
            raise FormulaError(
                f"with ceil_mode its output is {axis.count} long, but {size} for ONNX's shape"
                " inference; its last window starts in the padding"
            )
    return axes


def _weights(ctx: Context, x: str, axes: list[Axis]) -> str:
    """Return 1 / divisor per output position, ``(1, 1, *out)``; a scalar where all are equal."""
    emit = ctx.emit
    inside = _window_sizes(axes, padding=False)
    if not ctx.attribute("count_include_pad", 0):
        return emit.filled(_reciprocal(inside), x)
    if emit.opset >= 19 or all(axis.missing >= -axis.end for axis in axes):
        return emit.filled(_reciprocal(_window_sizes(axes, padding=True)), x)
    # Windows that reach over the padding: before opset 19 some versions of onnxruntime (1.23)
    # divide by the size of the window, others (1.32) by what is in the padded map. So ask it.
    ones = emit.expand(emit.filled(1.0, x), emit.ints([1, 1, *(a.static_size for a in axes)]))
    names = ("kernel_shape", "strides", "pads", "auto_pad", "ceil_mode", "count_include_pad")
    mean = emit.node("AveragePool", [ones], **{name: ctx.attribute(name) for name in names})
    return emit.mul(mean, emit.filled(1 / np.maximum(inside, 1)[None, None], x))


def _window_sizes(axes: list[Axis], *, padding: bool) -> Array:
    """Return how many elements each window has in the map, or in the padded map, ``(*out)``.

    An axis without padding has size one here: all of its windows are full.
    """
    sizes = np.ones([1] * len(axes))
    for i, axis in enumerate(axes):
        if not (axis.begin or axis.end or axis.ceil):
            sizes = sizes * axis.kernel
            continue
        starts = np.arange(axis.count)[:, None] * axis.stride - axis.begin
        positions = starts + np.arange(axis.kernel)[None, :] * axis.dilation
        before, behind = (axis.begin, axis.end) if padding else (0, 0)
        counted = (positions >= -before) & (positions < axis.static_size + behind)
        along = [-1 if j == i else 1 for j in range(len(axes))]
        sizes = sizes * counted.sum(axis=1).reshape(along)
    return np.asarray(sizes)


def _reciprocal(sizes: Array) -> Array:
    """Return 1 / sizes with batch and channel axes; a scalar where all are equal."""
    if np.all(sizes == sizes.flat[0]):
        return np.asarray(1 / sizes.flat[0])
    return np.asarray(1 / sizes)[None, None]


# -- max pooling -------------------------------------------------------------------------------


@gradient("MaxPool")
def _max_pool(ctx: Context) -> Gradients:
    return [max_pool_gradient(ctx, ctx.dy, ctx.inputs[0], ctx.outputs[0])]


@lowering("MaxPoolGrad", domain="")
def _lower_max_pool_grad(ctx: Context) -> list[str]:
    """Forget the mask of indices: the windows are compared with the forward result instead.

    Raises:
        FormulaError: the forward node is not in the gradient graph.
    """
    dy, mask = ctx.inputs
    forward = ctx.producer(mask)
    if forward is None:
        raise FormulaError("its forward MaxPool is missing")
    return [max_pool_gradient(ctx, dy, forward.input[0], forward.output[0])]


def max_pool_gradient(ctx: Context, dy: str, x: str, y: str) -> str:
    """Return dL/dx: dy goes to the first position of its window that attains the maximum.

    Positions p are split into phase and block, p = block * stride + phase, so that the k-th
    positions of all windows are one contiguous slice of one phase. Going through the positions
    of a window in order, the first that is not less than the maximum takes dy, and nothing is
    left for later ones: ties go to the first, as in onnxruntime and PyTorch.
    """
    emit = ctx.emit
    axes = _pooled_axes(ctx, x, y)
    rank = len(axes)
    # padded length of every axis: a multiple of the stride that holds all windows
    blocks = [
        -(-max((a.count - 1) * a.stride + 1 + a.reach, a.begin + a.static_size) // a.stride)
        for a in axes
    ]
    tails = [n * a.stride - a.begin - a.static_size for n, a in zip(blocks, axes, strict=True)]
    lowest = float(np.finfo(helper.tensor_dtype_to_np_dtype(emit.dtype(x))).min)
    padded = emit.pad(x, [0, 0, *(a.begin for a in axes), 0, 0, *tails], lowest)
    channels = _channels(ctx, x)
    phases = _split_phases(ctx, padded, channels, axes, blocks)
    collected: dict[tuple[int, ...], list[str]] = {}
    remaining = dy
    offsets = list(itertools.product(*(range(a.kernel) for a in axes)))
    spatial = list(range(rank + 2, 2 * rank + 2))
    for number, offset in enumerate(offsets):
        position = [k * a.dilation for k, a in zip(offset, axes, strict=True)]
        phase = tuple(p % a.stride for p, a in zip(position, axes, strict=True))
        start = [p // a.stride for p, a in zip(position, axes, strict=True)]
        values = phases[phase]
        ends = [s + a.count for s, a in zip(start, axes, strict=True)]
        if any(start) or ends != blocks:
            values = emit.slice(values, start, ends, [a - rank for a in spatial])
        lost = emit.less(values, y)
        share = emit.where(lost, 0.0, remaining)
        if number + 1 < len(offsets):
            remaining = emit.where(lost, remaining, 0.0)
        rest = [n - e for n, e in zip(blocks, ends, strict=True)]
        collected.setdefault(phase, []).append(emit.pad(share, [0, 0, *start, 0, 0, *rest]))
    merged = _merge_phases(ctx, collected, channels, axes, blocks)
    crop = [0, 0, *(-a.begin for a in axes), 0, 0, *(-t for t in tails)]
    return emit.pad(merged, crop)


def _split_phases(
    ctx: Context, x: str, channels: int, axes: list[Axis], blocks: list[int]
) -> dict[tuple[int, ...], str]:
    """Return per phase the tensor ``(N, C, *blocks)`` of the positions of that phase."""
    emit, rank = ctx.emit, len(axes)
    strides = [a.stride for a in axes]
    if all(s == 1 for s in strides):
        return {(0,) * rank: x}
    split = [0, channels]
    for block, stride in zip(blocks, strides, strict=True):
        split += [block, stride]
    block_axes = [2 + 2 * i for i in range(rank)]
    phase_axes = [3 + 2 * i for i in range(rank)]
    apart = emit.transpose(emit.reshape(x, split), [*phase_axes, 0, 1, *block_axes])
    stacked = emit.reshape(apart, [math.prod(strides), -1, channels, *blocks])
    result = {}
    for i, phase in enumerate(itertools.product(*(range(s) for s in strides))):
        result[phase] = emit.squeeze(emit.slice(stacked, [i], [i + 1], [0]), [0])
    return result


def _merge_phases(
    ctx: Context,
    collected: dict[tuple[int, ...], list[str]],
    channels: int,
    axes: list[Axis],
    blocks: list[int],
) -> str:
    """Return the tensor whose phases are the sums of what was collected for each."""
    emit, rank = ctx.emit, len(axes)
    strides = [a.stride for a in axes]
    if all(s == 1 for s in strides):
        return emit.sum(collected[(0,) * rank])
    sums = {phase: emit.sum(values) for phase, values in collected.items()}
    some = next(iter(sums.values()))
    missing = None
    parts = []
    for phase in itertools.product(*(range(s) for s in strides)):
        if phase not in sums:
            missing = missing or emit.mul(some, 0.0)
        parts.append(emit.unsqueeze(sums.get(phase) or str(missing), [0]))
    stacked = emit.reshape(emit.concat(parts, 0), [*strides, -1, channels, *blocks])
    perm = [rank, rank + 1]
    for i in range(rank):
        perm += [rank + 2 + i, i]
    together = emit.transpose(stacked, perm)
    lengths = [b * s for b, s in zip(blocks, strides, strict=True)]
    return emit.reshape(together, [-1, channels, *lengths])


def _channels(ctx: Context, x: str) -> int:
    channels = ctx.shape(x)[1]
    if not isinstance(channels, int):
        raise FormulaError("the number of channels is not known at export")
    return channels
