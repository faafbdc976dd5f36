"""Gradients of operators that pick slices along one axis: Gather and Compress.

Sources: ONNX operator specifications Gather-13, Compress-11.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnx_gradcam.gradients.emitter import Array, Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering
from onnx_gradcam.gradients.sizes import (
    Size,
    one_hot,
    pad,
    product_of,
    reshape,
    size_of,
    sizes_of,
    vectors,
)

_FEW = 2
"""So many picks of one slice are added up one by one; of more, a product does it."""

_LARGEST_CONSTANT = 2**20
"""Most elements of a one-hot matrix that the file carries."""

_LARGEST_COMPUTED = 2**24
"""Most elements of a one-hot matrix that is computed at run time, as far as its size is known."""


@dataclass(frozen=True)
class Axis:
    """The axis of a tensor that slices are picked along.

    Attributes:
        emit: where to write nodes.
        like: a tensor of the same element type.
        rank: of the tensor.
        number: of the axis.
        size: of the axis.
    """

    emit: Emitter
    like: str
    rank: int
    number: int
    size: Size


@gradient("Gather")
def _gather(ctx: Context) -> Gradients:
    return [gather_gradient(ctx, ctx.dy, ctx.inputs[0], ctx.inputs[1])]


@lowering("GatherGrad")
def _lower_gather_grad(ctx: Context) -> list[str]:
    """com.microsoft.GatherGrad(Shape(X), indices, dY)."""
    return [gather_gradient(ctx, ctx.inputs[2], ctx.differentiated, ctx.inputs[1])]


def gather_gradient(ctx: Context, dy: str, x: str, index: str) -> str:
    """Return dL/dx of y = Gather(x, index).

    One constant index: dy is padded with zeros. Several: they are gathered back, or, where many
    pick the same, a product with a one-hot matrix adds them up; so where they are computed.

    Raises:
        FormulaError: the one-hot matrix would be too large, or cannot be written.
    """
    emit, rank = ctx.emit, len(ctx.shape(x))
    number = ctx.attribute("axis", 0) % rank
    axis = Axis(emit, x, rank, number, size_of(emit, x, number))
    index_shape = ctx.shape(index)
    if not index_shape:
        dy = emit.unsqueeze(dy, [number])
    elif len(index_shape) > 1:
        dy = _flattened(ctx, dy, x, number, index_shape)
    indices = emit.value(index)
    if indices is not None:
        return put_back(axis, dy, indices.reshape(-1).astype(np.int64))
    check_one_hot([*sizes_of(emit, index, range(len(index_shape))), axis.size])
    column = emit.reshape(emit.cast(index, TensorProto.INT64), [-1, 1])
    return _one_hot_product(axis, dy, column)


def _flattened(
    ctx: Context, dy: str, x: str, axis: int, index_shape: tuple[int | str | None, ...]
) -> str:
    """Return dy with the axes of the index made one."""
    emit = ctx.emit
    count: Size = 1
    for i, known in enumerate(index_shape):
        count = count * (known if isinstance(known, int) else size_of(emit, dy, axis + i))
    behind = sizes_of(emit, x, range(axis + 1, len(ctx.shape(x))))
    return reshape(emit, dy, [*[0] * axis, count, *behind])


def put_back(axis: Axis, dy: str, picked: Array) -> str:
    """Add slices of dy to zeros at constant indices."""
    emit, size, number = axis.emit, axis.size, axis.number
    if picked.size == 1:
        pick = int(picked[0])
        widths: list[Size] = [0] * (2 * axis.rank)
        before = pick if pick >= 0 else size + pick
        behind = size - 1 - pick if pick >= 0 else -1 - pick
        widths[number], widths[axis.rank + number] = before, behind
        return pad(emit, dy, widths)
    if not isinstance(size, int):
        return _one_hot_product(axis, dy, emit.constant(picked[:, None]))
    picked = picked % size
    most = np.bincount(picked, minlength=size).max()
    if most <= _FEW or picked.size * size > _LARGEST_CONSTANT:
        return _gathered_back(axis, dy, picked, size)
    hot = np.equal(picked[:, None], np.arange(size)[None, :])
    return _product(axis, dy, emit.filled(hot, axis.like))


def _gathered_back(axis: Axis, dy: str, picked: Array, size: int) -> str:
    """Return the sum over the first, second, ... pick of each slice; zeros where there is none."""
    emit, nothing = axis.emit, len(picked)
    sources: list[Array] = []
    for position, slice_ in enumerate(picked):
        free = next((s for s in sources if s[slice_] == nothing), None)
        if free is None:
            free = np.full(size, nothing, np.int64)
            sources.append(free)
        free[slice_] = position
    if any((source == nothing).any() for source in sources):
        end = [0] * (2 * axis.rank)
        end[axis.rank + axis.number] = 1
        dy = emit.pad(dy, end)
    return emit.sum(
        [emit.node("Gather", [dy, emit.constant(s)], axis=axis.number) for s in sources]
    )


# -- indices that are known at run time only -----------------------------------------------------


def check_one_hot(shape: Sequence[Size]) -> None:
    """Refuse a one-hot matrix that would take too much memory, as far as its shape is known.

    Raises:
        FormulaError: it has too many elements.
    """
    elements = math.prod(size for size in shape if isinstance(size, int))
    if elements > _LARGEST_COMPUTED:
        raise FormulaError(f"its indices are not constant, and too many: {elements} pairs")


def non_negative(emit: Emitter, index: str, size: Size | str) -> str:
    """Return int64 indices that count from the start; before opset 11 negative ones are not valid.

    Args:
        emit: where to write nodes.
        index: indices of which negative ones count from the end.
        size: of the axis; a tensor where the indices are of several axes.
    """
    value = emit.value(index)
    if emit.opset < 11 or (value is not None and (value >= 0).all()):
        return index
    end = size if isinstance(size, str) else vectors(emit, size)[0]
    return emit.where(emit.less(index, emit.ints([0])), emit.add(index, end), index)


def _one_hot_product(axis: Axis, dy: str, column: str) -> str:
    column = non_negative(axis.emit, column, axis.size)
    return _product(axis, dy, one_hot(axis.emit, column, axis.size, axis.like))


def _product(axis: Axis, dy: str, matrix: str) -> str:
    """Return dy times a matrix ``(picks, size)`` along the axis."""
    emit, number = axis.emit, axis.number
    if number == axis.rank - 2:
        return emit.matmul(emit.transpose(matrix, [1, 0]), dy)
    to_last = [*(a for a in range(axis.rank) if a != number), number]
    product = emit.matmul(emit.transpose(dy, to_last), matrix)
    return emit.transpose(product, [to_last.index(a) for a in range(axis.rank)])


@gradient("Compress")
def _compress(ctx: Context) -> Gradients:
    """Compress(x, condition) is Gather of the indices where the condition holds."""
    emit, (x, condition) = ctx.emit, ctx.inputs
    rank, number = len(ctx.shape(x)), ctx.attribute("axis")
    sizes = sizes_of(emit, x, range(rank))
    axis = Axis(emit, x, 1, 0, product_of(sizes))
    if number is not None:
        axis = Axis(emit, x, rank, number % rank, sizes[number % rank])
    chosen = emit.value(condition)
    if chosen is not None:
        dx = put_back(axis, ctx.dy, np.flatnonzero(chosen))
    else:
        column = emit.reshape(emit.node("NonZero", [condition]), [-1, 1])
        dx = _one_hot_product(axis, ctx.dy, column)
    return [dx if number is not None else emit.reshape_like(dx, x)]
