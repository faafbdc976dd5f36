"""Convolutions with what onnxruntime fuses into them.

Source: onnxruntime, ``docs/ContribOperators.md``.
"""

from __future__ import annotations

from onnx_gradcam.export.expansion.activations import fused_activation
from onnx_gradcam.export.expansion.registry import expansion
from onnx_gradcam.gradients.registry import Context

GEOMETRY = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


@expansion("FusedConv")
def _fused_conv(ctx: Context) -> list[str]:
    """Y = activation(Conv(X, W, B) + Z)."""
    geometry = {name: ctx.attribute(name) for name in GEOMETRY}
    inputs = [ctx.inputs[i] for i in range(3) if ctx.has_input(i)]
    y = ctx.emit.node("Conv", inputs, **geometry)
    if ctx.has_input(3):
        y = ctx.emit.add(y, ctx.inputs[3])
    parameters = ctx.attribute("activation_params", [])
    return [fused_activation(ctx, y, ctx.attribute("activation", ""), parameters)]
