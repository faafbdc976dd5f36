"""Gradients of operators that pick elements by index.

Source: ONNX operator specification Gather-13.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from onnx_gradcam.gradients.emitter import Array
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering


@gradient("Gather")
def _gather(ctx: Context) -> Gradients:
    return [gather_gradient(ctx, ctx.dy, ctx.inputs[0], ctx.inputs[1])]


@lowering("GatherGrad")
def _lower_gather_grad(ctx: Context) -> list[str]:
    """com.microsoft.GatherGrad(Shape(X), indices, dY)."""
    return [gather_gradient(ctx, ctx.inputs[2], ctx.differentiated, ctx.inputs[1])]


def gather_gradient(ctx: Context, dy: str, x: str, index: str) -> str:
    """Return dL/dx of y = Gather(x, index).

    One constant index: dy is padded with zeros; several: a product with a constant one-hot
    matrix; indices known at run time only: dy is added up with ScatterND.

    Raises:
        FormulaError: indices known at run time only, and an opset that cannot add them up.
    """
    rank = len(ctx.shape(x))
    axis = ctx.attribute("axis", 0) % rank
    size = ctx.shape(x)[axis]
    indices = ctx.emit.value(index)
    if indices is None or indices.ndim > 1 or not isinstance(size, int):
        return _scattered(ctx, dy, x, index, axis)
    if indices.ndim == 0:
        dy = ctx.emit.unsqueeze(dy, [axis])
    picked = np.asarray(indices, dtype=np.int64).reshape(-1) % size
    if picked.size == 1:
        pads = [0] * (2 * rank)
        pads[axis], pads[rank + axis] = int(picked[0]), size - 1 - int(picked[0])
        return ctx.emit.pad(dy, pads)
    return _one_hot_product(ctx, dy, x, picked, axis, size)


def _one_hot_product(ctx: Context, dy: str, x: str, picked: Array, axis: int, size: int) -> str:
    emit, rank = ctx.emit, len(ctx.shape(x))
    one_hot = np.equal(picked[:, None], np.arange(size)[None, :])
    to_last = [*(a for a in range(rank) if a != axis), axis]
    back = [to_last.index(a) for a in range(rank)]
    product = emit.matmul(emit.transpose(dy, to_last), emit.filled(one_hot, x))
    return emit.transpose(product, back)


def _scattered(ctx: Context, dy: str, x: str, index: str, axis: int) -> str:
    """Add the slices of dy to zeros at the indices, which lead the axes of dy for that.

    Raises:
        FormulaError: the opset is below 16, where ScatterND does not add.
    """
    emit = ctx.emit
    if emit.opset < 16:
        raise FormulaError("its index is not a constant (from opset 16 on it need not be)")
    rank, index_rank = len(ctx.shape(x)), len(ctx.shape(index))
    index_axes = list(range(axis, axis + index_rank))
    dy_rank = rank - 1 + index_rank
    leading = [*index_axes, *(a for a in range(dy_rank) if a not in index_axes)]
    updates = emit.transpose(dy, leading)
    to_first = [axis, *(a for a in range(rank) if a != axis)]
    zeros = emit.transpose(emit.zeros_like(x), to_first)
    where = emit.unsqueeze(emit.cast(index, TensorProto.INT64), [index_rank])
    total = emit.node("ScatterND", [zeros, where, updates], reduction="add")
    return emit.transpose(total, [to_first.index(a) for a in range(rank)])
