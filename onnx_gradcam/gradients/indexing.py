"""Gradients of operators that pick elements by index.

Source: ONNX operator specification Gather-13.
"""

from __future__ import annotations

import numpy as np

from onnx_gradcam.gradients.emitter import Array
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering


@gradient("Gather")
def _gather(ctx: Context) -> Gradients:
    return [gather_gradient(ctx, ctx.dy, ctx.inputs[0], ctx.constant(1, "index"))]


@lowering("GatherGrad")
def _lower_gather_grad(ctx: Context) -> list[str]:
    """com.microsoft.GatherGrad(Shape(X), indices, dY)."""
    return [gather_gradient(ctx, ctx.inputs[2], ctx.differentiated, ctx.constant(1, "index"))]


def gather_gradient(ctx: Context, dy: str, x: str, indices: Array) -> str:
    """Return dL/dx of y = Gather(x, indices).

    One index: dy is padded with zeros; several: a product with a constant one-hot matrix.

    Raises:
        FormulaError: the size of the indexed axis is not known at export, or the indices have
            more than one axis.
    """
    emit = ctx.emit
    shape = ctx.shape(x)
    rank = len(shape)
    axis = ctx.attribute("axis", 0) % rank
    size = shape[axis]
    if not isinstance(size, int):
        raise FormulaError("the size of the indexed axis is not known at export")
    picked = np.asarray(indices, dtype=np.int64).reshape(-1) % size
    if indices.ndim == 0:
        dy = emit.unsqueeze(dy, [axis])
    elif indices.ndim > 1:
        raise FormulaError("an index of more than one axis is not covered")
    if picked.size == 1:
        pads = [0] * (2 * rank)
        pads[axis], pads[rank + axis] = int(picked[0]), size - 1 - int(picked[0])
        return emit.pad(dy, pads)
    one_hot = np.equal(picked[:, None], np.arange(size)[None, :])
    to_last = [*(a for a in range(rank) if a != axis), axis]
    back = [to_last.index(a) for a in range(rank)]
    product = emit.matmul(emit.transpose(dy, to_last), emit.filled(one_hot, x))
    return emit.transpose(product, back)
