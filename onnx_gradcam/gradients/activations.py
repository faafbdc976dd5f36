"""Gradients of activation functions.

Where a derivative can be had from the output y instead of the input x, y is used: onnxruntime
fuses activations into the operator before them, and reading x would keep it from doing so.
At kinks (Relu at 0, Clip at its bounds) the derivative is 0, as in PyTorch's ReLU and Hardtanh.
Source for all: the operators' specifications (github.com/onnx/onnx docs/Operators.md).
"""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from onnx_gradcam.gradients.broadcasting import unbroadcast
from onnx_gradcam.gradients.emitter import STEEPEST, Emitter
from onnx_gradcam.gradients.registry import (
    ZERO,
    Context,
    FormulaError,
    Gradients,
    gradient,
    lowering,
)
from onnx_gradcam.gradients.unary import register_from_input, register_from_output

# -- formulas shared by both builders: (emit, dy, x or y, ...) -> dx ---------------------------


def relu(emit: Emitter, dy: str, y: str) -> str:
    """dx = dy where y > 0."""
    return emit.mul(dy, emit.above(y))


def leaky_relu(emit: Emitter, dy: str, x: str, alpha: float) -> str:
    """dx = dy where x > 0, else alpha dy."""
    step = emit.above(x)
    if 0 <= alpha <= 1:
        return emit.mul(dy, emit.line(step, 1.0 - alpha, alpha))
    return emit.mul(dy, emit.add(emit.mul(step, 1.0 - alpha), alpha))


def sigmoid(emit: Emitter, dy: str, y: str) -> str:
    """dx = dy y (1 - y)."""
    return emit.mul(dy, emit.mul(y, emit.line(y, -1.0, 1.0)))


def tanh(emit: Emitter, dy: str, y: str) -> str:
    """dx = dy (1 - y^2)."""
    return emit.mul(dy, emit.sub(1.0, emit.mul(y, y)))


def gelu(emit: Emitter, dy: str, x: str) -> str:
    """dx = dy (Phi(x) + x phi(x)), with the normal distribution Phi and its density phi."""
    phi = emit.mul(emit.unary("Exp", emit.mul(emit.mul(x, x), -0.5)), 1 / math.sqrt(2 * math.pi))
    cdf = emit.mul(emit.add(emit.unary("Erf", emit.mul(x, 1 / math.sqrt(2))), 1.0), 0.5)
    return emit.mul(dy, emit.add(cdf, emit.mul(x, phi)))


_TANH_SATURATES = 10.0
"""From here on tanh(u(x)) is 1 in every float type; u^3 would overflow far behind it."""


def gelu_tanh(emit: Emitter, dy: str, x: str) -> str:
    """Gradient of 0.5 x (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3)."""
    scale, cubic = math.sqrt(2 / math.pi), 0.044715
    x = clipped(emit, x, -_TANH_SATURATES, _TANH_SATURATES)
    square = emit.mul(x, x)
    inner = emit.mul(emit.add(emit.mul(square, cubic), 1.0), emit.mul(x, scale))
    t = emit.unary("Tanh", inner)
    slope = emit.mul(emit.add(emit.mul(square, 3 * cubic), 1.0), scale)
    second = emit.mul(emit.mul(x, emit.sub(1.0, emit.mul(t, t))), slope)
    return emit.mul(dy, emit.mul(emit.add(emit.add(t, 1.0), second), 0.5))


def clipped(emit: Emitter, x: str, low: float, high: float) -> str:
    """Return x within two bounds: attributes of Clip before opset 11, then inputs."""
    if emit.opset < 11:
        return emit.node("Clip", [x], min=low, max=high)
    return emit.node("Clip", [x, emit.filled(low, x), emit.filled(high, x)])


def between(emit: Emitter, dy: str, y: str, low: str | None, high: str | None) -> str:
    """dx = dy where low < y < high; a bound that is None does not bind."""
    dx = dy
    for bound, step, compare in ((low, emit.above, emit.greater), (high, emit.below, emit.less)):
        if bound is None:
            continue
        value = emit.value(bound)
        if value is None or value.size != 1:
            dx = emit.masked(dx, compare(y, bound))
        else:
            dx = emit.mul(dx, step(y, float(value.reshape(-1)[0])))
    return dx


def hard_sigmoid_slope(emit: Emitter, dy: str, y: str, alpha: float) -> str:
    """dx = alpha dy where 0 < y < 1."""
    return emit.mul(between(emit, dy, y, emit.filled(0.0, y), emit.filled(1.0, y)), alpha)


