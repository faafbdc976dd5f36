"""Gradients of Resize and Upsample.

Both are linear, and the product of what they do along each axis. Along one axis of a size known
at export or not, y = R x; what R is, the operator itself is asked: resized as an image, the unit
matrix is R transposed. So every coordinate transformation, rounding, cubic coefficient and filter
is just that of the runtime's own forward operator; onnxruntime folds a constant R when it loads
the file. Sources: ONNX operator specifications Resize-19, Upsample-9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering
from onnx_gradcam.gradients.sizes import Size, element, positions, size_of, vector
from onnx_gradcam.gradients.windows import window_sum

_KEPT = (
    *("antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside"),
    *("mode", "nearest_mode"),
)
"""Attributes that the operator is asked with, since opset 11."""

_FACTORS = {
    ("asymmetric", "floor"): 2**20,
    ("asymmetric", "round_prefer_floor"): 2,
    **{
        (mode, rounding): 2**20
        for mode in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
        for rounding in ("round_prefer_floor", "round_prefer_ceil")
    },
}
"""Largest factor with which output o is input floor(o / factor), per transformation, rounding."""


@dataclass(frozen=True)
class Axis:
    """One axis that is resized.

    Attributes:
        number: of the axis.
        scale: the factor, None where the output size is given.
        target: the output size, None where the factor is given.
        region: the part of it to resize, for ``tf_crop_and_resize``.
    """

    number: int
    scale: float | None
    target: Size | None
    region: tuple[float, float] = (0.0, 1.0)


@gradient("Upsample", until=8)
def _upsample(ctx: Context) -> Gradients:
    return [resize_gradient(ctx, ctx.dy, ctx.inputs[0], _scaled(ctx.attribute("scales")))]


@gradient("Upsample", since=9, until=9)
@gradient("Resize", since=10, until=10)
def _resize_by_scales(ctx: Context) -> Gradients:
    scales = ctx.constant(1, "scales").reshape(-1).tolist()
    return [resize_gradient(ctx, ctx.dy, ctx.inputs[0], _scaled(scales))]


@gradient("Resize", since=11)
def _resize(ctx: Context) -> Gradients:
    x, y = ctx.inputs[0], ctx.outputs[0]
    sizes = ctx.inputs[3] if ctx.has_input(3) else None
    return [resize_gradient(ctx, ctx.dy, x, _axes(ctx, x, y, 1, sizes))]


@lowering("ResizeGrad")
def _lower_resize_grad(ctx: Context) -> list[str]:
    """com.microsoft.ResizeGrad(dY, X, roi, scales); without scales the sizes are those of dY."""
    dy, x = ctx.inputs[:2]
    return [resize_gradient(ctx, dy, x, _axes(ctx, x, dy, 2, None))]


def _scaled(scales: Sequence[float]) -> list[Axis]:
    return [Axis(i, scale, None) for i, scale in enumerate(scales) if scale != 1]


def _axes(ctx: Context, x: str, y: str, first: int, sizes: str | None) -> list[Axis]:
    """Return the axes that are resized: those whose size may change.

    Where it does not, onnxruntime copies, even in ``tf_crop_and_resize``.

    Args:
        ctx: the node's context.
        x: what is resized.
        y: a tensor of the resulting shape.
        first: the input with the region; that behind it has the scales.
        sizes: a tensor of the output sizes, where they are given.

    Raises:
        FormulaError: the scales or the region are not constant, or the aspect ratio is kept.
    """
    rank = len(ctx.shape(x))
    numbers = [a % rank for a in ctx.attribute("axes") or range(rank)]
    regions: dict[int, tuple[float, float]] = {}
    if ctx.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        starts, ends = ctx.constant(first, "region").reshape(2, -1).tolist()
        regions = dict(zip(numbers, zip(starts, ends, strict=True), strict=True))
    scales = ctx.constant(first + 1, "scales") if ctx.has_input(first + 1) else np.zeros(0)
    if scales.size:
        pairs = zip(numbers, scales.reshape(-1).tolist(), strict=True)
        return [Axis(n, s, None, regions.get(n, (0.0, 1.0))) for n, s in pairs if s != 1]
    if ctx.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise FormulaError("a kept aspect ratio is not covered")
    axes = []
    for i, n in enumerate(numbers):
        before, after = ctx.shape(x)[n], (ctx.emit.shape(y) or [None] * rank)[n]
        if after is None or before != after:
            target = _target(ctx, y, n, sizes, i)
            axes.append(Axis(n, None, target, regions.get(n, (0.0, 1.0))))
    return axes


def _target(ctx: Context, y: str, number: int, sizes: str | None, position: int) -> Size:
    size = size_of(ctx.emit, y, number)
    if isinstance(size, int) or sizes is None:
        return size
    return element(ctx.emit, lambda: ctx.emit.cast(sizes, TensorProto.INT64), position)


def resize_gradient(ctx: Context, dy: str, x: str, axes: Sequence[Axis]) -> str:
    """Return dL/dx: dy times the transposed matrix of every axis."""
    factors = _factors(ctx, x, axes)
    if factors is not None:
        return window_sum(ctx.emit, dy, factors, strides=factors)
    rank = len(ctx.shape(x))
    for axis in sorted(axes, key=lambda axis: -axis.number):
        matrix = _matrix(ctx, x, axis)
        dy = _times(ctx.emit, dy, matrix, axis.number, rank)
    return dy


def _factors(ctx: Context, x: str, axes: Sequence[Axis]) -> list[int] | None:
    """Return the factor per spatial axis where each element is just repeated, else None."""
    rank = len(ctx.shape(x))
    mode = _modes(ctx)
    largest = _FACTORS.get(mode, 0) if ctx.attribute("mode", "nearest") == "nearest" else 0
    if rank not in {3, 4, 5} or not axes or any(axis.number < 2 for axis in axes):
        return None
    factors = [1] * (rank - 2)
    for axis in axes:
        size = size_of(ctx.emit, x, axis.number)
        scale = axis.scale
        if isinstance(size, int) and isinstance(axis.target, int):
            scale = axis.target / size
        if scale is None or scale != int(scale) or not 1 <= scale <= largest:
            return None
        factors[axis.number - 2] = int(scale)
    return factors


def _modes(ctx: Context) -> tuple[str, str]:
    if ctx.emit.opset < 11:
        return "asymmetric", "floor"
    return (
        ctx.attribute("coordinate_transformation_mode", "half_pixel"),
        ctx.attribute("nearest_mode", "round_prefer_floor"),
    )


def _times(emit: Emitter, dy: str, matrix: str, axis: int, rank: int) -> str:
    """Return dy times a matrix ``(in, out)`` along an axis, of size `out` before."""
    if axis == rank - 2:
        return emit.matmul(matrix, dy)
    to_last = [*(a for a in range(rank) if a != axis), axis]
    product = emit.matmul(emit.transpose(dy, to_last), emit.transpose(matrix, [1, 0]))
    return emit.transpose(product, [to_last.index(a) for a in range(rank)])


def _matrix(ctx: Context, x: str, axis: Axis) -> str:
    """Return R transposed, ``(in, out)``: the unit matrix, resized as an image ``(1, in, in, 1)``.

    In float32, which onnxruntime computes positions and weights in, or in float64.
    """
    emit = ctx.emit
    size = size_of(emit, x, axis.number)
    wide = emit.dtype(x) == TensorProto.DOUBLE
    dtype = TensorProto.DOUBLE if wide else TensorProto.FLOAT
    if isinstance(size, int):
        unit = emit.constant(np.eye(size, dtype=np.float64 if wide else np.float32), "unit")
    else:
        rows = emit.unsqueeze(positions(emit, size), [1])
        unit = emit.cast(emit.node("Equal", [rows, positions(emit, size)]), dtype)
    image = emit.unsqueeze(unit, [0, 3])
    resized = emit.squeeze(_ask(ctx, image, size, axis), [0, 3])
    return emit.cast(resized, emit.dtype(x))


def _ask(ctx: Context, image: str, size: Size, axis: Axis) -> str:
    """Return an image, resized along its axis 2 by the forward operator."""
    emit = ctx.emit
    scales = np.array([1, 1, axis.scale or 1, 1], np.float32)
    mode = ctx.attribute("mode", "nearest")
    if emit.opset < 9:
        return emit.node("Upsample", [image], mode=mode, scales=scales.tolist())
    if emit.opset < 11:
        op_type = "Resize" if emit.opset == 10 else "Upsample"
        return emit.node(op_type, [image, emit.constant(scales, "scales")], mode=mode)
    start, end = axis.region
    region = np.array([0, 0, start, 0, 1, 1, end, 1], np.float32)
    nothing = "" if emit.opset >= 13 else emit.constant(np.zeros(0, np.float32), "nothing")
    roi = emit.constant(region, "region") if axis.region != (0.0, 1.0) else nothing
    if axis.target is None:
        inputs = [image, roi, emit.constant(scales, "scales")]
    else:
        inputs = [image, roi, nothing, vector(emit, [1, size, axis.target, 1])]
    return emit.node("Resize", inputs, **{name: ctx.attribute(name) for name in _KEPT})
