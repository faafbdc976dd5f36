"""Gradients of Conv.

That with respect to the input is, of stride one, a Conv again, with flipped, transposed weights;
measured on onnxruntime's CPU provider (docs/lowering.md), that is faster than ConvTranspose,
depthwise many times. Of a larger stride it is several (`sub_pixel`) or, where that is not faster or
a size is not known, a ConvTranspose. Those with respect to weights and bias: `conv_weight`.
Source: ONNX operator specifications Conv-11 and ConvTranspose-11.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnx_gradcam.gradients import sub_pixel
from onnx_gradcam.gradients.conv_weight import Windows, bias_gradient, weight_gradient
from onnx_gradcam.gradients.registry import Context, Gradients, gradient, lowering
from onnx_gradcam.gradients.sizes import cut
from onnx_gradcam.gradients.windows import Axis, static, window_axes


@gradient("Conv")
def _conv(ctx: Context) -> Gradients:
    return _conv_gradients(ctx, (ctx.dy, *ctx.inputs[:2]), ctx.wanted)


@lowering("ConvGrad")
def _lower_conv_grad(ctx: Context) -> list[str]:
    """com.microsoft.ConvGrad(dY, X, W): dX, dW, dB, as far as they have names."""
    results = _conv_gradients(ctx, ctx.inputs, [bool(name) for name in ctx.outputs])
    return [result or "" for result in results]


def _conv_gradients(
    ctx: Context, tensors: Sequence[str], wanted: Sequence[bool]
) -> list[str | None]:
    """Return those of dx, dw and db that are wanted, from dy, x and the weights."""
    dy, x, weight = tensors[:3]
    formulas: tuple[Callable[[], str], ...] = (
        lambda: conv_input_gradient(ctx, dy, x, weight),
        lambda: _conv_weight_gradient(ctx, dy, x, weight),
        lambda: bias_gradient(ctx, dy, weight),
    )
    return [formula() if want else None for formula, want in zip(formulas, wanted, strict=False)]


def _conv_weight_gradient(ctx: Context, dy: str, x: str, weight: str) -> str:
    """Return dL/dW of y = Conv(x, weight).

    Raises:
        FormulaError: the kernel's size, or a padding, is not known at export.
    """
    channels, *kernel = ctx.static_sizes(weight, 1)
    axes = window_axes(ctx, x, kernel)
    windows = Windows(
        kernel,
        strides=[axis.stride for axis in axes],
        dilations=[axis.dilation for axis in axes],
        pads=[static(axis.begin) for axis in axes] + [static(axis.end) for axis in axes],
        group=int(ctx.attribute("group", 1)),
    )
    return weight_gradient(ctx, dy, x, channels, windows)


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
    return spread_windows(ctx, dy, weight, group, axes)


def spread_windows(ctx: Context, dy: str, weight: str, group: int, axes: list[Axis]) -> str:
    """Return the sum over all windows of what each gives to its positions: dy times the weights.

    Args:
        ctx: the node's context.
        dy: ``(N, M, *out)``.
        weight: ``(M, C / group, *kernel)``.
        group: number of groups of channels.
        axes: the windows.

    Raises:
        FormulaError: a size is known at run time only, and the opset is below 10.
    """
    sizes = ctx.static_sizes(weight)
    if sub_pixel.is_faster(axes, channels=group * sizes[1]):
        return sub_pixel.convolutions(ctx, dy, _swapped(ctx, weight, sizes, group), group, axes)
    if all(axis.is_static for axis in axes):
        return _conv_transpose(ctx, dy, weight, group, axes)
    return _conv_transpose_of_unknown_size(ctx, dy, weight, group, axes)


def _swapped(ctx: Context, weight: str, sizes: list[int], group: int) -> str:
    """Return (C, M / group, *kernel): in and out channels of (M, C / group, *kernel) swapped.

    Written as nodes on the weights, which onnxruntime folds at load, so that the exported file
    does not carry the weights twice.
    """
    emit = ctx.emit
    outs, ins, kernel = sizes[0] // group, sizes[1], sizes[2:]
    spatial = list(range(3, 3 + len(kernel)))
    if group == 1:
        return emit.transpose(weight, [1, 0, *(a - 1 for a in spatial)])
    if outs == 1 and ins == 1:
        return weight
    grouped = emit.reshape(weight, [group, outs, ins, *kernel])
    exchanged = emit.transpose(grouped, [0, 2, 1, *spatial])
    return emit.reshape(exchanged, [group * ins, outs, *kernel])


def _flipped(ctx: Context, weight: str, sizes: list[int], group: int) -> str:
    """Return (C, M / group, *kernel): in and out channels swapped, kernel reversed."""
    flipped = weight
    for i, size in enumerate(sizes[2:]):
        flipped = ctx.emit.reversed(flipped, 2 + i, size)
    return _swapped(ctx, flipped, sizes, group)


def _flipped_conv(
    ctx: Context, dy: str, weight: str, sizes: list[int], group: int, axes: list[Axis]
) -> str:
    """Return the stride-one convolution of dy with the flipped weights."""
    begins = [axis.reach - static(axis.begin) for axis in axes]
    ends = [axis.reach + static(axis.missing) for axis in axes]
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
    begins = [static(axis.begin) for axis in axes]
    ends = [-static(axis.missing) for axis in axes]
    pads = begins + [max(0, e) for e in ends]
    result = _conv_transpose_node(ctx, dy, weight, group, axes, pads)
    tails = [max(0, -e) for e in ends]
    return ctx.emit.pad(result, [0] * (2 + len(axes)) + [0, 0, *tails])


def _conv_transpose_of_unknown_size(
    ctx: Context, dy: str, weight: str, group: int, axes: list[Axis]
) -> str:
    """Return the same for sizes known at run time: too long, then cut to x.

    Raises:
        FormulaError: the opset is below 10, where Slice takes no computed bounds.
    """
    rank = len(axes)
    begins = [axis.begin if isinstance(axis.begin, int) else 0 for axis in axes]
    longest = _conv_transpose_node(ctx, dy, weight, group, axes, begins + [0] * rank)
    padded = ctx.emit.pad(longest, [0] * (2 + rank) + [0, 0, *(axis.stride - 1 for axis in axes)])
    starts = [0 if isinstance(axis.begin, int) else axis.begin for axis in axes]
    ends = [start + axis.size for start, axis in zip(starts, axes, strict=True)]
    return cut(ctx.emit, padded, starts, ends, list(range(2, 2 + rank)))


def _conv_transpose_node(
    ctx: Context, dy: str, weight: str, group: int, axes: list[Axis], pads: list[int]
) -> str:
    dilations = [axis.dilation for axis in axes]
    return ctx.emit.node(
        "ConvTranspose",
        [dy, weight],
        kernel_shape=[axis.kernel for axis in axes],
        strides=[axis.stride for axis in axes],
        dilations=dilations if any(d > 1 for d in dilations) else None,
        pads=pads,
        group=group,
    )