def hard_swish(emit: Emitter, dy: str, x: str) -> str:
    """dx = dy (h + m x / 6), h = clip(x/6 + 1/2, 0, 1), m = 1 where -3 < x < 3, else 0."""
    if emit.dtype(x) != TensorProto.FLOAT:
        middle, upper = emit.sub(emit.above(x, -3.0), emit.above(x, 3.0)), emit.above(x, 3.0)
        line = emit.add(emit.mul(x, 1 / 3), 0.5)
        return emit.mul(dy, emit.add(emit.mul(middle, line), upper))
    h = emit.node("HardSigmoid", [x], alpha=1 / 6, beta=0.5)
    rest = emit.node("HardSigmoid", [x], alpha=-1 / 6, beta=0.5)  # 1 - h
    middle = emit.above(emit.mul(h, rest))
    return emit.mul(dy, emit.add(emit.mul(x, emit.line(middle, 1 / 6, 0.0)), h))


def softplus(emit: Emitter, dy: str, x: str) -> str:
    """dx = dy sigmoid(x)."""
    return emit.mul(dy, emit.unary("Sigmoid", x))


def softsign(emit: Emitter, dy: str, x: str) -> str:
    """dx = dy / (1 + |x|)^2, as two divisions: the square could overflow."""
    size = emit.add(emit.unary("Abs", x), 1.0)
    return emit.div(emit.div(dy, size), size)


def mish(emit: Emitter, dy: str, x: str) -> str:
    """Gradient of x tanh(softplus(x)): t + x (1 - t^2) sigmoid(x)."""
    t = emit.unary("Tanh", emit.unary("Softplus", x))
    second = emit.mul(emit.mul(x, emit.sub(1.0, emit.mul(t, t))), emit.unary("Sigmoid", x))
    return emit.mul(dy, emit.add(t, second))


def swish(emit: Emitter, dy: str, x: str, alpha: float) -> str:
    """Gradient of x s, s = sigmoid(alpha x): s (1 + alpha x (1 - s))."""
    scaled = x if alpha == 1 else emit.mul(x, alpha)
    s = emit.unary("Sigmoid", scaled)
    inner = emit.add(emit.mul(scaled, emit.line(s, -1.0, 1.0)), 1.0)
    return emit.mul(dy, emit.mul(s, inner))


def exponential_unit(
    emit: Emitter, dy: str, x: str, y: str, slope: float, steepness: float, offset: float
) -> str:
    """Gradient of Elu, Selu and Celu: `slope` where x > 0, else steepness y + offset."""
    curve = emit.add(y if steepness == 1 else emit.mul(y, steepness), offset)
    return emit.mul(dy, emit.where(emit.greater(x, 0.0), emit.filled(slope, x), curve))


# -- operators ---------------------------------------------------------------------------------

register_from_output({"Relu": relu, "Sigmoid": sigmoid, "Tanh": tanh})

register_from_input(
    {"HardSwish": hard_swish, "Mish": mish, "Softplus": softplus, "Softsign": softsign}
)


@gradient("LeakyRelu")
def _leaky_relu(ctx: Context) -> Gradients:
    alpha = ctx.attribute("alpha", 0.01)
    side = ctx.outputs[0] if alpha > 0 else ctx.inputs[0]  # y has the sign of x
    return [leaky_relu(ctx.emit, ctx.dy, side, alpha)]


@gradient("Elu")
def _elu(ctx: Context) -> Gradients:
    """y = alpha (exp(x) - 1) where x <= 0, so its derivative is y + alpha."""
    return _exponential_unit(ctx, offset=ctx.attribute("alpha", 1.0))


@gradient("Selu")
def _selu(ctx: Context) -> Gradients:
    """y = gamma Elu(x), so its derivative is y + gamma alpha where x <= 0."""
    alpha = ctx.attribute("alpha", 1.67326319217681884765625)
    gamma = ctx.attribute("gamma", 1.05070102214813232421875)
    return _exponential_unit(ctx, slope=gamma, offset=alpha * gamma)


@gradient("Celu")
def _celu(ctx: Context) -> Gradients:
    """y = alpha (exp(x / alpha) - 1) where x <= 0, so its derivative is y / alpha + 1."""
    return _exponential_unit(ctx, steepness=1 / ctx.attribute("alpha", 1.0))


def _exponential_unit(
    ctx: Context, *, slope: float = 1.0, steepness: float = 1.0, offset: float = 1.0
) -> Gradients:
    x, y = ctx.inputs[0], ctx.outputs[0]
    return [exponential_unit(ctx.emit, ctx.dy, x, y, slope, steepness, offset)]


