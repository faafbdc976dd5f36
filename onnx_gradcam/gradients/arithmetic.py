"""Gradients of arithmetic of several tensors, which broadcast.

Source for all: the operators' specifications (github.com/onnx/onnx docs/Operators.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from onnx_gradcam.gradients.broadcasting import unbroadcast
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import Context, Gradients, gradient, lowering


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


@gradient("Mod", since=10)
def _mod(ctx: Context) -> Gradients:
    """y = a - b n with a whole number n (truncated or rounded down): da = dy, db = -n dy."""
    emit, (a, b), y = ctx.emit, ctx.inputs, ctx.outputs[0]
    return _operands(ctx, [lambda: ctx.dy, lambda: emit.mul(ctx.dy, emit.div(emit.sub(y, a), b))])


def power(emit: Emitter, dy: str, x: str, exponent: float) -> str:
    """dx = dy p x^(p-1) for a constant exponent p; 0 where that is infinite: x = 0, 0 < p < 1."""
    if exponent == 0:
        return emit.mul(dy, 0.0)
    if exponent == 1:
        return dy
    if 0 < exponent < 1:
        positive = emit.greater(x, 0.0)
        dy, x = emit.masked(dy, positive), emit.where(positive, x, 1.0)
    inner = x if exponent == 2 else emit.pow(x, exponent - 1)
    return emit.mul(dy, emit.mul(inner, exponent))


@gradient("Pow", since=7)
def _pow(ctx: Context) -> Gradients:
    """y = x^p: dx = dy p x^(p-1), dp = dy y log(x); the latter 0 where x is not positive."""
    return _operands(ctx, [lambda: _base(ctx), lambda: _exponent(ctx)])


def _base(ctx: Context) -> str:
    """Return dy p x^(p-1); 0 where p is 0, and where x is 0 and p below 1.

    There x is replaced by 1: no power becomes infinite, and none is multiplied with 0.
    """
    emit, (x, exponent) = ctx.emit, ctx.inputs
    value = emit.value(exponent)
    if value is not None and value.size == 1:
        return power(emit, ctx.dy, x, float(value.reshape(-1)[0]))
    if value is not None and not np.any((value > 0) & (value < 1)):
        p, lower = (emit.filled(v, x) for v in (value, np.where(value == 0, 0, value - 1)))
        return emit.mul(ctx.dy, emit.mul(emit.pow(x, lower), p))
    p = emit.cast(exponent, emit.dtype(x))
    zero = emit.node("Not", [emit.node("Or", [emit.less(x, 0.0), emit.greater(x, 0.0)])])
    flat = emit.node("And", [zero, emit.less(p, 1.0)])
    base = emit.where(flat, 1.0, x)
    slope = emit.mul(p, emit.pow(base, emit.add(p, -1.0)))
    return emit.mul(ctx.dy, emit.where(flat, 0.0, slope))


def _exponent(ctx: Context) -> str:
    emit, x, y = ctx.emit, ctx.inputs[0], ctx.outputs[0]
    positive = emit.greater(x, 0.0)
    logarithm = emit.unary("Log", emit.where(positive, x, 1.0))
    return emit.cast(emit.mul(emit.mul(ctx.dy, y), logarithm), emit.dtype(ctx.inputs[1]))


@gradient("Sum")
def _sum(ctx: Context) -> Gradients:
    return _operands(ctx, [lambda: ctx.dy] * len(ctx.inputs))


@gradient("Mean")
def _mean(ctx: Context) -> Gradients:
    share = ctx.emit.mul(ctx.dy, 1 / len(ctx.inputs))
    return _operands(ctx, [lambda: share] * len(ctx.inputs))


@gradient("Max", "Min")
def _extremum(ctx: Context) -> Gradients:
    """Share dy equally among the operands that equal the result, as PyTorch's maximum does."""
    emit, y = ctx.emit, ctx.outputs[0]
    compare = emit.less if ctx.node.op_type == "Max" else emit.greater
    attained = [emit.cast(emit.node("Not", [compare(x, y)]), emit.dtype(y)) for x in ctx.inputs]
    share = ctx.dy if len(attained) == 1 else emit.div(ctx.dy, emit.sum(attained))
    return _operands(ctx, [partial(emit.mul, share, hit) for hit in attained])


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
