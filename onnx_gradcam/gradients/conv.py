"""Gradient of Conv with respect to its input.

Of stride one it is a Conv again, with flipped, transposed weights; measured on onnxruntime's CPU
provider (docs/lowering.md), that is faster than ConvTranspose, depthwise many times. Of a larger
stride it is a ConvTranspose: a Conv would have to run over the zeros between the elements of dy.
Source: ONNX operator specifications Conv-11 and ConvTranspose-11.
"""

from __future__ import annotations

from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering
from onnx_gradcam.gradients.windows import Axis, window_axes


@gradient("Conv")
def _conv(ctx: Context) -> Gradients:
    dx = conv_input_gradient(ctx, ctx.dy, ctx.inputs[0], ctx.inputs[1])
    return [dx]


@lowering("ConvGrad")
def _lower_conv_grad(ctx: Context) -> list[str]:
    dy, x, weight = ctx.inputs[:3]
    return [conv_input_gradient(ctx, dy, x, weight)]


def conv_input_gradient(ctx: Context, dy: str, x: str, weight: str) -> str:
    """Return dL/dx of y = Conv(x, weight).

    Args:
        ctx: context of the Conv node, or of the ConvGrad node, which has the same attributes.
        dy: dL/dy, ``(N, M, *out)``.
        x: the input, ``(N, C, *in)``; only its shape is used.
        weight: ``(M, C / group, *kernel)``.

    Raises:
        FormulaError: the weights' shape is not known at export.
    """
    sizes = ctx.static_sizes(weight)
    group = int(ctx.attribute("group", 1))
    axes = window_axes(ctx, x, sizes[2:])
    if all(axis.stride == 1 for axis in axes):
        return _flipped_conv(ctx, dy, weight, sizes, group, axes)
    if any(axis.size is None for axis in axes):
        return _conv_transpose_of_unknown_size(ctx, dy, x, weight, group, axes)
    return _conv_transpose(ctx, dy, weight, group, axes)


def _flipped(ctx: Context, weight: str, sizes: list[int], group: int) -> str:
    """Return (C, M / group, *kernel): in and out channels swapped, kernel reversed.

    Written as nodes on the weights, which onnxruntime folds at load, so that the exported file
    does not carry the weights twice.
    """
    emit = ctx.emit
    outs, ins, kernel = sizes[0] // group, sizes[1], sizes[2:]
    flipped = weight
    for i, size in enumerate(kernel):
        flipped = emit.reversed(flipped, 2 + i, size)
    spatial = list(range(3, 3 + len(kernel)))
    if group == 1:
        return emit.transpose(flipped, [1, 0, *(a - 1 for a in spatial)])
    if outs == 1 and ins == 1:
        return flipped
    grouped = emit.reshape(flipped, [group, outs, ins, *kernel])
    swapped = emit.transpose(grouped, [0, 2, 1, *spatial])
    return emit.reshape(swapped, [group * ins, outs, *kernel])


def _flipped_conv(
    ctx: Context, dy: str, weight: str, sizes: list[int], group: int, axes: list[Axis]
) -> str:
    """Return the stride-one convolution of dy with the flipped weights."""
    begins = [axis.reach - axis.begin for axis in axes]
    ends = [axis.reach + axis.missing for axis in axes]
    pads = begins + ends
    dilations = [axis.dilation for axis in axes]
    result = ctx.emit.conv(
        dy,
        _flipped(ctx, weight, sizes, group),
        kernel_shape=sizes[2:],
        pads=[max(0, p) for p in pads],
        dilations=dilations if any(d > 1 for d in dilations) else None,
        group=group,
    )
    crop = [min(0, p) for p in pads]
    rank = len(axes)
    return ctx.emit.pad(result, [0, 0, *crop[:rank], 0, 0, *crop[rank:]])


def _conv_transpose(ctx: Context, dy: str, weight: str, group: int, axes: list[Axis]) -> str:
    """Return ConvTranspose(dy, weight), its end paddings chosen so that the size of x results."""
    ends = [-axis.missing for axis in axes]
    result = _conv_transpose_node(ctx, dy, weight, group, axes, [max(0, e) for e in ends])
    tails = [max(0, -e) for e in ends]
    return ctx.emit.pad(result, [0] * (2 + len(axes)) + [0, 0, *tails])


def _conv_transpose_of_unknown_size(
    ctx: Context, dy: str, x: str, weight: str, group: int, axes: list[Axis]
) -> str:
    """Return the same for sizes known at run time: too long at the end, then cut to x.

    Raises:
        FormulaError: the opset is below 10, where Slice takes no computed bounds.
    """
    emit = ctx.emit
    if emit.opset < 10:
        raise FormulaError("a strided convolution of unknown size needs opset 10")
    rank = len(axes)
    longest = _conv_transpose_node(ctx, dy, weight, group, axes, [0] * rank)
    padded = emit.pad(longest, [0] * (2 + rank) + [0, 0, *(axis.stride - 1 for axis in axes)])
    spatial = list(range(2, 2 + rank))
    ends = emit.slice(emit.node("Shape", [x]), [2], [2 + rank], [0])
    return emit.slice(padded, [0] * rank, ends, spatial)


def _conv_transpose_node(
    ctx: Context, dy: str, weight: str, group: int, axes: list[Axis], ends: list[int]
) -> str:
    dilations = [axis.dilation for axis in axes]
    return ctx.emit.node(
        "ConvTranspose",
        [dy, weight],
        kernel_shape=[axis.kernel for axis in axes],
        strides=[axis.stride for axis in axes],
        dilations=dilations if any(d > 1 for d in dilations) else None,
        pads=[axis.begin for axis in axes] + ends,
        group=group,
    )
