"""Gradients of mathematical functions of one tensor, element by element.

Where the derivative is infinite although the function is not (Sqrt at 0, Asin at 1), it counts as
0: an infinite gradient would turn the whole map into NaN.
Source for all: the operators' specifications (github.com/onnx/onnx docs/Operators.md).
"""

from __future__ import annotations

import math

from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import FLOATS, ZERO, Context, Gradients, gradient
from onnx_gradcam.gradients.unary import UnaryRule, register_from_input, register_from_output


def divided_where_positive(emit: Emitter, dy: str, divisor: str) -> str:
    """Return dy / divisor where the divisor is positive, else 0."""
    positive = emit.greater(divisor, 0.0)
    return emit.masked(emit.div(dy, emit.where(positive, divisor, 1.0)), positive)


def sqrt(emit: Emitter, dy: str, y: str) -> str:
    """dx = dy / (2 y), 0 at 0."""
    return divided_where_positive(emit, emit.mul(dy, 0.5), y)


def reciprocal(emit: Emitter, dy: str, y: str) -> str:
    """dx = -dy y^2."""
    return emit.neg(emit.mul(dy, emit.mul(y, y)))


def absolute(emit: Emitter, dy: str, x: str) -> str:
    """dx = dy sign(x), 0 at 0; by masks because Sign came with opset 9."""
    return emit.sub(emit.masked(dy, emit.greater(x, 0.0)), emit.masked(dy, emit.less(x, 0.0)))


def erf(emit: Emitter, dy: str, x: str) -> str:
    """dx = dy 2/sqrt(pi) exp(-x^2)."""
    bell = emit.unary("Exp", emit.neg(emit.mul(x, x)))
    return emit.mul(dy, emit.mul(bell, 2 / math.sqrt(math.pi)))


def tan(emit: Emitter, dy: str, y: str) -> str:
    """dx = dy (1 + y^2)."""
    return emit.mul(dy, emit.add(emit.mul(y, y), 1.0))


def asin(emit: Emitter, dy: str, x: str) -> str:
    """dx = dy / sqrt((1 - x) (1 + x)), 0 at -1 and 1."""
    square = emit.mul(emit.sub(1.0, x), emit.add(x, 1.0))
    return divided_where_positive(emit, dy, emit.unary("Sqrt", square))


def acosh(emit: Emitter, dy: str, x: str) -> str:
    """dx = dy / (sqrt(x - 1) sqrt(x + 1)), 0 at 1; one root of the product could overflow."""
    below = divided_where_positive(emit, dy, emit.unary("Sqrt", emit.add(x, -1.0)))
    return emit.div(below, emit.unary("Sqrt", emit.add(x, 1.0)))


def asinh(emit: Emitter, dy: str, x: str) -> str:
    """dx = dy / sqrt(x^2 + 1)."""
    return emit.div(dy, emit.unary("Sqrt", emit.add(emit.mul(x, x), 1.0)))


def atan(emit: Emitter, dy: str, x: str) -> str:
    """dx = dy / (x^2 + 1)."""
    return emit.div(dy, emit.add(emit.mul(x, x), 1.0))


def atanh(emit: Emitter, dy: str, x: str) -> str:
    """dx = dy / ((1 - x) (1 + x))."""
    return emit.div(dy, emit.mul(emit.sub(1.0, x), emit.add(x, 1.0)))


def _times(op_type: str) -> UnaryRule:
    return lambda emit, dy, x: emit.mul(dy, emit.unary(op_type, x))


register_from_output(
    {
        "Exp": lambda emit, dy, y: emit.mul(dy, y),
        "Identity": lambda _emit, dy, _: dy,
        "Neg": lambda emit, dy, _: emit.neg(dy),
        "Reciprocal": reciprocal,
        "Sqrt": sqrt,
        "Tan": tan,
    }
)

register_from_input(
    {
        "Abs": absolute,
        "Acos": lambda emit, dy, x: emit.neg(asin(emit, dy, x)),
        "Acosh": acosh,
        "Asin": asin,
        "Asinh": asinh,
        "Atan": atan,
        "Atanh": atanh,
        "Cos": lambda emit, dy, x: emit.neg(emit.mul(dy, emit.unary("Sin", x))),
        "Cosh": _times("Sinh"),
        "Erf": erf,
        "Log": lambda emit, dy, x: emit.div(dy, x),
        "Sin": _times("Cos"),
        "Sinh": _times("Cosh"),
    }
)


@gradient("Cast")
@gradient("CastLike", since=15)
def _cast(ctx: Context) -> Gradients:
    """Cast back; the gradient of quantized numbers, integers, stays a float.

    CastLike reads nothing but the type of its second input.
    """
    dtype = ctx.emit.dtype(ctx.inputs[0])
    return [ctx.emit.cast(ctx.dy, dtype) if dtype in FLOATS else ctx.dy, ZERO]


@gradient("Ceil", "EyeLike", "Floor", "Hardmax", "Round", "Sign")
def _piecewise_constant(_: Context) -> Gradients:
    """The derivative is 0 wherever there is one; EyeLike reads nothing but the shape."""
    return [ZERO]
