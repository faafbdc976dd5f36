"""Gradients of matrix products: Gemm and MatMul.

Sources: ONNX operator specifications Gemm-13 and MatMul-13.
"""

from __future__ import annotations

from onnx_gradcam.gradients.broadcasting import unbroadcast
from onnx_gradcam.gradients.emitter import Dim, Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering


def gemm_no_bias(
    emit: Emitter, a: str, b: str, *, trans_a: bool, trans_b: bool, alpha: float = 1.0
) -> str:
    """Return alpha op(a) op(b) of two matrices, by MatMul where nothing is transposed."""
    if not trans_a and not trans_b and alpha == 1:
        return emit.matmul(a, b)
    inputs = [a, b]
    if emit.opset < 11:  # C became optional with opset 11
        inputs.append(emit.filled([0.0], a))
    return emit.node("Gemm", inputs, alpha=float(alpha), transA=int(trans_a), transB=int(trans_b))


@gradient("Gemm", since=7)
def _gemm(ctx: Context) -> Gradients:
    """Y = alpha A' B' + beta C: dA' = alpha dY B'^T, dB' = alpha A'^T dY, dC = beta dY."""
    emit, (a, b) = ctx.emit, ctx.inputs[:2]
    alpha = ctx.attribute("alpha", 1.0)
    trans_a, trans_b = bool(ctx.attribute("transA", 0)), bool(ctx.attribute("transB", 0))
    results: list[str | None] = [None] * len(ctx.inputs)
    if ctx.wanted[0]:
        left = (ctx.dy, b, False, not trans_b) if not trans_a else (b, ctx.dy, trans_b, True)
        results[0] = gemm_no_bias(
            emit, left[0], left[1], trans_a=left[2], trans_b=left[3], alpha=alpha
        )
    if ctx.wanted[1]:
        right = (a, ctx.dy, not trans_a, False) if not trans_b else (ctx.dy, a, True, trans_a)
        results[1] = gemm_no_bias(
            emit, right[0], right[1], trans_a=right[2], trans_b=right[3], alpha=alpha
        )
    if len(ctx.inputs) > 2 and ctx.wanted[2]:
        beta = ctx.attribute("beta", 1.0)
        scaled = ctx.dy if beta == 1 else emit.mul(ctx.dy, beta)
        results[2] = unbroadcast(ctx, scaled, ctx.inputs[2], ctx.outputs[0])
    return results


def _swap_last(ctx: Context, name: str) -> str:
    rank = len(ctx.shape(name))
    return ctx.emit.transpose(name, [*range(rank - 2), rank - 1, rank - 2])


@gradient("MatMul")
def _matmul(ctx: Context) -> Gradients:
    """Y = A B: dA = dY B^T, dB = A^T dY, summed over the batch axes that were broadcast.

    A vector is a row on the left and a column on the right; Y lacks its axis of size one.
    """
    emit, (a, b) = ctx.emit, ctx.inputs
    row, column = (len(ctx.shape(name)) == 1 for name in (a, b))
    left = _as_matrix(ctx, a, 0) if row else a
    right = _as_matrix(ctx, b, 1) if column else b
    rank = len(ctx.shape(ctx.outputs[0])) + row + column
    added = [rank - 2] * row + [rank - 1] * column
    dy = emit.unsqueeze(ctx.dy, added) if added else ctx.dy
    batch = ctx.shape(ctx.outputs[0])[: rank - 2]
    da = db = None
    if ctx.wanted[0]:
        da = _sum_batch_axes(ctx, emit.matmul(dy, _swap_last(ctx, right)), left, batch)
        da = emit.squeeze(da, [0]) if row else da
    if ctx.wanted[1]:
        db = _sum_batch_axes(ctx, emit.matmul(_swap_last(ctx, left), dy), right, batch)
        db = emit.squeeze(db, [1]) if column else db
    return [da, db]


def _as_matrix(ctx: Context, vector: str, axis: int) -> str:
    matrix = ctx.emit.unsqueeze(vector, [axis])
    size = ctx.shape(vector)[0]
    ctx.emit.declare(matrix, ctx.emit.dtype(vector), (1, size) if axis == 0 else (size, 1))
    return matrix


def _sum_batch_axes(ctx: Context, gradient_: str, operand: str, batch: tuple[Dim, ...]) -> str:
    """Undo the broadcasting of the axes before the last two to `batch`."""
    emit, shape = ctx.emit, ctx.shape(operand)
    if not batch:
        return gradient_
    stand_in = f"{gradient_}:shape"  # a shape to compare with: batch of Y, matrix of the operand
    emit.declare(stand_in, emit.dtype(operand), (*batch, *shape[-2:]))
    return unbroadcast(ctx, gradient_, operand, stand_in)


def fused_matmul(ctx: Context) -> str:
    """Return com.microsoft.FusedMatMul in standard operators.

    Source: onnxruntime ContribOperators, FusedMatMul: alpha op(A) op(B), transposing the last
    two axes of each; transBatchA/B move the batch axes and are not covered.

    Raises:
        FormulaError: transBatchA or transBatchB is set.
    """
    if ctx.attribute("transBatchA", 0) or ctx.attribute("transBatchB", 0):
        raise FormulaError("transBatchA and transBatchB are not covered")
    operands = []
    for name, flag in zip(ctx.inputs, ("transA", "transB"), strict=True):
        operands.append(_swap_last(ctx, name) if ctx.attribute(flag, 0) else name)
    alpha = ctx.attribute("alpha", 1.0)
    product = ctx.emit.matmul(*operands)
    if alpha != 1:
        product = ctx.emit.mul(product, alpha)
    ctx.emit.declare(product, ctx.emit.dtype(operands[0]), _product_shape(ctx))
    return product


def _product_shape(ctx: Context) -> tuple[Dim, ...]:
    """Return what is known of the shape of a FusedMatMul: its batch axes may be unknown."""
    (*batch_a, rows, inner), (*batch_b, _, columns) = (ctx.shape(name) for name in ctx.inputs)
    if ctx.attribute("transA", 0):
        rows = inner
    if ctx.attribute("transB", 0):
        columns = ctx.shape(ctx.inputs[1])[-2]
    longer, shorter = sorted((batch_a, batch_b), key=len, reverse=True)
    unchanged = all(size == 1 for size in shorter) or longer == shorter
    return (*(longer if unchanged else [None] * len(longer)), rows, columns)


@lowering("FusedMatMul")
def _lower_fused_matmul(ctx: Context) -> list[str]:
    return [fused_matmul(ctx)]
