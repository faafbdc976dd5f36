"""Operators on quantized tensors: DequantizeLinear, the operator on floats, QuantizeLinear.

Constant weights are dequantized by Cast, Sub and Mul instead, which onnxruntime folds when it
loads the file (it leaves DequantizeLinear alone for its own fusions). They stay in the file once.
Sources: ONNX operator specifications QLinearConv-10, QLinearMatMul-21; onnxruntime,
``docs/ContribOperators.md``, for all others.
"""

from __future__ import annotations

from collections.abc import Callable

from onnx import TensorProto

from onnx_gradcam.export.expansion.registry import expansion
from onnx_gradcam.gradients.registry import Context, FormulaError

_EIGHT_BITS = frozenset({TensorProto.INT8, TensorProto.INT32, TensorProto.UINT8})
_GEOMETRY = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def _input(ctx: Context, index: int) -> str:
    return ctx.inputs[index] if ctx.has_input(index) else ""


def _is_single(ctx: Context, name: str) -> bool:
    return all(size == 1 for size in ctx.shape(name))


def _floats(ctx: Context, first: int) -> str:
    """Return the floats that a quantized input stands for; its scale and zero point follow it."""
    scale, zero = ctx.inputs[first + 1], _input(ctx, first + 2)
    return _dequantized(ctx, ctx.inputs[first], scale, zero)


def _dequantized(ctx: Context, q: str, scale: str, zero: str, axis: int = -1) -> str:
    """Return (q - zero) scale, per tensor or along an axis; constants by arithmetic."""
    emit = ctx.emit
    single = _is_single(ctx, scale)
    if single and emit.value(q) is None:
        inputs = [q, scale, zero] if zero else [q, scale]
        return emit.node("DequantizeLinear", inputs, dtype=emit.dtype(scale))
    value = emit.cast(q, emit.dtype(scale))
    rank = len(ctx.shape(q))
    along = [1] * rank
    along[axis] = -1
    if zero:
        offset = emit.cast(zero, emit.dtype(scale))
        value = emit.node("Sub", [value, offset if single else emit.reshape(offset, along)])
    if not single and len(ctx.shape(scale)) == 1:
        scale = emit.reshape(scale, along)
    return emit.mul(value, scale)


def _quantized(ctx: Context, y: str, scale: str, zero: str) -> str:
    """Return y quantized."""
    dtype = ctx.emit.dtype(zero) if zero else int(TensorProto.UINT8)
    inputs = [y, scale, zero] if zero else [y, scale]
    return ctx.emit.node("QuantizeLinear", inputs, dtype=dtype)


def _bias(ctx: Context, name: str, *scales: str) -> str:
    """Return an int32 bias, whose scale is the product of those of the operands."""
    emit = ctx.emit
    product = scales[0]
    for scale in scales[1:]:
        product = emit.mul(product, scale)
    single = all(_is_single(ctx, scale) for scale in scales)
    flat = product if single else emit.reshape(product, [-1])
    return emit.mul(emit.cast(name, emit.dtype(scales[0])), flat)


@expansion("DequantizeLinear", "QuantizeLinear")
def _without_domain(ctx: Context) -> list[str]:
    """The operators of onnxruntime's domain are the standard ones, with more types.

    Raises:
        FormulaError: a type that the standard operators do not have in the model's opset.
    """
    quantizes = ctx.node.op_type == "QuantizeLinear"
    dtype = ctx.emit.dtype(ctx.outputs[0] if quantizes else ctx.inputs[0])
    if dtype not in _EIGHT_BITS and ctx.emit.opset < 21:
        raise FormulaError("quantization to 16 bits needs opset 21; convert the model")
    axis = ctx.attribute("axis", 1)
    inputs = [name for name in ctx.inputs if name]
    return [ctx.emit.node(ctx.node.op_type, inputs, axis=axis if ctx.emit.opset >= 13 else None)]


# -- products --------------------------------------------------------------------------------------


