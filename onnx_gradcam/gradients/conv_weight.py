"""Gradients of Conv and ConvTranspose with respect to their weights and bias.

What lies under the k-th element of a window moves by `dilation` from k to k + 1, and by `stride`
from one window to the next. So dW is itself a convolution, of x with dy as its kernel, where
images and channels, strides and dilations have changed places.
Sources: ONNX operator specifications Conv-11 and ConvTranspose-11.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx_gradcam.gradients.registry import Context
from onnx_gradcam.gradients.sizes import product_of, reshape, sizes_of


@dataclass(frozen=True)
class Windows:
    """How windows lie on a map, along all of its axes.

    Attributes:
        kernel: elements of a window.
        strides: distances between windows.
        dilations: distances between the elements of a window.
        pads: paddings before all axes, then behind; the last window may end before the padding.
        group: number of groups of channels.
    """

    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    pads: Sequence[int]
    group: int

    @property
    def are_positions(self) -> bool:
        """Return whether each window is one position, and there is one for each."""
        return not any(self.pads) and all(n == 1 for n in (*self.kernel, *self.strides))


def weight_gradient(ctx: Context, dy: str, x: str, channels: int, windows: Windows) -> str:
    """Return dW[m, c, k] = sum_{n, o} dy[n, m, o] x[n, c, o stride - begin + k dilation].

    Args:
        ctx: the node's context.
        dy: ``(N, M, *windows)``.
        x: ``(N, C, *in)``; output m meets the channels of its group alone.
        channels: of a group, C / group; the result is ``(M, C / group, *kernel)``.
        windows: where they lie on x.
    """
    if windows.are_positions:
        return _matrix_product(ctx, dy, x, channels, windows)
    emit, rank, group = ctx.emit, len(windows.kernel), windows.group
    spatial = list(range(3, 3 + rank))
    sizes = sizes_of(emit, x, range(2, 2 + rank))
    if group > 1:
        x = emit.transpose(reshape(emit, x, [0, group, channels, *sizes]), [2, 1, 0, *spatial])
        x = reshape(emit, x, [channels, -1, *sizes])  # (C / group, group N, *in)
    else:
        x = _exchanged(ctx, x, rank)
    dilations = windows.strides if any(n > 1 for n in windows.strides) else None
    result = emit.node(
        "Conv",
        [x, _exchanged(ctx, dy, rank)],
        strides=list(windows.dilations),
        dilations=None if dilations is None else list(dilations),
        pads=list(windows.pads),
        group=group,
    )
    # behind the last window lies less than a stride, which counts as elements of the kernel
    axes = [i for i in range(rank) if windows.strides[i] > 1]
    if axes:
        ends = [windows.kernel[i] for i in axes]
        result = emit.slice(result, [0] * len(axes), ends, [2 + i for i in axes])
    return _exchanged(ctx, result, rank)


def _exchanged(ctx: Context, x: str, rank: int) -> str:
    return ctx.emit.transpose(x, [1, 0, *range(2, 2 + rank)])


def _matrix_product(ctx: Context, dy: str, x: str, channels: int, windows: Windows) -> str:
    """Return dW of windows of one position: dy times x transposed, per image and group.

    Measured on onnxruntime's CPU provider, that is two to nine times faster than the convolution.
    """
    emit, rank, group = ctx.emit, len(windows.kernel), windows.group
    positions = product_of(sizes_of(emit, x, range(2, 2 + rank)))
    left = reshape(emit, dy, [0, group, -1, positions])
    right = reshape(emit, x, [0, group, channels, positions])
    product = emit.matmul(left, emit.transpose(right, [0, 1, 3, 2]))
    total = emit.reduce_sum(product, [0], keepdims=False)
    return emit.reshape(total, [-1, channels, *windows.kernel])


def bias_gradient(ctx: Context, dy: str, weight: str) -> str:
    """Return db ``(M,)``: the sum of dy ``(N, M, *out)`` over images and positions."""
    rank = len(ctx.shape(weight))
    return ctx.emit.reduce_sum(dy, [0, *range(2, rank)], keepdims=False)
