"""Where the windows of a convolution or pooling lie: strides, dilations, paddings, rounding.

Per spatial axis: window o covers the positions o * stride - begin + k * dilation, k < kernel.
Sources: ONNX operator specifications Conv-11, MaxPool-12, AveragePool-19.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnx_gradcam.gradients.emitter import Dim, Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError


@dataclass(frozen=True)
class Axis:
    """Windows along one spatial axis; `size` is None where it is not known at export."""

    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int
    size: int | None
    ceil: bool = False

    @property
    def reach(self) -> int:
        """Return the distance between the first and last position of a window."""
        return self.dilation * (self.kernel - 1)

    @property
    def static_size(self) -> int:
        """Return the input size.

        Raises:
            FormulaError: it is not known at export.
        """
        if self.size is None:
            raise FormulaError("a spatial size is not known at export; fix the input's size")
        return self.size

    @property
    def count(self) -> int:
        """Return the number of windows (the output size)."""
        room = self.static_size + self.begin + self.end - self.reach - 1
        if not self.ceil:
            return room // self.stride + 1
        count = -(-room // self.stride) + 1
        # a window that would start in the end padding is dropped (ONNX since opset 19, and
        # what onnxruntime and PyTorch always did)
        if (count - 1) * self.stride >= self.static_size + self.begin:
            count -= 1
        return count

    @property
    def missing(self) -> int:
        """Return how far the input ends behind (positive) or before the last window's end.

        Counted without the begin padding; for stride one it follows from the padding alone.
        """
        if self.stride == 1 and not self.ceil:
            return -self.end
        span = (self.count - 1) * self.stride + 1 + self.reach
        return self.static_size + self.begin - span


def window_axes(ctx: Context, x: str, kernel: list[int]) -> list[Axis]:
    """Return the windows of the node along every spatial axis of its input x (N, C, *spatial).

    Raises:
        FormulaError: automatic padding depends on a size that is not known at export.
    """
    sizes: tuple[Dim, ...] = ctx.shape(x)[2:]
    rank = len(kernel)
    strides = ctx.attribute("strides", [1] * rank)
    dilations = ctx.attribute("dilations", [1] * rank)
    pads = ctx.attribute("pads", [0] * (2 * rank))
    auto_pad = ctx.attribute("auto_pad", "NOTSET") or "NOTSET"
    ceil = bool(ctx.attribute("ceil_mode", 0))
    axes = []
    for i in range(rank):
        known = sizes[i]
        size = known if isinstance(known, int) else None
        begin, end = pads[i], pads[rank + i]
        if auto_pad != "NOTSET":
            begin, end = _auto_pads(auto_pad, size, kernel[i], strides[i], dilations[i])
        axes.append(Axis(kernel[i], strides[i], dilations[i], begin, end, size, ceil))
    return axes


def _auto_pads(
    auto_pad: str, size: int | None, kernel: int, stride: int, dilation: int
) -> tuple[int, int]:
    reach = dilation * (kernel - 1)
    if auto_pad == "VALID":
        return 0, 0
    if stride == 1:
        total = reach
    elif size is None:
        raise FormulaError(f"auto_pad={auto_pad} with a stride needs a size known at export")
    else:
        total = max(0, (-(-size // stride) - 1) * stride + reach + 1 - size)
    small = total // 2
    return (small, total - small) if auto_pad == "SAME_UPPER" else (total - small, small)


def window_sum(
    emit: Emitter, x: str, kernel: Sequence[int], dilations: Sequence[int] | None = None
) -> str:
    """Return the sums over all windows of x ``(N, C, *spatial)``, with stride one.

    The factor comes before the average: were x a Pad, onnxruntime 1.23 would fuse the two, and
    then compute something else (opset 19 to 21) or refuse to load the model (dilations).
    """
    dilated = dilations is not None and any(d > 1 for d in dilations)
    return emit.node(
        "AveragePool",
        [emit.mul(x, float(math.prod(kernel)))],
        kernel_shape=list(kernel),
        strides=[1] * len(kernel),
        dilations=list(dilations or ()) if dilated else None,
    )
