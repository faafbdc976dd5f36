"""Layer, root-mean-square and group normalisation, and what is added to their input.

Source: onnxruntime, ``docs/ContribOperators.md``; LayerNormalization and
SimplifiedLayerNormalization are among onnxruntime's operators of the default domain in every opset.
"""

from __future__ import annotations

from onnx import TensorProto

from onnx_gradcam.export.expansion.activations import silu
from onnx_gradcam.export.expansion.registry import expansion
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError

_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@expansion("LayerNormalization", domain="")
def _layer_normalization(ctx: Context) -> list[str]:
    """Y = (X - mean) / sqrt(variance + epsilon) scale + B, as the operator of opset 17."""
    axes = _last_axes(ctx)
    bias = ctx.inputs[2] if ctx.has_input(2) else None
    return [_standardised(ctx, ctx.inputs[0], axes, ctx.inputs[1], bias, centred=True)]


@expansion("SimplifiedLayerNormalization", domain="")
def _simplified_layer_normalization(ctx: Context) -> list[str]:
    """Y = X / sqrt(mean(X^2) + epsilon) scale."""
    axes = _last_axes(ctx)
    return [_standardised(ctx, ctx.inputs[0], axes, ctx.inputs[1], None, centred=False)]


@expansion("SkipLayerNormalization")
def _skip_layer_normalization(ctx: Context) -> list[str]:
    """Output = LayerNormalization(s) and, as the fourth output, s = input + skip + bias."""
    total = _sum(ctx, 4)
    beta = ctx.inputs[3] if ctx.has_input(3) else None
    y = _standardised(ctx, total, [-1], ctx.inputs[2], beta, centred=True, epsilon=1e-12)
    return _with_sum(ctx, y, total)


@expansion("SkipSimplifiedLayerNormalization")
def _skip_simplified_layer_normalization(ctx: Context) -> list[str]:
    """Output = SimplifiedLayerNormalization(s) and, as the fourth output, s."""
    total = _sum(ctx, 3)
    y = _standardised(ctx, total, [-1], ctx.inputs[2], None, centred=False, epsilon=1e-12)
    return _with_sum(ctx, y, total)


@expansion("GroupNorm")
def _group_norm(ctx: Context) -> list[str]:
    """Y = activation(GroupNormalization(X)) of maps whose channels are last or first."""
    return [_grouped(ctx, ctx.inputs[0])]


@expansion("SkipGroupNorm")
def _skip_group_norm(ctx: Context) -> list[str]:
    """Y = GroupNorm(s) and, as the second output, s = X + skip + bias."""
    emit, (x, _, _, skip) = ctx.emit, ctx.inputs[:4]
    last = ctx.attribute("channels_last", 1)
    if len(ctx.shape(skip)) == 2:
        skip = emit.unsqueeze(skip, [1, 2] if last else [2, 3])
    total = emit.add(x, skip)
    if ctx.has_input(4):
        bias = ctx.inputs[4] if last else emit.reshape(ctx.inputs[4], [-1, 1, 1])
        total = emit.add(total, bias)
    return [_grouped(ctx, total), total]


def _last_axes(ctx: Context) -> list[int]:
    axis = ctx.attribute("axis", -1)
    if axis >= 0:
        axis -= len(ctx.shape(ctx.inputs[0]))
    return list(range(axis, 0))


def _sum(ctx: Context, bias: int) -> str:
    total = ctx.emit.add(ctx.inputs[0], ctx.inputs[1])
    return ctx.emit.add(total, ctx.inputs[bias]) if ctx.has_input(bias) else total


def _with_sum(ctx: Context, y: str, total: str) -> list[str]:
    """Return y and, where the node has it, the fourth output.

    Raises:
        FormulaError: it has the second or third output, which training alone asks for.
    """
    if any(ctx.outputs[1:3]):
        raise FormulaError("its mean and deviation are outputs")
    return [y, "", "", total]


def _standardised(
    ctx: Context,
    x: str,
    axes: list[int],
    scale: str,
    bias: str | None,
    *,
    centred: bool,
    epsilon: float = 1e-5,
) -> str:
    """Return x less its mean (if centred), over its deviation, scaled and shifted.

    Half precision is normalised in float32, as the operators' ``stash_type`` says.
    """
    emit, dtype = ctx.emit, ctx.emit.dtype(x)
    if dtype in _NARROW:
        x = emit.cast(x, TensorProto.FLOAT)
    y = standardised(emit, x, axes, ctx.attribute("epsilon", epsilon), centred=centred)
    y = emit.mul(emit.cast(y, dtype), scale)
    return y if bias is None else emit.add(y, bias)


def standardised(emit: Emitter, x: str, axes: list[int], epsilon: float, *, centred: bool) -> str:
    """Return x less its mean (if centred), over the root of its mean square plus epsilon."""
    if centred:
        x = emit.sub(x, emit.reduce_mean(x, axes))
    square = emit.add(emit.reduce_mean(emit.mul(x, x), axes), epsilon)
    return emit.div(x, emit.unary("Sqrt", square))


def _grouped(ctx: Context, x: str) -> str:
    emit, groups = ctx.emit, ctx.attribute("groups")
    last = ctx.attribute("channels_last", 1)
    if last:
        x = emit.transpose(x, [0, 3, 1, 2])
    grouped = emit.reshape(x, [0, groups, -1])
    normal = standardised(emit, grouped, [-1], ctx.attribute("epsilon", 1e-5), centred=True)
    gamma, beta = (emit.reshape(name, [-1, 1, 1]) for name in ctx.inputs[1:3])
    y = emit.add(emit.mul(emit.reshape(normal, emit.node("Shape", [x])), gamma), beta)
    if ctx.attribute("activation", 0):
        y = silu(emit, y)
    return emit.transpose(y, [0, 2, 3, 1]) if last else y
