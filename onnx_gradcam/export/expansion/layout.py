"""Operators that onnxruntime had before the standard did, and those that add a bias.

Source: onnxruntime, ``docs/ContribOperators.md``.
"""

from __future__ import annotations

from onnx_gradcam.export.expansion.registry import expansion
from onnx_gradcam.gradients.registry import Context, FormulaError


@expansion("BiasAdd")
def _bias_add(ctx: Context) -> list[str]:
    """Y = X + bias + skip."""
    return [ctx.emit.add(ctx.emit.add(ctx.inputs[0], ctx.inputs[1]), ctx.inputs[2])]


@expansion("BiasDropout", "BitmaskBiasDropout")
def _bias_dropout(ctx: Context) -> list[str]:
    """Output = data + bias + residual; nothing is dropped outside training."""
    _refuse_training(ctx, 4)
    y = ctx.emit.add(ctx.inputs[0], ctx.inputs[1])
    return [ctx.emit.add(y, ctx.inputs[2]) if ctx.has_input(2) else y]


@expansion("BitmaskDropout")
def _bitmask_dropout(ctx: Context) -> list[str]:
    """Output = data; nothing is dropped outside training."""
    _refuse_training(ctx, 2)
    return [ctx.inputs[0]]


@expansion("BiasSoftmax")
def _bias_softmax(ctx: Context) -> list[str]:
    """Output = softmax(data + bias) over the last axis.

    Raises:
        FormulaError: it normalises over several axes.
    """
    rank = len(ctx.shape(ctx.inputs[0]))
    if ctx.attribute("axis", 1) % rank != rank - 1:
        raise FormulaError("it normalises over several axes")
    total = ctx.emit.add(ctx.inputs[0], ctx.inputs[1])
    return [ctx.emit.node("Softmax", [total], axis=rank - 1)]


@expansion("ExpandDims")
def _expand_dims(ctx: Context) -> list[str]:
    """Y = Unsqueeze(X, axis)."""
    axis = int(ctx.constant(1, "axis").reshape(-1)[0])
    if axis < 0:
        axis += len(ctx.shape(ctx.inputs[0])) + 1
    return [ctx.emit.unsqueeze(ctx.inputs[0], [axis])]


@expansion("Pad")
def _pad(ctx: Context) -> list[str]:
    """Output = Pad(data, pads, value) of opset 11, whose pads may also be ``(1, 2 rank)``."""
    pads = [int(size) for size in ctx.constant(1, "pads").reshape(-1)]
    mode = ctx.attribute("mode", "constant")
    if mode != "constant":
        if ctx.emit.opset < 11:
            return [ctx.emit.node("Pad", [ctx.inputs[0]], mode=mode, pads=pads)]
        return [ctx.emit.node("Pad", [ctx.inputs[0], ctx.emit.ints(pads)], mode=mode)]
    value = float(ctx.constant(2, "value").reshape(-1)[0]) if ctx.has_input(2) else 0.0
    return [ctx.emit.pad(ctx.inputs[0], pads, value)]


@expansion("Crop", domain="")
def _crop(ctx: Context) -> list[str]:
    """Output = input without a border; with scale, so many rows and columns behind it."""
    left, top, right, bottom = ctx.attribute("border") or [0, 0, 0, 0]
    if ctx.attribute("scale"):
        height, width = ctx.attribute("scale")
        ends = [top + height, left + width]
    else:
        ends = [-bottom or 2**31 - 1, -right or 2**31 - 1]
    return [ctx.emit.slice(ctx.inputs[0], [top, left], ends, [2, 3])]


@expansion("GatherND", "Trilu")
def _standardised(ctx: Context) -> list[str]:
    """The operator of the same name in the standard.

    Raises:
        FormulaError: it is younger than the model's opset.
    """
    since = {"GatherND": 11, "Trilu": 14}[ctx.node.op_type]
    if ctx.emit.opset < since:
        raise FormulaError(f"{ctx.node.op_type} needs opset {since}")
    inputs = [name for name in ctx.inputs if name]
    return [ctx.emit.node(ctx.node.op_type, inputs, upper=ctx.attribute("upper"))]


def _refuse_training(ctx: Context, index: int) -> None:
    if ctx.has_input(index) and bool(ctx.constant(index, "training_mode").any()):
        raise FormulaError("it is in training mode")
