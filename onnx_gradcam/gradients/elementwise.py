"""Gradients of elementwise operators.

Where a derivative can be had from the output y instead of the input x, y is used: onnxruntime
fuses activations into the operator before them, and reading x would keep it from doing so.
At kinks (Relu at 0, Clip at its bounds) the derivative is 0, as in PyTorch's ReLU and Hardtanh.
Source for all: the operators' specifications (github.com/onnx/onnx docs/Operators.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from onnx_gradcam.gradients.broadcasting import unbroadcast
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import (
    Context,
    FormulaError,
    Gradients,
    gradient,
    lowering,
)

# -- formulas shared by both builders: (emit, dy, x or y, ...) -> dx ---------------------------


def relu(emit: Emitter, dy: str, y: str) -> str:
    """dx = dy where y > 0."""
    return emit.masked(dy, emit.greater(y, 0.0))


def leaky_relu(emit: Emitter, dy: str, x: str, alpha: float) -> str:
    """dx = dy where x > 0, else alpha dy."""
    return emit.where(emit.greater(x, 0.0), dy, emit.mul(dy, alpha))


def sigmoid(emit: Emitter, dy: str, y: str) -> str:
    """dx = dy y (1 - y)."""
    return emit.mul(dy, emit.mul(y, emit.sub(1.0, y)))


def tanh(emit: Emitter, dy: str, y: str) -> str:
    """dx = dy (1 - y^2)."""
    return emit.mul(dy, emit.sub(1.0, emit.mul(y, y)))


def erf(emit: Emitter, dy: str, x: str) -> str:
    """dx = dy 2/sqrt(pi) exp(-x^2)."""
    bell = emit.unary("Exp", emit.neg(emit.mul(x, x)))
    return emit.mul(dy, emit.mul(bell, 2 / math.sqrt(math.pi)))


def gelu(emit: Emitter, dy: str, x: str) -> str:
    """dx = dy (Phi(x) + x phi(x)), with the normal distribution Phi and its density phi."""
    phi = emit.mul(emit.unary("Exp", emit.mul(emit.mul(x, x), -0.5)), 1 / math.sqrt(2 * math.pi))
    cdf = emit.mul(emit.add(emit.unary("Erf", emit.mul(x, 1 / math.sqrt(2))), 1.0), 0.5)
    return emit.mul(dy, emit.add(cdf, emit.mul(x, phi)))


def gelu_tanh(emit: Emitter, dy: str, x: str) -> str:
    """Gradient of 0.5 x (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3)."""
    scale, cubic = math.sqrt(2 / math.pi), 0.044715
    square = emit.mul(x, x)
    inner = emit.mul(emit.add(emit.mul(square, cubic), 1.0), emit.mul(x, scale))
    t = emit.unary("Tanh", inner)
    slope = emit.mul(emit.add(emit.mul(square, 3 * cubic), 1.0), scale)
    second = emit.mul(emit.mul(x, emit.sub(1.0, emit.mul(t, t))), slope)
    return emit.mul(dy, emit.mul(emit.add(emit.add(t, 1.0), second), 0.5))


def between(emit: Emitter, dy: str, y: str, low: str | None, high: str | None) -> str:
    """dx = dy where low < y < high; a bound that is None does not bind."""
    dx = dy
    if low is not None:
        dx = emit.masked(dx, emit.greater(y, low))
    if high is not None:
        dx = emit.masked(dx, emit.less(y, high))
    return dx


def hard_sigmoid_slope(emit: Emitter, dy: str, y: str, alpha: float) -> str:
    """dx = alpha dy where 0 < y < 1."""
    return emit.mul(between(emit, dy, y, emit.filled(0.0, y), emit.filled(1.0, y)), alpha)


def hard_swish(emit: Emitter, dy: str, x: str) -> str:
    """dx = 0 for x <= -3, dy for x >= 3, else dy (x/3 + 1/2)."""
    middle = emit.mul(dy, emit.add(emit.mul(x, 1 / 3), 0.5))
    below = emit.masked(middle, emit.greater(x, -3.0))
    return emit.where(emit.less(x, 3.0), below, dy)


def softplus(emit: Emitter, dy: str, x: str) -> str:
    """dx = dy sigmoid(x)."""
    return emit.mul(dy, emit.unary("Sigmoid", x))


def mish(emit: Emitter, dy: str, x: str) -> str:
    """Gradient of x tanh(softplus(x)): t + x (1 - t^2) sigmoid(x)."""
    t = emit.unary("Tanh", emit.unary("Softplus", x))
    second = emit.mul(emit.mul(x, emit.sub(1.0, emit.mul(t, t))), emit.unary("Sigmoid", x))
    return emit.mul(dy, emit.add(t, second))


def swish(emit: Emitter, dy: str, x: str, alpha: float) -> str:
    """Gradient of x s, s = sigmoid(alpha x): s (1 + alpha x (1 - s))."""
    scaled = x if alpha == 1 else emit.mul(x, alpha)
    s = emit.unary("Sigmoid", scaled)
    inner = emit.add(emit.mul(scaled, emit.sub(1.0, s)), 1.0)
    return emit.mul(dy, emit.mul(s, inner))


def elu(emit: Emitter, dy: str, x: str, y: str, alpha: float, gamma: float = 1.0) -> str:
    """Gradient of y = gamma (x if x > 0 else alpha (exp(x) - 1)): gamma, or y + gamma alpha."""
    negative = emit.add(y, alpha * gamma)
    return emit.mul(dy, emit.where(emit.greater(x, 0.0), emit.filled(gamma, x), negative))


def sqrt(emit: Emitter, dy: str, y: str) -> str:
    """dx = dy / (2 y)."""
    return emit.div(emit.mul(dy, 0.5), y)


def reciprocal(emit: Emitter, dy: str, y: str) -> str:
    """dx = -dy y^2."""
    return emit.neg(emit.mul(dy, emit.mul(y, y)))


def absolute(emit: Emitter, dy: str, x: str) -> str:
    """dx = dy sign(x), 0 at 0; by masks because Sign came with opset 9."""
    return emit.sub(emit.masked(dy, emit.greater(x, 0.0)), emit.masked(dy, emit.less(x, 0.0)))


def power(emit: Emitter, dy: str, x: str, exponent: float) -> str:
    """dx = dy p x^(p-1) for a constant exponent p."""
    if exponent == 0:
        return emit.mul(dy, 0.0)
    if exponent == 1:
        return dy
    inner = x if exponent == 2 else emit.pow(x, exponent - 1)
    return emit.mul(dy, emit.mul(inner, exponent))


# -- operators of one input --------------------------------------------------------------------

_FROM_OUTPUT: dict[str, Callable[[Emitter, str, str], str]] = {
    "Relu": relu,
    "Sigmoid": sigmoid,
    "Tanh": tanh,
    "Sqrt": sqrt,
    "Reciprocal": reciprocal,
    "Exp": lambda emit, dy, y: emit.mul(dy, y),
    "Neg": lambda emit, dy, _: emit.neg(dy),
    "Identity": lambda _emit, dy, _: dy,
}

_FROM_INPUT: dict[str, Callable[[Emitter, str, str], str]] = {
    "Abs": absolute,
    "Erf": erf,
    "HardSwish": hard_swish,
    "Log": lambda emit, dy, x: emit.div(dy, x),
    "Mish": mish,
    "Softplus": softplus,
}


def _register_unary() -> None:
    def from_output(rule: Callable[[Emitter, str, str], str]) -> Callable[[Context], Gradients]:
        return lambda ctx: [rule(ctx.emit, ctx.dy, ctx.outputs[0])]

    def from_input(rule: Callable[[Emitter, str, str], str]) -> Callable[[Context], Gradients]:
        return lambda ctx: [rule(ctx.emit, ctx.dy, ctx.inputs[0])]

    for op_type, rule in _FROM_OUTPUT.items():
        gradient(op_type)(from_output(rule))
    for op_type, rule in _FROM_INPUT.items():
        gradient(op_type)(from_input(rule))


_register_unary()


@gradient("LeakyRelu")
def _leaky_relu(ctx: Context) -> Gradients:
    return [leaky_relu(ctx.emit, ctx.dy, ctx.inputs[0], ctx.attribute("alpha", 0.01))]


@gradient("Elu")
def _elu(ctx: Context) -> Gradients:
    return [elu(ctx.emit, ctx.dy, ctx.inputs[0], ctx.outputs[0], ctx.attribute("alpha", 1.0))]


@gradient("Selu")
def _selu(ctx: Context) -> Gradients:
    alpha = ctx.attribute("alpha", 1.67326319217681884765625)
    gamma = ctx.attribute("gamma", 1.05070102214813232421875)
    return [elu(ctx.emit, ctx.dy, ctx.inputs[0], ctx.outputs[0], alpha, gamma)]


@gradient("HardSigmoid")
def _hard_sigmoid(ctx: Context) -> Gradients:
    return [hard_sigmoid_slope(ctx.emit, ctx.dy, ctx.outputs[0], ctx.attribute("alpha", 0.2))]


@gradient("Gelu", since=20)
def _gelu(ctx: Context) -> Gradients:
    rule = gelu_tanh if ctx.attribute("approximate", "none") == "tanh" else gelu
    return [rule(ctx.emit, ctx.dy, ctx.inputs[0])]


@gradient("Swish", since=24)
def _swish(ctx: Context) -> Gradients:
    return [swish(ctx.emit, ctx.dy, ctx.inputs[0], ctx.attribute("alpha", 1.0))]


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


@gradient("Cast")
@gradient("CastLike", since=15)
def _cast(ctx: Context) -> Gradients:
    """Cast back: both types are floats, as no gradient flows through others."""
    return [ctx.emit.cast(ctx.dy, ctx.emit.dtype(ctx.inputs[0]))]


# -- operators of several inputs ---------------------------------------------------------------


def _operands(ctx: Context, rules: Sequence[Callable[[], str] | None]) -> Gradients:
    """Apply a rule per wanted input and undo broadcasting."""
    return [
        unbroadcast(ctx, rule(), ctx.inputs[i], ctx.outputs[0]) if rule and ctx.wanted[i] else None
        for i, rule in enumerate(rules)
    ]


@gradient("Add", since=7)
def _add(ctx: Context) -> Gradients:
    return _operands(ctx, [lambda: ctx.dy, lambda: ctx.dy])


@gradient("Sub", since=7)
def _sub(ctx: Context) -> Gradients:
    return _operands(ctx, [lambda: ctx.dy, lambda: ctx.emit.neg(ctx.dy)])


@gradient("Mul", since=7)
def _mul(ctx: Context) -> Gradients:
    a, b = ctx.inputs
    return _operands(ctx, [lambda: ctx.emit.mul(ctx.dy, b), lambda: ctx.emit.mul(ctx.dy, a)])


@gradient("Div", since=7)
def _div(ctx: Context) -> Gradients:
    emit, divisor, y = ctx.emit, ctx.inputs[1], ctx.outputs[0]
    return _operands(
        ctx,
        [
            lambda: emit.div(ctx.dy, divisor),
            lambda: emit.neg(emit.div(emit.mul(ctx.dy, y), divisor)),
        ],
    )


@lowering("DivGrad")
def _lower_div(ctx: Context) -> list[str]:
    """com.microsoft.DivGrad(dY, A, B): dA and dB, either of which may be absent."""
    emit, (dy, a, b) = ctx.emit, ctx.inputs
    results = ["", ""]
    if ctx.outputs[0]:
        results[0] = unbroadcast(ctx, emit.div(dy, b), a, dy)
    if len(ctx.outputs) > 1 and ctx.outputs[1]:
        quotient = emit.div(emit.div(emit.mul(dy, a), b), b)
        results[1] = unbroadcast(ctx, emit.neg(quotient), b, dy)
    return results


@gradient("Pow", since=7)
def _pow(ctx: Context) -> Gradients:
    x, emit = ctx.inputs[0], ctx.emit
    exponent = emit.value(ctx.inputs[1])
    if exponent is not None and exponent.size == 1:
        dx = power(emit, ctx.dy, x, float(exponent.reshape(-1)[0]))
    elif exponent is not None:
        p, lower = (emit.filled(v, x) for v in (exponent, np.where(exponent == 0, 0, exponent - 1)))
        dx = emit.mul(ctx.dy, emit.mul(emit.pow(x, lower), p))
    else:
        p = emit.cast(ctx.inputs[1], emit.dtype(x))
        dx = emit.mul(ctx.dy, emit.mul(p, emit.pow(x, emit.sub(p, emit.filled(1.0, x)))))
    return [unbroadcast(ctx, dx, x, ctx.outputs[0])]


@gradient("PRelu", since=7)
def _prelu(ctx: Context) -> Gradients:
    x, slope = ctx.inputs
    positive = ctx.emit.greater(x, 0.0)
    return [ctx.emit.where(positive, ctx.dy, ctx.emit.mul(ctx.dy, slope))]


@gradient("Sum")
def _sum(ctx: Context) -> Gradients:
    return _operands(ctx, [lambda: ctx.dy] * len(ctx.inputs))


@gradient("Mean")
def _mean(ctx: Context) -> Gradients:
    share = ctx.emit.mul(ctx.dy, 1 / len(ctx.inputs))
    return _operands(ctx, [lambda: share] * len(ctx.inputs))


@gradient("Where", since=9)
def _where(ctx: Context) -> Gradients:
    emit, condition = ctx.emit, ctx.inputs[0]
    return _operands(
        ctx,
        [
            None,
            lambda: emit.where(condition, ctx.dy, 0.0),
            lambda: emit.where(condition, 0.0, ctx.dy),
        ],
    )


@gradient("Max", "Min")
def _extremum(ctx: Context) -> Gradients:
    """Share dy equally among the operands that equal the result, as PyTorch's maximum does."""
    emit, y = ctx.emit, ctx.outputs[0]
    compare = emit.less if ctx.node.op_type == "Max" else emit.greater
    attained = [emit.cast(emit.node("Not", [compare(x, y)]), emit.dtype(y)) for x in ctx.inputs]
    share = ctx.dy if len(attained) == 1 else emit.div(ctx.dy, emit.sum(attained))
    return _operands(ctx, [partial(emit.mul, share, hit) for hit in attained])


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
