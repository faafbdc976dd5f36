"""Activations that fused operators name in an attribute."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_gradcam.gradients.registry import Context, FormulaError

_PARAMETERS = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "LeakyRelu": ("alpha",),
    "Clip": ("min", "max"),
    "HardSigmoid": ("alpha", "beta"),
    "HardSwish": (),
}
"""Activations that onnxruntime fuses, and the order of ``activation_params``.

Source: onnxruntime, ``core/providers/cpu/fused_activation.cc`` (`GetFusedActivationAttr`) and
``core/optimizer/conv_activation_fusion.cc``.
"""


def fused_activation(ctx: Context, x: str, activation: str, parameters: Sequence[float]) -> str:
    """Return activation(x); x itself where the node names no activation.

    Raises:
        FormulaError: an activation of another name, or without its parameters.
    """
    if not activation:
        return x
    if activation not in _PARAMETERS:
        raise FormulaError(f"its activation {activation!r} is not known")
    names = _PARAMETERS[activation]
    if len(parameters) < len(names):
        raise FormulaError(f"{activation} without its parameters {', '.join(names)}")
    values = dict(zip(names, parameters, strict=False))
    if activation == "Clip":
        return clip(ctx, x, *parameters[:2])
    if activation == "HardSwish":
        return hard_swish(ctx, x)
    return ctx.emit.node(activation, [x], **values)


def hard_swish(ctx: Context, x: str) -> str:
    """Return x max(0, min(1, x/6 + 1/2)), written without the operator, which opset 14 brought."""
    return ctx.emit.mul(x, ctx.emit.node("HardSigmoid", [x], alpha=1.0 / 6.0, beta=0.5))


def clip(ctx: Context, x: str, low: float, high: float) -> str:
    """Return x held between two numbers; bounds are attributes before opset 11."""
    if ctx.emit.opset < 11:
        return ctx.emit.node("Clip", [x], min=low, max=high)
    return ctx.emit.node("Clip", [x, ctx.emit.filled(low, x), ctx.emit.filled(high, x)])
