"""Gradients of ConvTranspose, and of Col2Im with respect to its input: convolutions of dy.

Sources: ONNX operator specifications ConvTranspose-11, Col2Im-18.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_gradcam.gradients.conv_weight import Windows, bias_gradient, weight_gradient
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering
from onnx_gradcam.gradients.sizes import size_of
from onnx_gradcam.gradients.windows import static


@gradient("ConvTranspose")
def _conv_transpose(ctx: Context) -> Gradients:
    return _conv_transpose_gradients(ctx, (ctx.dy, *ctx.inputs[:2]), ctx.wanted)


@lowering("ConvTransposeGrad")
def _lower_conv_transpose_grad(ctx: Context) -> list[str]:
    """com.microsoft.ConvTransposeGrad(dY, X, W): dX, dW, dB, as far as they have names."""
    results = _conv_transpose_gradients(ctx, ctx.inputs, [bool(name) for name in ctx.outputs])
    return [result or "" for result in results]


def _conv_transpose_gradients(
    ctx: Context, tensors: Sequence[str], wanted: Sequence[bool]
) -> list[str | None]:
    """Return those of dx, dw and db that are wanted, from dy, x and the weights."""
    dy, x, weight = tensors[:3]
    formulas: tuple[Callable[[], str], ...] = (
        lambda: conv_transpose_gradient(ctx, dy, x, weight),
        lambda: _weight_gradient(ctx, dy, x, weight),
        lambda: bias_gradient(ctx, dy, weight),
    )
    return [formula() if want else None for formula, want in zip(formulas, wanted, strict=False)]


def _weight_gradient(ctx: Context, dy: str, x: str, weight: str) -> str:
    """Return dL/dW of y = ConvTranspose(x, weight): that of a Conv that makes x of dy.

    Raises:
        FormulaError: the kernel's size, or a padding, is not known at export.
    """
    channels, *kernel = ctx.static_sizes(weight, 1)
    strides = ctx.attribute("strides", [1] * len(kernel))
    dilations = ctx.attribute("dilations", [1] * len(kernel))
    axes = _axes(ctx, x, kernel, strides, dilations)
    pads = [axis.begin for axis in axes] + [max(0, axis.behind) for axis in axes]
    windows = Windows(kernel, strides, dilations, pads, int(ctx.attribute("group", 1)))
    return weight_gradient(ctx, x, dy, channels, windows)


@dataclass(frozen=True)
class _Axis:
    """One spatial axis of a transposed convolution; the begin padding, and where the result ends.

    Attributes:
        begin: how much is cut off before.
        behind: how much is cut off behind; negative where zeros are appended.
    """

    begin: int
    behind: int


def conv_transpose_gradient(ctx: Context, dy: str, x: str, weight: str) -> str:
    """Return dL/dx of y = ConvTranspose(x, weight): dx[i] = sum_k W[k] dy[i s + k d - begin].

    Args:
        ctx: context of the node, or of the ConvTransposeGrad node, which has the same attributes.
        dy: dL/dy, ``(N, M, *out)``.
        x: the input, ``(N, C, *in)``; only its shape is used.
        weight: ``(C, M / group, *kernel)``, just as a Conv from M to C channels takes it.

    Raises:
        FormulaError: output_shape is given, and a size that it depends on is not known at export;
            or more is appended than onnxruntime takes.
    """
    kernel = ctx.static_sizes(weight, 2)
    rank = len(kernel)
    strides = ctx.attribute("strides", [1] * rank)
    dilations = ctx.attribute("dilations", [1] * rank)
    axes = _axes(ctx, x, kernel, strides, dilations)
    # the last window of the Conv ends where that of x does, or less than a stride before dy ends
    ends = [max(0, axis.behind) for axis in axes]
    if any(s + axis.behind <= 0 for s, axis in zip(strides, axes, strict=True)):
        raise FormulaError("an output_padding of a stride or more is not covered")
    return ctx.emit.conv(
        dy,
        weight,
        kernel_shape=kernel,
        strides=list(strides),
        dilations=list(dilations) if any(d > 1 for d in dilations) else None,
        pads=[axis.begin for axis in axes] + ends,
        group=int(ctx.attribute("group", 1)),
    )


def _axes(
    ctx: Context, x: str, kernel: list[int], strides: list[int], dilations: list[int]
) -> list[_Axis]:
    rank = len(kernel)
    pads = ctx.attribute("pads", [0] * (2 * rank))
    extra = ctx.attribute("output_padding", [0] * rank)
    auto_pad = ctx.attribute("auto_pad", "NOTSET") or "NOTSET"
    wanted = ctx.attribute("output_shape")
    result = []
    for i in range(rank):
        span = dilations[i] * (kernel[i] - 1) + 1 + extra[i]
        if wanted:
            count = static(size_of(ctx.emit, x, 2 + i))
            total = (count - 1) * strides[i] + span - wanted[len(wanted) - rank + i]
        elif auto_pad.startswith("SAME"):
            total = span - strides[i]
        else:
            begin, end = (0, 0) if auto_pad == "VALID" else (pads[i], pads[rank + i])
            result.append(_Axis(begin, end - extra[i]))
            continue
        if total < 0:
            raise FormulaError("its output_shape is longer than what the windows cover")
        begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
        result.append(_Axis(begin, total - begin - extra[i]))
    return result


@gradient("Col2Im")
def _col2im(ctx: Context) -> Gradients:
    """Take the blocks out of dy again: a convolution whose k-th kernel picks element k."""
    emit, (x, image_shape) = ctx.emit, ctx.inputs[:2]
    block = [int(n) for n in ctx.constant(2, "block shape").reshape(-1)]
    count = math.prod(block)
    known = emit.value(image_shape)
    if known is None:
        image = emit.concat([emit.ints([-1, 1]), image_shape], 0)
    else:
        image = emit.ints([-1, 1, *known.reshape(-1).tolist()])
    picks = emit.filled(np.eye(count).reshape(count, 1, *block), x)
    names = ("dilations", "pads", "strides")
    blocks = emit.conv(
        emit.reshape(ctx.dy, image),
        picks,
        kernel_shape=block,
        **{n: ctx.attribute(n) for n in names},
    )
    return [emit.reshape_like(blocks, x)]