@gradient("HardSigmoid")
def _hard_sigmoid(ctx: Context) -> Gradients:
    if abs(ctx.attribute("alpha", 0.2)) >= STEEPEST:  # a step: see Emitter.above
        return [ZERO]
    return [hard_sigmoid_slope(ctx.emit, ctx.dy, ctx.outputs[0], ctx.attribute("alpha", 0.2))]


@gradient("Gelu", since=20)
def _gelu(ctx: Context) -> Gradients:
    rule = gelu_tanh if ctx.attribute("approximate", "none") == "tanh" else gelu
    return [rule(ctx.emit, ctx.dy, ctx.inputs[0])]


@gradient("Swish", since=24)
def _swish(ctx: Context) -> Gradients:
    return [swish(ctx.emit, ctx.dy, ctx.inputs[0], ctx.attribute("alpha", 1.0))]


@gradient("ThresholdedRelu", since=10)
def _thresholded_relu(ctx: Context) -> Gradients:
    """dx = dy where x > alpha."""
    above = ctx.emit.above(ctx.inputs[0], float(ctx.attribute("alpha", 1.0)))
    return [ctx.emit.mul(ctx.dy, above)]


@gradient("Shrink", since=9)
def _shrink(ctx: Context) -> Gradients:
    """dx = dy where |x| > lambd."""
    threshold = float(ctx.attribute("lambd", 0.5))
    emit, x = ctx.emit, ctx.inputs[0]
    if threshold < 0:  # everything is outside
        return [ctx.dy]
    outside = emit.add(emit.below(x, -threshold), emit.above(x, threshold))
    return [emit.mul(ctx.dy, outside)]


@gradient("PRelu", since=7)
def _prelu(ctx: Context) -> Gradients:
    """y = x where x > 0, else slope x: dx = dy or slope dy, dslope = x dy where x <= 0."""
    emit, (x, slope) = ctx.emit, ctx.inputs
    positive = emit.above(x)
    negative = emit.sub(1.0, positive)
    dx = dslope = None
    if ctx.wanted[0]:
        dx = emit.mul(ctx.dy, emit.add(positive, emit.mul(negative, slope)))
    if ctx.wanted[1]:
        part = emit.mul(emit.mul(ctx.dy, x), negative)
        dslope = unbroadcast(ctx, part, slope, ctx.outputs[0])
    return [dx, dslope]


@gradient("Clip", until=10)
def _clip_attributes(ctx: Context) -> Gradients:
    y = ctx.outputs[0]
    bounds = (ctx.attribute("min"), ctx.attribute("max"))
    low, high = (None if b is None else ctx.emit.filled(b, y) for b in bounds)
    return [between(ctx.emit, ctx.dy, y, low, high)]


@gradient("Clip", since=11)
def _clip_inputs(ctx: Context) -> Gradients:
    low, high = (ctx.inputs[i] if ctx.has_input(i) else None for i in (1, 2))
    return [between(ctx.emit, ctx.dy, ctx.outputs[0], low, high)]


@gradient("Dropout")
def _dropout(ctx: Context) -> Gradients:
    if ctx.has_input(2):
        training = ctx.emit.value(ctx.inputs[2])
        if training is None or bool(np.any(training)):
            raise FormulaError("it is in training mode")
    return [ctx.dy]


# -- training-only operators -------------------------------------------------------------------


@lowering("ReluGrad")
def _lower_relu(ctx: Context) -> list[str]:
    dy, x = ctx.inputs
    return [relu(ctx.emit, dy, ctx.forward_output("Relu", x) or x)]


@lowering("SigmoidGrad")
def _lower_sigmoid(ctx: Context) -> list[str]:
    return [sigmoid(ctx.emit, ctx.inputs[0], ctx.inputs[1])]


@lowering("TanhGrad")
def _lower_tanh(ctx: Context) -> list[str]:
    return [tanh(ctx.emit, ctx.inputs[0], ctx.inputs[1])]


@lowering("GeluGrad")
def _lower_gelu(ctx: Context) -> list[str]:
    return [gelu(ctx.emit, ctx.inputs[0], ctx.inputs[1])]


@lowering("FastGeluGrad")
def _lower_fast_gelu(ctx: Context) -> list[str]:
    return [gelu_tanh(ctx.emit, ctx.inputs[0], ctx.inputs[1])]


@lowering("LeakyReluGrad")
def _lower_leaky_relu(ctx: Context) -> list[str]:
    dy, y = ctx.inputs
    return [leaky_relu(ctx.emit, dy, y, ctx.attribute("alpha", 0.01))]
