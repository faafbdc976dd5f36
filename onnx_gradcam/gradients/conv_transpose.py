"""Gradient of ConvTranspose with respect to its input: a Conv of dy with the same weights.

Source: ONNX operator specification ConvTranspose-11.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering
from onnx_gradcam.gradients.sizes import size_of
from onnx_gradcam.gradients.windows import static


@gradient("ConvTranspose")
def _conv_transpose(ctx: Context) -> Gradients:
    dx = conv_transpose_gradient(ctx, ctx.dy, ctx.inputs[0], ctx.inputs[1])
    return [dx]


@lowering("ConvTransposeGrad")
def _lower_conv_transpose_grad(ctx: Context) -> list[str]:
    """com.microsoft.ConvTransposeGrad(dY, X, W)."""
    dy, x, weight = ctx.inputs[:3]
    return [conv_transpose_gradient(ctx, dy, x, weight)]


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
        FormulaError: output_shape is given, and a size that it depends on is not known at export.
    """
    kernel = ctx.static_sizes(weight, 2)
    rank = len(kernel)
    strides = ctx.attribute("strides", [1] * rank)
    dilations = ctx.attribute("dilations", [1] * rank)
    axes = _axes(ctx, x, kernel, strides, dilations)
    # the windows of a Conv end where those of x do, if zeros or a cut make up for `behind`
    ends = [max(0, axis.behind) for axis in axes]
    surplus = [max(0, -axis.behind) for axis in axes]
    crop = [-n if n >= s else 0 for n, s in zip(surplus, strides, strict=True)]
    dilated = any(d > 1 for d in dilations)
    return ctx.emit.conv(
        ctx.emit.pad(dy, [0] * (2 + rank) + [0, 0, *crop]),
        weight,
        kernel_shape=kernel,
        strides=list(strides),
        dilations=list(dilations) if dilated else None,
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
