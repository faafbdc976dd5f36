"""Activations: those of a domain of their own, and those that fused operators name.

Source: onnxruntime, ``docs/ContribOperators.md``; of the fused ones and of their parameters
``core/optimizer/conv_activation_fusion.cc`` and ``gemm_activation_fusion.cc``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from onnx_gradcam.export.expansion.registry import expansion
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError

PARAMETERS = {
    "Clip": ("min", "max"),
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "HardSwish": (),
    "LeakyRelu": ("alpha",),
    "ParametricSoftplus": ("alpha", "beta"),
    "Relu": (),
    "ScaledTanh": ("alpha", "beta"),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}
"""Activations that onnxruntime fuses into another operator, and what they are called with."""


def fused_activation(emit: Emitter, x: str, activation: str, values: Mapping[str, float]) -> str:
    """Return activation(x); x itself where the node names no activation.

    Args:
        emit: where to write nodes.
        x: its argument.
        activation: an operator of the default domain, or an empty string.
        values: parameters by name; those that are not given have the operator's defaults.

    Raises:
        FormulaError: an activation that is not known.
    """
    if not activation:
        return x
    if activation not in PARAMETERS:
        raise FormulaError(f"its activation {activation!r} is not known")
    if activation == "Clip":
        return clip(emit, x, values.get("min"), values.get("max"))
    if activation == "HardSwish" and emit.opset < 14:
        return emit.mul(x, emit.node("HardSigmoid", [x], alpha=1.0 / 6.0, beta=0.5))
    attributes: dict[str, Any] = dict(values)
    return emit.node(activation, [x], **attributes)


def clip(emit: Emitter, x: str, low: float | None, high: float | None) -> str:
    """Return x held between two numbers, which are attributes before opset 11."""
    if emit.opset < 11:
        return emit.node("Clip", [x], min=low, max=high)
    bounds = ["" if bound is None else emit.filled(bound, x) for bound in (low, high)]
    return emit.node("Clip", [x, *bounds])


def gelu(emit: Emitter, x: str) -> str:
    """Return x/2 (1 + erf(x / sqrt(2))), written without the operator, which opset 20 brought.

    Raises:
        FormulaError: Erf came with opset 9.
    """
    if emit.opset < 9:
        raise FormulaError("it needs Erf, which opset 9 brought")
    cdf = emit.add(emit.unary("Erf", emit.mul(x, math.sqrt(0.5))), 1.0)
    return emit.mul(emit.mul(x, cdf), 0.5)


def silu(emit: Emitter, x: str, alpha: float = 1.0) -> str:
    """Return x sigmoid(alpha x)."""
    return emit.mul(x, emit.unary("Sigmoid", x if alpha == 1 else emit.mul(x, alpha)))


@expansion("Gelu")
def _gelu(ctx: Context) -> list[str]:
    """Y = X/2 (1 + erf(X / sqrt(2)))."""
    return [gelu(ctx.emit, ctx.inputs[0])]


@expansion("BiasGelu")
def _bias_gelu(ctx: Context) -> list[str]:
    """C = Gelu(A + B)."""
    return [gelu(ctx.emit, ctx.emit.add(ctx.inputs[0], ctx.inputs[1]))]


@expansion("FastGelu")
def _fast_gelu(ctx: Context) -> list[str]:
    """Y = x/2 (1 + tanh(0.797885 x + 0.035677 x^3)), x = X + bias."""
    emit, x = ctx.emit, ctx.inputs[0]
    if ctx.has_input(1):
        x = emit.add(x, ctx.inputs[1])
    slope = emit.add(emit.mul(emit.mul(x, x), 0.035677408136300125), 0.7978845608028654)
    bent = emit.add(emit.unary("Tanh", emit.mul(x, slope)), 1.0)
    return [emit.mul(emit.mul(x, bent), 0.5)]


@expansion("QuickGelu")
def _quick_gelu(ctx: Context) -> list[str]:
    """Y = X sigmoid(alpha X)."""
    return [silu(ctx.emit, ctx.inputs[0], ctx.attribute("alpha", 1.702))]


@expansion("BiasSplitGelu")
def _bias_split_gelu(ctx: Context) -> list[str]:
    """Y = left Gelu(right), the halves of X + bias along the last axis."""
    emit = ctx.emit
    (size,) = ctx.static_sizes(ctx.inputs[1])
    x = emit.add(ctx.inputs[0], ctx.inputs[1])
    left = emit.slice(x, [0], [size // 2], [-1])
    right = emit.slice(x, [size // 2], [size], [-1])
    return [emit.mul(left, gelu(emit, right))]


# -- the default domain of the first versions, which onnxruntime still runs ----------------------


@expansion("Affine", domain="")
def _affine(ctx: Context) -> list[str]:
    """Y = alpha X + beta."""
    scaled = ctx.emit.mul(ctx.inputs[0], ctx.attribute("alpha", 1.0))
    return [ctx.emit.add(scaled, ctx.attribute("beta", 0.0))]


@expansion("Scale", domain="")
def _scale(ctx: Context) -> list[str]:
    """Y = scale X."""
    return [ctx.emit.mul(ctx.inputs[0], ctx.attribute("scale", 1.0))]


@expansion("ScaledTanh", domain="")
def _scaled_tanh(ctx: Context) -> list[str]:
    """Y = alpha tanh(beta X)."""
    bent = ctx.emit.unary("Tanh", ctx.emit.mul(ctx.inputs[0], _parameter(ctx, "beta")))
    return [ctx.emit.mul(bent, _parameter(ctx, "alpha"))]


@expansion("ParametricSoftplus", domain="")
def _parametric_softplus(ctx: Context) -> list[str]:
    """Y = alpha ln(exp(beta X) + 1)."""
    soft = ctx.emit.unary("Softplus", ctx.emit.mul(ctx.inputs[0], _parameter(ctx, "beta")))
    return [ctx.emit.mul(soft, _parameter(ctx, "alpha"))]


@expansion("ImageScaler", domain="")
def _image_scaler(ctx: Context) -> list[str]:
    """Y = scale X + bias per channel."""
    scaled = ctx.emit.mul(ctx.inputs[0], ctx.attribute("scale", 1.0))
    shift = ctx.emit.filled([[[value]] for value in ctx.attribute("bias", [])], ctx.inputs[0])
    return [ctx.emit.add(scaled, shift)]


def _parameter(ctx: Context, name: str) -> float:
    """Return an attribute that has no default.

    Raises:
        FormulaError: it is missing.
    """
    value = ctx.attribute(name)
    if value is None:
        raise FormulaError(f"it has no attribute {name}")
    return float(value)
