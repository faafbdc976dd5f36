"""Gradients of MaxPool and MaxUnpool.

Sources: ONNX operator specifications MaxPool-12, MaxUnpool-11.
"""

from __future__ import annotations

import numpy as np
from onnx import helper

from onnx_gradcam.gradients.phases import Phases
from onnx_gradcam.gradients.pooling import pooled_axes
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering
from onnx_gradcam.gradients.windows import Axis


@gradient("MaxPool")
def _max_pool(ctx: Context) -> Gradients:
    return [max_pool_gradient(ctx, ctx.dy, ctx.inputs[0], ctx.outputs[0])]


@lowering("MaxPoolGrad", domain="")
def _lower_max_pool_grad(ctx: Context) -> list[str]:
    """Forget the mask of indices: the windows are compared with the forward result instead.

    Raises:
        FormulaError: the forward node is not in the gradient graph.
    """
    dy, mask = ctx.inputs
    forward = ctx.producer(mask)
    if forward is None:
        raise FormulaError("its forward MaxPool is missing")
    return [max_pool_gradient(ctx, dy, forward.input[0], forward.output[0])]


def max_pool_gradient(ctx: Context, dy: str, x: str, y: str) -> str:
    """Return dL/dx: dy goes to the first position of its window that attains the maximum.

    The first row of a window that attains it, then the first position in that row: so the
    gradient goes back through one axis after the other, as if each had been pooled by itself, the
    last one first. That takes as many steps as the sum of the sides of a window, not the product.
    """
    axes = pooled_axes(ctx, x, y)
    pooled = [i for i, axis in enumerate(axes) if axis.kernel > 1 or axis.stride > 1]
    # what is pooled along each axis: x, and x pooled along the axes behind it
    inputs, largest = {}, {}
    for i in reversed(pooled):
        inputs[i] = x
        largest[i] = x = y if i == pooled[0] else _pooled_along(ctx, x, i, axes)
    for i in pooled:
        behind = tuple(axis.count for axis in axes[i + 1 :])
        phases = Phases(ctx.emit, axes[i], 2 + i, behind)
        dy = _back_along(ctx, phases, dy, inputs[i], largest[i])
    return dy


def _pooled_along(ctx: Context, x: str, i: int, axes: list[Axis]) -> str:
    """Return x pooled along one spatial axis, its windows placed as those of the node.

    Its node may be of a later opset, and name defaults that this one does not know.
    """

    def alone(name: str, neutral: int) -> list[int] | None:
        values = ctx.attribute(name)
        if values is None:
            return None
        own = range(i, len(values), len(axes))
        return [value if k in own else neutral for k, value in enumerate(values)]

    return ctx.emit.node(
        "MaxPool",
        [x],
        kernel_shape=alone("kernel_shape", 1),
        strides=alone("strides", 1),
        dilations=alone("dilations", 1) if axes[i].dilation > 1 else None,
        pads=alone("pads", 0),
        auto_pad=ctx.attribute("auto_pad"),
        ceil_mode=1 if axes[i].ceil else None,
    )


def _back_along(ctx: Context, phases: Phases, dy: str, x: str, y: str) -> str:
    """Return dL/dx of a maximum along one axis.

    Going through the positions of a window in order, the first that is not less than the maximum
    takes dy and leaves nothing for later ones: ties go to the first, as in onnxruntime and
    PyTorch. What is left at the last one is its own.
    """
    emit = ctx.emit
    lowest = float(np.finfo(helper.tensor_dtype_to_np_dtype(emit.dtype(x))).min)
    values = phases.of(x, lowest)
    *places, last = phases.places()
    shares = []
    for place in places:
        less = emit.cast(emit.less(phases.at(values, place, lowest), y), emit.dtype(y))
        left = emit.mul(dy, less)
        shares.append((place, emit.sub(dy, left)))
        dy = left
    return phases.map([*shares, (last, dy)])


@gradient("MaxUnpool", since=9)
def _max_unpool(ctx: Context) -> Gradients:
    """y is zero but for y[indices] = x, indices into all of y: dx = dy[indices].

    Raises:
        FormulaError: output_shape is given; the indices count in a map of another size then.
    """
    if ctx.has_input(2):
        raise FormulaError("its output_shape is not covered")
    emit = ctx.emit
    flat = emit.reshape(ctx.dy, [-1])
    return [emit.node("Gather", [flat, ctx.inputs[1]], axis=0)]
