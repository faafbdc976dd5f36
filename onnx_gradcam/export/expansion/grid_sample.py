"""GridSample and AffineGrid, of which spatial transformers (arXiv 1506.02025) are made.

The elements around each sampling point are gathered and weighted. So there is a gradient by the
image, which adds up what each element gave, and by the grid.
Sources: ONNX operator specifications GridSample-20 and AffineGrid-20; com.microsoft.GridSample has
the meaning of the former.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from itertools import product as combinations

import numpy as np
from onnx import TensorProto

from onnx_gradcam.export.expansion.activations import clip
from onnx_gradcam.export.expansion.registry import expansion
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import MICROSOFT, Context, FormulaError
from onnx_gradcam.gradients.sizes import need, reshape, sizes_of, vector

_MODES = {"bilinear": "linear", "linear": "linear", "nearest": "nearest"}


@dataclass(frozen=True)
class _Neighbour:
    """Elements that sampling points read along one axis, ``(N, 1, points)``.

    Attributes:
        place: their index, times the distance of elements along the axis; int64.
        weight: what they count, "" where that is one.
    """

    place: str
    weight: str


@expansion("GridSample", domain="")
@expansion("GridSample", domain=MICROSOFT)
def _grid_sample(ctx: Context) -> list[str]:
    """Y[n, c, p] = sum of X[n, c, e] weight(n, p, e) over the elements e around grid[n, p].

    Raises:
        FormulaError: the mode is cubic, the size of X is not known, or the opset is below 16.
    """
    emit, (x, grid) = ctx.emit, ctx.inputs
    need(emit, 16, "its gradient, which adds up elements,")
    mode = _MODES.get(ctx.attribute("mode", "linear"))
    if mode is None:
        raise FormulaError(f"mode={ctx.attribute('mode')} is not covered")
    sizes = ctx.static_sizes(x, 2)
    around = [_neighbours(ctx, mode, axis, sizes) for axis in range(len(sizes))]
    corners = list(combinations(*around))
    places = [reduce(emit.add, [side.place for side in corner]) for corner in corners]
    shape = vector(emit, [1, *sizes_of(emit, x, [1]), 1])
    index = emit.expand(_joined(emit, places), shape)
    y = emit.node("GatherElements", [emit.reshape(x, [0, 0, -1]), index], axis=2)
    if corners[0][0].weight:
        weights = [reduce(emit.mul, [side.weight for side in corner]) for corner in corners]
        y = emit.mul(y, _joined(emit, weights))
    if len(corners) > 1:
        y = emit.reduce_sum(emit.reshape(y, [0, 0, len(corners), -1]), [2], keepdims=False)
    return [reshape(emit, y, [0, 0, *sizes_of(emit, grid, range(1, 1 + len(sizes)))])]


@expansion("AffineGrid", domain="")
def _affine_grid(ctx: Context) -> list[str]:
    """Grid[n, p] = theta[n] (p, 1), p the places of a map, those along the last axis first.

    The standard's own body is no valid model: it gives Range tensors of one axis.

    Raises:
        FormulaError: the size of the map is not constant.
    """
    emit, theta = ctx.emit, ctx.inputs[0]
    sizes = [int(size) for size in ctx.constant(1, "size")[2:]]
    aligned = ctx.attribute("align_corners", 0)
    along = [
        np.linspace(-1, 1, size) if aligned else (2 * np.arange(size) + 1) / size - 1
        for size in sizes
    ]
    places = np.meshgrid(*along, indexing="ij")[::-1]
    rows = np.stack([*(p.reshape(-1) for p in places), np.ones(math.prod(sizes))], axis=1)
    product = emit.matmul(emit.filled(rows, theta), emit.transpose(theta, [0, 2, 1]))
    return [emit.reshape(product, [-1, *sizes, len(sizes)])]


def _joined(emit: Emitter, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else emit.concat(parts, 2)


def _neighbours(ctx: Context, mode: str, axis: int, sizes: list[int]) -> list[_Neighbour]:
    """Return the elements along a spatial axis: the nearest one, or those below and above."""
    emit = ctx.emit
    position = _position(ctx, axis, sizes)
    if mode == "nearest":
        return [_neighbour(ctx, emit.unary("Round", position), "", axis, sizes)]
    low = emit.unary("Floor", position)
    share = emit.sub(position, low)
    pairs = ((low, emit.sub(1.0, share)), (emit.add(low, 1.0), share))
    return [_neighbour(ctx, index, weight, axis, sizes) for index, weight in pairs]


def _neighbour(ctx: Context, index: str, weight: str, axis: int, sizes: list[int]) -> _Neighbour:
    """Return elements of an index that may lie outside: zero there, or those at the edge."""
    emit = ctx.emit
    inside = clip(emit, index, 0.0, sizes[axis] - 1.0)
    if ctx.attribute("padding_mode", "zeros") == "zeros":
        counts = emit.cast(emit.node("Equal", [inside, index]), emit.dtype(ctx.inputs[0]))
        weight = emit.mul(weight, counts) if weight else counts
    distance = math.prod(sizes[axis + 1 :])
    place = emit.cast(inside, TensorProto.INT64)
    return _Neighbour(emit.mul(place, emit.ints([distance])) if distance > 1 else place, weight)


def _position(ctx: Context, axis: int, sizes: list[int]) -> str:
    """Return where the grid points, in elements along a spatial axis, ``(N, 1, points)``.

    -1 and 1 are the centres of the first and last element (align_corners), or their outer edges.
    The grid counts axes from the last one.
    """
    emit, size, rank = ctx.emit, sizes[axis], len(sizes)
    aligned = ctx.attribute("align_corners", 0)
    span = size - 1 if aligned else size
    part = emit.slice(ctx.inputs[1], [rank - 1 - axis], [rank - axis], [1 + rank])
    points = emit.reshape(part, [0, 1, -1])
    position = emit.add(emit.mul(points, span / 2), (size - 1) / 2)
    mode = ctx.attribute("padding_mode", "zeros")
    if mode == "zeros":
        return position
    if mode == "reflection" and span:
        position = _reflected(emit, position, 0.0 if aligned else -0.5, float(span))
    return clip(emit, position, 0.0, size - 1.0)


def _reflected(emit: Emitter, position: str, first: float, span: float) -> str:
    """Return positions mirrored at first and first + span until they lie between."""
    distance = emit.unary("Abs", emit.sub(position, emit.filled(first, position)))
    turns = emit.unary("Floor", emit.div(distance, 2 * span))
    rest = emit.sub(distance, emit.mul(turns, 2 * span))
    mirrored = emit.sub(span, emit.unary("Abs", emit.sub(span, rest)))
    return emit.add(mirrored, first)
