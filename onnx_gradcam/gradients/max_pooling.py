"""Gradients of MaxPool and MaxUnpool.

Sources: ONNX operator specifications MaxPool-12, MaxUnpool-11.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from onnx import helper

from onnx_gradcam.gradients.conv import spread_windows
from onnx_gradcam.gradients.emitter import TO_THE_END, Emitter
from onnx_gradcam.gradients.pooling import pooled_axes
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering
from onnx_gradcam.gradients.sizes import Size, cut, pad, reshape
from onnx_gradcam.gradients.windows import Axis, static


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

    Going through the positions of a window in order, the first that equals the maximum takes dy,
    and nothing is left for later ones: ties go to the first, as in onnxruntime and PyTorch. The
    k-th positions of all windows are one slice in steps; what they took is put back by a
    transposed convolution whose k-th kernel is one at k.
    """
    emit, axes = ctx.emit, pooled_axes(ctx, x, y)
    kernel = [axis.kernel for axis in axes]
    covered = _covered(ctx, x, axes)
    shares: list[str] = []
    for offset in itertools.product(*map(range, kernel)):
        dy = emit.sub(dy, shares[-1]) if shares else dy
        values = _every(emit, covered, offset, axes)
        shares.append(emit.mul(_equal(emit, values, y), dy))
    stack = reshape(
        emit,
        emit.concat([emit.unsqueeze(share, [2]) for share in shares], 2),
        [-1, len(shares), *(axis.count for axis in axes)],
    )
    places = np.eye(len(shares)).reshape(len(shares), 1, *kernel)
    dx = spread_windows(ctx, stack, emit.filled(places, x), 1, axes)
    return emit.reshape_like(dx, x)


def _covered(ctx: Context, x: str, axes: list[Axis]) -> str:
    """Return what the windows cover of x, from the first position of the first on.

    Where that is not x, the lowest number stands in for it.
    """
    emit = ctx.emit
    lowest = float(np.finfo(helper.tensor_dtype_to_np_dtype(emit.dtype(x))).min)
    begins = [axis.begin for axis in axes]
    if all(axis.is_static for axis in axes):
        ends: list[Size] = [-static(axis.missing) for axis in axes]
        return pad(emit, x, [0, 0, *begins, 0, 0, *ends], lowest)
    ends = [axis.end + (axis.stride - 1 if axis.ceil else 0) for axis in axes]
    padded = pad(emit, x, [0, 0, *begins, 0, 0, *ends], lowest)
    lengths = [(axis.count - 1) * axis.stride + (1 + axis.reach) for axis in axes]
    return cut(emit, padded, [0] * len(axes), lengths, range(2, 2 + len(axes)))


def _every(emit: Emitter, covered: str, offset: Sequence[int], axes: list[Axis]) -> str:
    """Return the positions of all windows at an offset, ``(N, C, *out)``."""
    strides = [axis.stride for axis in axes]
    starts = [k * axis.dilation for k, axis in zip(offset, axes, strict=True)]
    ends = [s - axis.reach or TO_THE_END for s, axis in zip(starts, axes, strict=True)]
    spatial = list(range(2, 2 + len(axes)))
    if all(stride == 1 for stride in strides):
        return emit.slice(covered, starts, ends, spatial)
    if emit.opset >= 10:
        bounds = [emit.ints(v) for v in (starts, ends, spatial, strides)]
        return emit.node("Slice", [covered, *bounds])
    # before, Slice takes no steps; a pooling of single elements does
    part = emit.slice(covered, starts, ends, spatial)
    return emit.node("MaxPool", [part], kernel_shape=[1] * len(axes), strides=strides)


def _equal(emit: Emitter, values: str, y: str) -> str:
    """Return one where the values equal the maximum, else zero; Equal takes floats from 11 on."""
    if emit.opset >= 11:
        return emit.cast(emit.node("Equal", [values, y]), emit.dtype(y))
    return emit.cast(emit.node("Not", [emit.less(values, y)]), emit.dtype(y))


@gradient("MaxUnpool", since=9)
def _max_unpool(ctx: Context) -> Gradients:
    """y is zero but for y[indices] = x, indices into all of y: dx = dy[indices].

    Raises:
        FormulaError: output_shape is given; the indices count in a map of another size then.
    """
    if ctx.has_input(2):
        raise FormulaError("its output_shape is not covered")
    emit = ctx.emit
    flat = emit.reshape(ctx.dy, [-1])
    return [emit.node("Gather", [flat, ctx.inputs[1]], axis=0)]
