"""Straight-through gradients of quantization.

The gradient of an integer tensor is a real number per element, dL/dq. Scales and zero points
count as constants, also where they are computed from the data (DynamicQuantizeLinear). Where
DequantizeLinear follows QuantizeLinear with the same scale, its s and 1 / s cancel and are not
written. Which elements count as clipped: `clipping`.
Sources: ONNX operator specifications QuantizeLinear-21, DequantizeLinear-21,
DynamicQuantizeLinear-11, ConvInteger-10, MatMulInteger-10.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from onnx import NodeProto

from onnx_gradcam.gradients.activations import between
from onnx_gradcam.gradients.clipping import Flow, bounds, is_folded, on_the_grid, same_grid
from onnx_gradcam.gradients.conv import conv_input_gradient
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import (
    ZERO,
    Context,
    FormulaError,
    Gradients,
    find_gradient,
    gradient,
)

STRAIGHT_THROUGH = frozenset({"DynamicQuantizeLinear", "QuantizeLinear"})
"""Operators whose derivative is zero almost everywhere; here it is that of what they round."""


def flow_of(ctx: Context) -> Flow:
    """Return the forward graph around a node."""
    emit = ctx.emit
    return Flow(ctx.producer, ctx.readers, ctx.is_output, emit.value, emit.dtype)


@gradient("QuantizeLinear", since=10)
def _quantize(ctx: Context) -> Gradients:
    """q = clip(round(x / s) + z): dx = dq / s where nothing is clipped, else 0."""
    emit, x, scale = ctx.emit, ctx.inputs[0], ctx.inputs[1]
    dx = _unscaled(emit, ctx.dy, scale)
    if dx is None:
        dx = emit.div(ctx.dy, _aligned(ctx, scale, x))
    limits = bounds(flow_of(ctx), ctx.node)
    if limits.low is None and limits.high is None:
        return [dx, ZERO, ZERO]
    value = emit.cast(ctx.outputs[0], emit.dtype(dx))
    if not limits.of_result:
        value = emit.div(x, _aligned(ctx, scale, x))
        if ctx.has_input(2):
            zero = emit.cast(ctx.inputs[2], emit.dtype(dx))
            value = emit.add(value, _aligned(ctx, zero, x, ctx.inputs[2]))
    low, high = (
        None if limit is None else emit.filled(limit, dx) for limit in (limits.low, limits.high)
    )
    return [between(emit, dx, value, low, high), ZERO, ZERO]


@gradient("DequantizeLinear", since=10)
def _dequantize(ctx: Context) -> Gradients:
    """y = (q - z) s: dq = dy s."""
    scale = _aligned(ctx, ctx.inputs[1], ctx.outputs[0])
    return [ctx.emit.mul(ctx.dy, scale), ZERO, ZERO]


@gradient("DynamicQuantizeLinear", since=11)
def _dynamic_quantize(ctx: Context) -> Gradients:
    """Like QuantizeLinear; its range is that of the data, so nothing is clipped."""
    dq = ctx.output_gradients[0]
    if dq is None:
        return [ZERO]
    return [_unscaled(ctx.emit, dq, ctx.outputs[1]) or ctx.emit.div(dq, ctx.outputs[1])]


@gradient("ConvInteger", since=10)
def _conv_integer(ctx: Context) -> Gradients:
    """The gradient of Conv with the weights w - z_w.

    Raises:
        FormulaError: the score depends on the layer through the weights.
    """
    if ctx.wanted[1]:
        raise FormulaError("the gradient of its weights is not covered")
    emit, weight = ctx.emit, ctx.inputs[1]
    rank = len(ctx.shape(weight))
    centred = _centred(ctx, 1, 3, [-1] + [1] * (rank - 1))
    emit.declare(centred, emit.dtype(ctx.dy), emit.shape(weight))
    return [conv_input_gradient(ctx, ctx.dy, ctx.inputs[0], centred), ZERO, ZERO, ZERO]


@gradient("MatMulInteger", since=10)
def _matmul_integer(ctx: Context) -> Gradients:
    """The gradients of MatMul with A - z_A, a zero point per row, and B - z_B, one per column."""
    operands = []
    for index, shape in ((0, [-1, 1]), (1, [1, -1])):
        operand = _centred(ctx, index, 2 + index, shape)
        ctx.emit.declare(operand, ctx.emit.dtype(ctx.dy), ctx.emit.shape(ctx.inputs[index]))
        operands.append(operand)
    product = find_gradient("", "MatMul", ctx.opset)
    assert product is not None
    return [*product(replace(ctx, inputs=operands, wanted=ctx.wanted[:2])), ZERO, ZERO]


def _centred(ctx: Context, index: int, zero_index: int, per_channel: list[int]) -> str:
    """Return an integer operand less its zero point, as a float."""
    emit, dtype = ctx.emit, ctx.emit.dtype(ctx.dy)
    value = emit.cast(ctx.inputs[index], dtype)
    if not ctx.has_input(zero_index):
        return value
    zero = emit.cast(ctx.inputs[zero_index], dtype)
    if len(ctx.shape(ctx.inputs[zero_index])) == 1:
        zero = emit.reshape(zero, per_channel)
    return emit.node("Sub", [value, zero])


# -- scales --------------------------------------------------------------------------------------


def _aligned(ctx: Context, scale: str, x: str, shaped_like: str | None = None) -> str:
    """Return a scale or zero point so that it broadcasts to x: per tensor, axis, or block.

    Raises:
        FormulaError: its shape fits none of these.
    """
    emit = ctx.emit
    shape = ctx.shape(shaped_like or scale)
    if all(size == 1 for size in shape) and len(shape) < 2:
        return scale
    sizes, block = ctx.shape(x), int(ctx.attribute("block_size", 0))
    axis = int(ctx.attribute("axis", 1)) % len(sizes)
    if len(shape) == 1:
        return emit.reshape(scale, [-1 if i == axis else 1 for i in range(len(sizes))])
    if not block or len(shape) != len(sizes):
        raise FormulaError(f"a scale of shape {tuple(shape)} for {tuple(sizes)}")
    length = ctx.static_sizes(x, axis)[0]
    index = np.arange(length) // block
    return emit.node("Gather", [scale, emit.ints(index.tolist())], axis=axis)


def _unscaled(emit: Emitter, gradient_: str, scale: str) -> str | None:
    """Return g where the gradient was written as g times this scale, or as a sum of such."""
    node = _made(emit, gradient_)
    if node is None or node.op_type not in {"Add", "Mul"}:
        return None
    if node.op_type == "Mul":
        return str(node.input[0]) if _is_scale(emit, node.input[1], scale) else None
    parts = [_unscaled(emit, part, scale) for part in node.input]
    known = [part for part in parts if part is not None]
    return emit.sum(known) if len(known) == len(parts) else None


def _made(emit: Emitter, name: str) -> NodeProto | None:
    return next((node for node in reversed(emit.nodes) if node.output[0] == name), None)


def _is_scale(emit: Emitter, operand: str, scale: str) -> bool:
    made = _made(emit, operand)
    if made is not None and made.op_type in {"Gather", "Reshape"}:
        return bool(made.input[0] == scale)
    if operand == scale:
        return True
    values = [emit.value(name) for name in (operand, scale)]
    single = [float(v.reshape(-1)[0]) for v in values if v is not None and v.size == 1]
    return len(single) == 2 and single[0] == single[1]


# -- operators around the quantization -----------------------------------------------------------


def folded_gradient(ctx: Context) -> str | None:
    """Return dx of an activation whose kinks the QuantizeLinear behind it tests, else None."""
    if not is_folded(flow_of(ctx), ctx.node):
        return None
    if ctx.node.op_type == "HardSigmoid":
        return ctx.emit.mul(ctx.dy, ctx.attribute("alpha", 0.2))
    return ctx.dy


_EXACT = frozenset({"GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMin"})
"""Operators whose result is compared with their operand: it must be on the same grid."""

_SMOOTH = frozenset(
    {"Elu", "Exp", "LogSoftmax", "Sigmoid", "Softmax", "Softplus", "Softsign", "Tanh"}
)


def readable_outputs(ctx: Context) -> list[str]:
    """Return a node's outputs for a formula to read.

    Where only QuantizeLinear reads the first, what DequantizeLinear makes of it takes its place.
    """
    flow = flow_of(ctx)
    exact = ctx.node.op_type in _EXACT and same_grid(flow, ctx.node)
    if exact or ctx.node.op_type in _SMOOTH:
        found = on_the_grid(flow, ctx.node)
        if found is not None:
            return [found, *ctx.outputs[1:]]
    return ctx.outputs


def straight_through(nodes: Iterable[NodeProto]) -> list[str]:
    """Return which operators among nodes are differentiated straight through, sorted."""
    return sorted({node.op_type for node in nodes} & STRAIGHT_THROUGH)


__all__ = ["STRAIGHT_THROUGH", "folded_gradient", "readable_outputs", "straight_through"]
