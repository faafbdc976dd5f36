"""Convolutions with what onnxruntime fuses into them, and those on channels-last maps.

Source: onnxruntime, ``docs/ContribOperators.md``.
"""

from __future__ import annotations

from onnx_gradcam.export.expansion.activations import PARAMETERS, fused_activation
from onnx_gradcam.export.expansion.registry import expansion
from onnx_gradcam.gradients.registry import Context, FormulaError

_GEOMETRY = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


@expansion("FusedConv")
def _fused_conv(ctx: Context) -> list[str]:
    """Y = activation(Conv(X, W, B) + Z)."""
    addend = ctx.inputs[3] if ctx.has_input(3) else None
    return [_fused(ctx, ctx.inputs[0], addend)]


@expansion("NhwcConv", "NhwcFusedConv")
def _nhwc_conv(ctx: Context) -> list[str]:
    """Y = activation(Conv(X, W, B) + Z) of tensors whose channels are last; W is as in Conv."""
    rank = len(ctx.shape(ctx.inputs[1]))
    first = [0, rank - 1, *range(1, rank - 1)]
    addend = ctx.emit.transpose(ctx.inputs[3], first) if ctx.has_input(3) else None
    y = _fused(ctx, ctx.emit.transpose(ctx.inputs[0], first), addend)
    return [ctx.emit.transpose(y, [0, *range(2, rank), 1])]


def _fused(ctx: Context, x: str, addend: str | None) -> str:
    geometry = {name: ctx.attribute(name) for name in _GEOMETRY}
    y = ctx.emit.node("Conv", [x, *filter(None, ctx.inputs[1:3])], **geometry)
    if addend is not None:
        y = ctx.emit.add(y, addend)
    activation = ctx.attribute("activation", "")
    names, values = PARAMETERS.get(activation, ()), ctx.attribute("activation_params", [])
    if len(names) != len(values):
        raise FormulaError(f"{activation} takes {len(names)} activation_params, not {len(values)}")
    return fused_activation(ctx.emit, y, activation, dict(zip(names, values, strict=True)))
