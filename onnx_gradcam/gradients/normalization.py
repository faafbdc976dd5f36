"""Gradients of normalisations in inference mode, and of Softmax.

Sources: ONNX operator specifications BatchNormalization-15, LRN-13, LayerNormalization-17,
Softmax-13, LogSoftmax-13.
"""

from __future__ import annotations

from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering
from onnx_gradcam.gradients.windows import window_sum


@gradient("BatchNormalization", since=7)
def _batch_normalization(ctx: Context) -> Gradients:
    """dx = dy scale / sqrt(var + epsilon), per channel: mean and variance are constants.

    Raises:
        FormulaError: in training mode, or normalised per element.
    """
    if ctx.attribute("training_mode", 0):
        raise FormulaError("it is in training mode")
    if not ctx.attribute("spatial", 1):
        raise FormulaError("spatial=0 is not covered")
    emit = ctx.emit
    x, scale, _, _, variance = ctx.inputs
    spread = emit.unary("Sqrt", emit.add(variance, ctx.attribute("epsilon", 1e-5)))
    factor = emit.cast(emit.div(scale, spread), emit.dtype(x))
    per_channel = emit.reshape(factor, [1, -1] + [1] * (len(ctx.shape(x)) - 2))
    return [emit.mul(ctx.dy, per_channel)]


def layer_normalization(
    emit: Emitter, dy: str, x: str, scale: str, axes: list[int], epsilon: float
) -> str:
    """Return dx of y = scale xhat + bias, xhat = (x - mean) / sqrt(var + epsilon) over `axes`.

    dx = (g - mean(g) - xhat mean(g xhat)) / sqrt(var + epsilon), g = dy scale.
    """
    centred = emit.sub(x, emit.reduce_mean(x, axes))
    variance = emit.reduce_mean(emit.mul(centred, centred), axes)
    inverse = emit.unary("Reciprocal", emit.unary("Sqrt", emit.add(variance, epsilon)))
    normalised = emit.mul(centred, inverse)
    g = emit.mul(dy, scale)
    projection = emit.mul(normalised, emit.reduce_mean(emit.mul(g, normalised), axes))
    return emit.mul(emit.sub(emit.sub(g, emit.reduce_mean(g, axes)), projection), inverse)


@gradient("LayerNormalization", since=17)
def _layer_normalization(ctx: Context) -> Gradients:
    x, scale = ctx.inputs[:2]
    rank = len(ctx.shape(x))
    axes = list(range(ctx.attribute("axis", -1) % rank, rank))
    dx = layer_normalization(ctx.emit, ctx.dy, x, scale, axes, ctx.attribute("epsilon", 1e-5))
    return [dx]


@gradient("LRN")
def _lrn(ctx: Context) -> Gradients:
    """y = x s^-b, s = k + a/n sum(x^2) over n neighbouring channels.

    dx_i = dy_i s_i^-b - 2 a b/n x_i sum_j dy_j x_j s_j^(-b-1), over the j whose window holds i.
    """
    emit, x, dy = ctx.emit, ctx.inputs[0], ctx.dy
    size = ctx.attribute("size")
    alpha, beta = ctx.attribute("alpha", 1e-4), ctx.attribute("beta", 0.75)
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    squares = _window_sum(ctx, emit.mul(x, x), size, before, after)
    s = emit.add(emit.mul(squares, alpha / size), ctx.attribute("bias", 1.0))
    damped = emit.mul(dy, emit.pow(s, -beta))
    inner = emit.div(emit.mul(damped, x), s)
    coupling = _window_sum(ctx, inner, size, after, before)
    return [emit.sub(damped, emit.mul(emit.mul(x, coupling), 2 * alpha * beta / size))]


def _window_sum(ctx: Context, value: str, size: int, before: int, after: int) -> str:
    """Return sums over `size` neighbouring channels, as an average pooling of channels.

    Raises:
        FormulaError: the number of channels is not known at export.
    """
    emit, shape = ctx.emit, ctx.shape(ctx.inputs[0])
    channels = shape[1]
    if not isinstance(channels, int):
        raise FormulaError("the number of channels is not known at export")
    plane = emit.reshape(value, [0, 1, channels, -1])
    padded = emit.pad(plane, [0, 0, before, 0, 0, 0, after, 0])
    return emit.reshape_like(window_sum(emit, padded, [size, 1]), ctx.inputs[0])


def softmax(emit: Emitter, dy: str, y: str, axes: list[int]) -> str:
    """dx = y (dy - sum(dy y))."""
    return emit.mul(y, emit.sub(dy, emit.reduce_sum(emit.mul(dy, y), axes)))


def log_softmax(emit: Emitter, dy: str, y: str, axes: list[int]) -> str:
    """dx = dy - exp(y) sum(dy)."""
    return emit.sub(dy, emit.mul(emit.unary("Exp", y), emit.reduce_sum(dy, axes)))


_SOFTMAX = {"Softmax": softmax, "LogSoftmax": log_softmax}


@gradient("Softmax", "LogSoftmax", until=12)
def _softmax_flattened(ctx: Context) -> Gradients:
    """Before opset 13 all axes from `axis` on (default 1) are normalised together."""
    rank = len(ctx.shape(ctx.inputs[0]))
    axes = list(range(ctx.attribute("axis", 1) % rank, rank))
    return [_SOFTMAX[ctx.node.op_type](ctx.emit, ctx.dy, ctx.outputs[0], axes)]


@gradient("Softmax", "LogSoftmax", since=13)
def _softmax_axis(ctx: Context) -> Gradients:
    axis = ctx.attribute("axis", -1) % len(ctx.shape(ctx.inputs[0]))
    return [_SOFTMAX[ctx.node.op_type](ctx.emit, ctx.dy, ctx.outputs[0], [axis])]


@lowering("SoftmaxGrad_13", "LogSoftmaxGrad_13")
def _lower_softmax(ctx: Context) -> list[str]:
    dy, y = ctx.inputs
    axis = ctx.attribute("axis", -1) % len(ctx.shape(y))
    return [_SOFTMAX[ctx.node.op_type.removesuffix("Grad_13")](ctx.emit, dy, y, [axis])]


@lowering("SoftmaxGrad", "LogSoftmaxGrad")
def _lower_softmax_flattened(ctx: Context) -> list[str]:
    dy, y = ctx.inputs
    rank = len(ctx.shape(y))
    axes = list(range(ctx.attribute("axis", 1) % rank, rank))
    return [_SOFTMAX[ctx.node.op_type.removesuffix("Grad")](ctx.emit, dy, y, axes)]


@lowering("LayerNormalizationGrad")
def _lower_layer_normalization(ctx: Context) -> list[str]:
    """Recompute mean and deviation from x: the forward graph keeps neither as an output."""
    dy, x, scale = ctx.inputs[:3]
    rank = len(ctx.shape(x))
    axes = list(range(ctx.attribute("axis", -1) % rank, rank))
    epsilon = ctx.attribute("epsilon", 1e-5)
    return [layer_normalization(ctx.emit, dy, x, scale, axes, epsilon)]
