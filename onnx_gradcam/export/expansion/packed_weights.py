"""MatMulNBits: a product with weights of 2, 4 or 8 bits, several to a byte.

The weights are unpacked by arithmetic on constants, which onnxruntime folds when it loads the
file: they are in memory as floats then, where the explanation reads them, but not in the file.
Source: onnxruntime, ``docs/ContribOperators.md``, com.microsoft.MatMulNBits.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from onnx_gradcam.export.expansion.registry import expansion
from onnx_gradcam.gradients.emitter import Array, Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError


@expansion("MatMulNBits")
def _matmul_n_bits(ctx: Context) -> list[str]:
    """Y = A W^T + bias; W ``(N, K)`` in blocks along K with a scale and a zero point each.

    Raises:
        FormulaError: reordered weights (g_idx), or another number of bits.
    """
    emit = ctx.emit
    bits = int(ctx.attribute("bits", 4))
    if bits not in {2, 4, 8}:
        raise FormulaError(f"weights of {bits} bits are not covered")
    if ctx.has_input(4):
        raise FormulaError("reordered weights (g_idx) are not covered")
    rows, columns = int(ctx.attribute("N")), int(ctx.attribute("K"))
    block = int(ctx.attribute("block_size"))
    blocks = math.ceil(columns / block)
    grouped = emit.reshape(_unpacked(emit, ctx.inputs[1], bits), [rows, blocks, block])
    centred = emit.node("Sub", [grouped, _zero_points(ctx, rows, blocks, bits)])
    scales = emit.cast(emit.reshape(ctx.inputs[2], [rows, blocks, 1]), TensorProto.FLOAT)
    weight = emit.reshape(emit.mul(centred, scales), [rows, blocks * block])
    if blocks * block > columns:
        weight = emit.slice(weight, [0], [columns], [1])
    weight = emit.cast(emit.transpose(weight, [1, 0]), emit.dtype(ctx.inputs[0]))
    product = emit.matmul(ctx.inputs[0], weight)
    return [emit.add(product, ctx.inputs[5]) if ctx.has_input(5) else product]


def _zero_points(ctx: Context, rows: int, blocks: int, bits: int) -> str:
    """Return ``(N, blocks, 1)``: packed as the weights are, or as floats, or half of the range."""
    emit = ctx.emit
    if not ctx.has_input(3):
        return emit.constant(_float32(2 ** (bits - 1)))
    given = ctx.inputs[3]
    if emit.dtype(given) != TensorProto.UINT8:
        return emit.cast(emit.reshape(given, [rows, blocks, 1]), TensorProto.FLOAT)
    padded = math.ceil(blocks * bits / 8) * (8 // bits)
    values = emit.reshape(_unpacked(emit, given, bits), [rows, padded])
    if padded > blocks:
        values = emit.slice(values, [0], [blocks], [1])
    return emit.reshape(values, [rows, blocks, 1])


def _unpacked(emit: Emitter, packed: str, bits: int) -> str:
    """Return the numbers in bytes, the lowest bits first, as float32 in a row."""
    rest = emit.reshape(emit.cast(packed, TensorProto.FLOAT), [-1, 1])
    size = emit.constant(_float32(2**bits))
    parts = []
    for _ in range(8 // bits - 1):
        above = emit.unary("Floor", emit.node("Div", [rest, size]))
        parts.append(emit.node("Sub", [rest, emit.node("Mul", [above, size])]))
        rest = above
    return emit.concat([*parts, rest], 1)


def _float32(value: float) -> Array:
    return np.asarray(value, np.float32)