@expansion("QLinearConv", domain="")
@expansion("QLinearConv")
def _qlinear_conv(ctx: Context) -> list[str]:
    """Inputs x, w, y with scale and zero point each, then the bias; w per output channel."""
    emit = ctx.emit
    weight = _dequantized(ctx, ctx.inputs[3], ctx.inputs[4], _input(ctx, 5), axis=0)
    inputs = [_channels_first(ctx, _floats(ctx, 0)), weight]
    if ctx.has_input(8):
        inputs.append(_bias(ctx, ctx.inputs[8], ctx.inputs[1], ctx.inputs[4]))
    y = emit.node("Conv", inputs, **{name: ctx.attribute(name) for name in _GEOMETRY})
    return [_quantized(ctx, _channels_back(ctx, y), ctx.inputs[6], _input(ctx, 7))]


def _rank(ctx: Context) -> int:
    return len(ctx.shape(ctx.inputs[0]))


def _channels_first(ctx: Context, x: str) -> str:
    if not ctx.attribute("channels_last", 0):
        return x
    rank = _rank(ctx)
    return ctx.emit.transpose(x, [0, rank - 1, *range(1, rank - 1)])


def _channels_back(ctx: Context, y: str) -> str:
    if not ctx.attribute("channels_last", 0):
        return y
    return ctx.emit.transpose(y, [0, *range(2, _rank(ctx)), 1])


@expansion("QLinearMatMul", domain="")
def _qlinear_matmul(ctx: Context) -> list[str]:
    """Inputs a, b, y with scale and zero point each; a per row, b per column."""
    left = _dequantized(ctx, ctx.inputs[0], ctx.inputs[1], _input(ctx, 2), axis=-2)
    right = _dequantized(ctx, ctx.inputs[3], ctx.inputs[4], _input(ctx, 5))
    product = ctx.emit.matmul(left, right)
    return [_quantized(ctx, product, ctx.inputs[6], _input(ctx, 7))]


@expansion("QGemm")
def _qgemm(ctx: Context) -> list[str]:
    """Inputs A, B with scale and zero point each, the bias C, scale and zero point of Y or none."""
    emit = ctx.emit
    trans_b = ctx.attribute("transB", 0)
    alpha = ctx.attribute("alpha", 1.0)
    right = _dequantized(ctx, ctx.inputs[3], ctx.inputs[4], _input(ctx, 5), 0 if trans_b else 1)
    inputs = [_floats(ctx, 0), right]
    if ctx.has_input(6):
        bias = _bias(ctx, ctx.inputs[6], ctx.inputs[1], ctx.inputs[4])
        inputs.append(bias if alpha == 1 else emit.mul(bias, alpha))
    elif emit.opset < 11:
        inputs.append(emit.filled([0.0], ctx.inputs[1]))
    y = emit.node("Gemm", inputs, alpha=alpha, transA=ctx.attribute("transA", 0), transB=trans_b)
    return [_quantized(ctx, y, ctx.inputs[7], _input(ctx, 8)) if ctx.has_input(7) else y]


@expansion("MatMulIntegerToFloat")
def _matmul_integer_to_float(ctx: Context) -> list[str]:
    """Inputs A, B, their scales, their zero points, bias: Y = DQ(A) DQ(B) + bias, a float."""
    left = _dequantized(ctx, ctx.inputs[0], ctx.inputs[2], _input(ctx, 4), axis=-2)
    right = _dequantized(ctx, ctx.inputs[1], ctx.inputs[3], _input(ctx, 5))
    y = ctx.emit.matmul(left, right)
    return [ctx.emit.add(y, ctx.inputs[6]) if ctx.has_input(6) else y]


@expansion("DynamicQuantizeMatMul")
def _dynamic_quantize_matmul(ctx: Context) -> list[str]:
    """Inputs A, a float, B, its scale, its zero point, bias: Y = DQ(Q(A)) DQ(B) + bias."""
    emit = ctx.emit
    q, scale, zero = emit.nodes_with_outputs("DynamicQuantizeLinear", [ctx.inputs[0]], 3)
    for name in (q, zero):
        emit.declare(name, TensorProto.UINT8)
    left = emit.node("DequantizeLinear", [q, scale, zero], dtype=emit.dtype(scale))
    right = _dequantized(ctx, ctx.inputs[1], ctx.inputs[2], _input(ctx, 3))
    y = emit.matmul(left, right)
    return [emit.add(y, ctx.inputs[4]) if ctx.has_input(4) else y]


