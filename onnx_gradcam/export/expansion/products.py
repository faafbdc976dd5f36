"""Matrix products with what onnxruntime fuses into them.

Source: onnxruntime, ``docs/ContribOperators.md``.
"""

from __future__ import annotations

from onnx_gradcam.export.expansion.activations import fused_activation
from onnx_gradcam.export.expansion.registry import expansion
from onnx_gradcam.gradients.registry import Context


@expansion("FusedGemm")
def _fused_gemm(ctx: Context) -> list[str]:
    """Y = activation(alpha A' B' + beta C)."""
    inputs = [*ctx.inputs[:2], ctx.inputs[2] if ctx.has_input(2) else ""]
    if not inputs[2]:  # optional from opset 11 on
        inputs[2] = ctx.emit.filled(0.0, inputs[0])
    names = ("alpha", "beta", "transA", "transB")
    y = ctx.emit.node("Gemm", inputs, **{name: ctx.attribute(name) for name in names})
    return [_activated(ctx, y)]


@expansion("FusedMatMul", "TransposeMatMul")
def _fused_matmul(ctx: Context) -> list[str]:
    """Y = alpha A' B'; matrices may be transposed, and their rows be the first axis."""
    return [_product(ctx)]


@expansion("FusedMatMulActivation")
def _fused_matmul_activation(ctx: Context) -> list[str]:
    """Y = activation(alpha A' B')."""
    return [_activated(ctx, _product(ctx))]


def _product(ctx: Context) -> str:
    emit = ctx.emit
    y = emit.matmul(_operand(ctx, 0, "A"), _operand(ctx, 1, "B"))
    alpha = ctx.attribute("alpha", 1.0)
    return y if alpha == 1 else emit.mul(y, alpha)


def _operand(ctx: Context, index: int, letter: str) -> str:
    """Return A or B as MatMul takes it.

    ``transBatch`` moves the first axis behind the other batch axes; then ``trans`` exchanges the
    last two.
    """
    name = ctx.inputs[index]
    if not (ctx.attribute(f"trans{letter}", 0) or ctx.attribute(f"transBatch{letter}", 0)):
        return name
    perm = list(range(len(ctx.shape(name))))
    if len(perm) < 2:
        return name
    if ctx.attribute(f"transBatch{letter}", 0):
        perm = [*perm[1:-1], perm[0], perm[-1]]
    if ctx.attribute(f"trans{letter}", 0):
        perm[-2:] = perm[:-3:-1]
    return ctx.emit.transpose(name, perm)


def _activated(ctx: Context, y: str) -> str:
    names = ("alpha", "beta", "gamma")
    values = {name: ctx.attribute(f"activation_{name}") for name in names}
    given = {name: value for name, value in values.items() if value is not None}
    return fused_activation(ctx.emit, y, ctx.attribute("activation", ""), given)
