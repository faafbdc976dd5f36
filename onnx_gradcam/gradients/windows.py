"""Where the windows of a convolution or pooling lie: strides, dilations, paddings, rounding.

Per spatial axis: window o covers the positions o * stride - begin + k * dilation, k < kernel.
Sources: ONNX operator specifications Conv-11, MaxPool-12, AveragePool-19.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError
from onnx_gradcam.gradients.sizes import Length, Size, larger, sizes_of, smaller


@dataclass(frozen=True)
class Axis:
    """Windows along one spatial axis.

    Sizes may be known at run time only, and the paddings that depend on them (auto_pad).

    Attributes:
        kernel: elements of a window.
        stride: distance between windows.
        dilation: distance between the elements of a window.
        begin: padding before the map.
        end: padding behind it.
        size: of the map.
        ceil: whether a last window may reach beyond the end padding.
        windows: how many there are, where a result has that size.
    """

    kernel: int
    stride: int
    dilation: int
    begin: Size
    end: Size
    size: Size
    ceil: bool = False
    windows: Size | None = None

    @property
    def reach(self) -> int:
        """Return the distance between the first and last position of a window."""
        return self.dilation * (self.kernel - 1)

    @property
    def is_static(self) -> bool:
        """Return whether everything is known at export."""
        return not any(
            isinstance(size, Length) for size in (self.size, self.begin, self.end, self.windows)
        )

    @cached_property
    def count(self) -> Size:
        """The number of windows (the output size)."""
        if self.windows is not None:
            return self.windows
        room = self.size + self.begin + self.end - self.reach - 1
        if not self.ceil:
            return room // self.stride + 1
        # a window that would start in the end padding is dropped (ONNX since opset 19, and
        # what onnxruntime and PyTorch always did)
        rounded_up = (room + (self.stride - 1)) // self.stride
        return smaller(rounded_up, (self.size + self.begin - 1) // self.stride) + 1

    @cached_property
    def missing(self) -> Size:
        """How far the input ends behind (positive) or before the last window's end.

        Counted without the begin padding; for stride one it follows from the padding alone.
        """
        if self.stride == 1 and not self.ceil:
            return 0 - self.end
        span = (self.count - 1) * self.stride + 1 + self.reach
        return self.size + self.begin - span


def static(size: Size) -> int:
    """Return a size that has to be known at export.

    Raises:
        FormulaError: it is not.
    """
    if not isinstance(size, int):
        raise FormulaError("a spatial size is not known at export; fix the input's size")
    return size


def window_axes(ctx: Context, x: str, kernel: list[int]) -> list[Axis]:
    """Return the windows of the node along every spatial axis of its input x (N, C, *spatial)."""
    rank = len(kernel)
    sizes = sizes_of(ctx.emit, x, range(2, 2 + rank))
    strides = ctx.attribute("strides", [1] * rank)
    dilations = ctx.attribute("dilations", [1] * rank)
    pads = ctx.attribute("pads", [0] * (2 * rank))
    auto_pad = ctx.attribute("auto_pad", "NOTSET") or "NOTSET"
    ceil = bool(ctx.attribute("ceil_mode", 0))
    axes = []
    for i in range(rank):
        begin, end = pads[i], pads[rank + i]
        if auto_pad != "NOTSET":
            begin, end = _auto_pads(auto_pad, sizes[i], kernel[i], strides[i], dilations[i])
        axes.append(Axis(kernel[i], strides[i], dilations[i], begin, end, sizes[i], ceil))
    return axes


def _auto_pads(
    auto_pad: str, size: Size, kernel: int, stride: int, dilation: int
) -> tuple[Size, Size]:
    reach = dilation * (kernel - 1)
    if auto_pad == "VALID":
        return 0, 0
    total: Size = reach
    if stride > 1:
        windows = (size + (stride - 1)) // stride
        total = larger(0, windows * stride + (reach + 1 - stride) - size)
    small = total // 2
    return (small, total - small) if auto_pad == "SAME_UPPER" else (total - small, small)


def window_sum(
    emit: Emitter,
    x: str,
    kernel: Sequence[int],
    dilations: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    scale: float = 1.0,
) -> str:
    """Return the sums over all windows of x ``(N, C, *spatial)``, times a scale.

    The factor comes before the average: were x a Pad, onnxruntime 1.23 would fuse the two, and
    then compute something else (opset 19 to 21) or refuse to load the model (dilations).
    """
    dilated = dilations is not None and any(d > 1 for d in dilations)
    return emit.node(
        "AveragePool",
        [emit.mul(x, scale * math.prod(kernel))],
        kernel_shape=list(kernel),
        strides=list(strides or [1] * len(kernel)),
        dilations=list(dilations or ()) if dilated else None,
    )