# -- elementwise and pooling -----------------------------------------------------------------------


@expansion("QLinearAdd", "QLinearMul")
def _qlinear_binary(ctx: Context) -> list[str]:
    """Inputs A, B with scale and zero point each, scale and zero point of C."""
    op_type = ctx.node.op_type.removeprefix("QLinear")
    y = ctx.emit.node(op_type, [_floats(ctx, 0), _floats(ctx, 3)])
    return [_quantized(ctx, y, ctx.inputs[6], _input(ctx, 7))]


def _sigmoid(ctx: Context, x: str) -> str:
    return ctx.emit.unary("Sigmoid", x)


def _leaky_relu(ctx: Context, x: str) -> str:
    return ctx.emit.node("LeakyRelu", [x], alpha=ctx.attribute("alpha", 0.01))


def _global_average_pool(ctx: Context, x: str) -> str:
    pooled = ctx.emit.node("GlobalAveragePool", [_channels_first(ctx, x)])
    return _channels_back(ctx, pooled)


def _average_pool(ctx: Context, x: str) -> str:
    names = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
    attributes = {name: ctx.attribute(name) for name in names}
    return _channels_back(
        ctx, ctx.emit.node("AveragePool", [_channels_first(ctx, x)], **attributes)
    )


def _softmax(ctx: Context, x: str) -> str:
    """Softmax as of the opset that an attribute names: before 13 over all axes from one on.

    Raises:
        FormulaError: that is not what the model's own opset means.
    """
    meant, rank = int(ctx.attribute("opset", 13)), _rank(ctx)
    axis = int(ctx.attribute("axis", -1 if meant >= 13 else 1)) % rank
    if (meant >= 13) != (ctx.emit.opset >= 13) and axis != rank - 1:
        raise FormulaError(f"it is a Softmax of opset {meant} over axis {axis} of {rank}")
    return ctx.emit.node("Softmax", [x], axis=axis)


_UNARY: dict[str, Callable[[Context, str], str]] = {
    "QLinearAveragePool": _average_pool,
    "QLinearGlobalAveragePool": _global_average_pool,
    "QLinearLeakyRelu": _leaky_relu,
    "QLinearSigmoid": _sigmoid,
    "QLinearSoftmax": _softmax,
}


@expansion(*_UNARY)
def _qlinear_unary(ctx: Context) -> list[str]:
    """Inputs X, Y with scale and zero point each, without Y itself."""
    y = _UNARY[ctx.node.op_type](ctx, _floats(ctx, 0))
    return [_quantized(ctx, y, ctx.inputs[3], _input(ctx, 4))]


@expansion("QLinearConcat")
def _qlinear_concat(ctx: Context) -> list[str]:
    """Inputs: scale and zero point of Y, then tensor, scale and zero point of each part."""
    parts = [_floats(ctx, first) for first in range(2, len(ctx.inputs), 3)]
    y = ctx.emit.concat(parts, int(ctx.attribute("axis")))
    return [_quantized(ctx, y, ctx.inputs[0], _input(ctx, 1))]


@expansion("QLinearWhere")
def _qlinear_where(ctx: Context) -> list[str]:
    """Inputs: the condition, X and Y with scale and zero point each, those of the result."""
    y = ctx.emit.where(ctx.inputs[0], _floats(ctx, 1), _floats(ctx, 4))
    return [_quantized(ctx, y, ctx.inputs[7], _input(ctx, 8))]


@expansion("NhwcMaxPool")
def _nhwc_max_pool(ctx: Context) -> list[str]:
    """MaxPool of integers, channels last."""
    emit, rank = ctx.emit, _rank(ctx)
    names = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")
    first = emit.transpose(ctx.inputs[0], [0, rank - 1, *range(1, rank - 1)])
    pooled = emit.node("MaxPool", [first], **{name: ctx.attribute(name) for name in names})
    return [emit.transpose(pooled, [0, *range(2, rank), 1])]
