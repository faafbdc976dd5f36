"""The forms between which the gradients of convolutions and poolings were chosen.

Each writes dL/dx of a node with square windows; `tools/measure_lowering.py` compares them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from onnx_gradcam.gradients import conv, max_pooling, pooling, sub_pixel
from onnx_gradcam.gradients.registry import Context
from onnx_gradcam.gradients.slicing import zero_stuff
from onnx_gradcam.gradients.windows import Axis, window_axes


@dataclass(frozen=True)
class Case:
    """A square 2-D convolution or pooling: channels in and out, size, kernel, stride, groups."""

    name: str
    channels: int
    outputs: int
    size: int
    kernel: int
    stride: int = 1
    group: int = 1

    @property
    def pad(self) -> int:
        """Return the padding on every side."""
        return self.kernel // 2 if self.kernel % 2 and self.kernel < self.size else 0

    @property
    def outputs_size(self) -> int:
        """Return the size of y."""
        return (self.size + 2 * self.pad - self.kernel) // self.stride + 1

    @property
    def weight(self) -> tuple[int, ...]:
        """Return the shape of the weights."""
        return (self.outputs, self.channels // self.group, self.kernel, self.kernel)

    @property
    def dy(self) -> tuple[int, ...]:
        """Return the shape of dy."""
        return (1, self.outputs, self.outputs_size, self.outputs_size)


@dataclass(frozen=True)
class Form:
    """One way to write a gradient.

    Attributes:
        write: it.
        takes: for which cases it is there.
    """

    write: Callable[[Context, Case], str]
    takes: Callable[[Case], bool] = lambda _: True

    def __call__(self, ctx: Context, case: Case) -> str:
        """Write dL/dx."""
        return self.write(ctx, case)


def _axes(ctx: Context, case: Case) -> list[Axis]:
    return window_axes(ctx, "x", [case.kernel] * 2)


# -- convolutions ------------------------------------------------------------------------------


def _transposed(ctx: Context, case: Case) -> str:
    return conv._conv_transpose(ctx, "dy", "w", case.group, _axes(ctx, case))


def _one_conv(ctx: Context, case: Case) -> str:
    axes = _axes(ctx, case)
    strides = {2 + i: axis.stride for i, axis in enumerate(axes)}
    spread = zero_stuff(ctx.emit, "dy", case.dy, strides)
    dense = [replace(axis, stride=1, end=axis.stride - 1 - axis.missing) for axis in axes]
    return conv._flipped_conv(ctx, spread, "w", list(case.weight), case.group, dense)


def _phases(ctx: Context, case: Case) -> str:
    weight = conv._swapped(ctx, "w", list(case.weight), case.group)
    return sub_pixel.convolutions(ctx, "dy", weight, case.group, _axes(ctx, case))


def _depth_to_space(ctx: Context, case: Case) -> str:
    """Return the phases of one convolution; its kernel is of the weights, and zeros around them."""
    emit, stride = ctx.emit, case.stride
    axis = _axes(ctx, case)[0]
    weight = conv._swapped(ctx, "w", list(case.weight), case.group)
    taps = [sub_pixel.taps(axis, phase) for phase in range(stride)]
    begin = max(t.begin for t in taps if t)
    end = max(t.end for t in taps if t)
    kernels = []
    for down, along in itertools.product(taps, taps):
        part = weight
        both = [t or sub_pixel.Taps([0], 1, begin, end) for t in (down, along)]
        for i, t in enumerate(both):
            part = emit.node("Gather", [part, emit.ints(t.elements)], axis=2 + i)
        part = emit.mul(part, 0.0) if None in (down, along) else part
        befores, behinds = [begin - t.begin for t in both], [end - t.end for t in both]
        kernels.append(emit.unsqueeze(emit.pad(part, [0, 0, *befores, 0, 0, *behinds]), [1]))
    size = begin + end + case.outputs_size - case.size // stride + 1
    shape = [case.channels * stride**2, case.outputs // case.group, size, size]
    together = emit.reshape(emit.concat(kernels, 1), shape)
    pads = [begin, begin, end, end]
    result = emit.conv("dy", together, pads=pads, kernel_shape=shape[2:], group=case.group)
    return emit.node("DepthToSpace", [result], blocksize=stride, mode="CRD")


def _exported_conv(ctx: Context, _: Case) -> str:
    return conv.conv_input_gradient(ctx, "dy", "x", "w")


# -- poolings ----------------------------------------------------------------------------------


def _positions(ctx: Context, case: Case) -> str:
    """Return the gradient of MaxPool, one position of all windows after the other."""
    emit, axes = ctx.emit, _axes(ctx, case)
    lowest = float(np.finfo(np.float32).min)
    ends = [-int(axis.missing) if isinstance(axis.missing, int) else 0 for axis in axes]
    covered = emit.pad("x", [0, 0, case.pad, case.pad, 0, 0, *ends], lowest)
    dy, shares = "dy", []
    for offset in itertools.product(range(case.kernel), repeat=2):
        bounds = [
            emit.ints(offset),
            emit.ints([k + (case.outputs_size - 1) * case.stride + 1 for k in offset]),
            emit.ints([2, 3]),
            emit.ints([case.stride] * 2),
        ]
        equal = emit.node("Equal", [emit.node("Slice", [covered, *bounds]), "y"])
        shares.append(emit.mul(emit.cast(equal, 1), dy))
        dy = emit.sub(dy, shares[-1])
    stack = emit.concat([emit.unsqueeze(share, [2]) for share in shares], 2)
    stack = emit.reshape(stack, [-1, len(shares), *case.dy[2:]])
    places = emit.filled(np.eye(len(shares)).reshape(-1, 1, case.kernel, case.kernel), "x")
    spread = conv._conv_transpose(ctx, stack, places, 1, axes)
    return emit.reshape(spread, [1, case.channels, case.size, case.size])


def _exported_max_pool(ctx: Context, _: Case) -> str:
    return max_pooling.max_pool_gradient(ctx, "dy", "x", "y")


def _ones(ctx: Context, case: Case, value: float) -> str:
    return ctx.emit.filled(np.full([case.channels, 1, case.kernel, case.kernel], value), "x")


def _share(ctx: Context, case: Case) -> str:
    """Return dy divided by the size of its windows."""
    share = pooling._weights(ctx, "x", pooling.pooled_axes(ctx, "x", "y"))
    return ctx.emit.mul("dy", share)


def _transposed_ones(ctx: Context, case: Case) -> str:
    weights = _ones(ctx, case, 1.0)
    axes = _axes(ctx, case)
    return conv._conv_transpose(ctx, _share(ctx, case), weights, case.channels, axes)


def _phases_of_ones(ctx: Context, case: Case) -> str:
    weights = _ones(ctx, case, 1.0)
    axes = _axes(ctx, case)
    return sub_pixel.convolutions(ctx, _share(ctx, case), weights, case.channels, axes)


def _pad_and_pool(ctx: Context, case: Case) -> str:
    emit, width = ctx.emit, case.kernel - 1 - case.pad
    padded = emit.pad(_share(ctx, case), [0, 0, width, width, 0, 0, width, width])
    scaled = emit.mul(padded, float(case.kernel**2))
    return emit.node("AveragePool", [scaled], kernel_shape=[case.kernel] * 2)


def _exported_average_pool(ctx: Context, _: Case) -> str:
    return pooling.average_pool_gradient(ctx, "dy", "x", "y")


def _dividing(case: Case) -> bool:
    return case.size % case.stride == 0


FORMS: dict[str, dict[str, Form]] = {
    "Conv": {
        "ConvTranspose": Form(_transposed),
        "Conv": Form(_one_conv),
        "exported": Form(_exported_conv),
    },
    "strided Conv": {
        "ConvTranspose": Form(_transposed),
        "Conv": Form(_one_conv),
        "DepthToSpace": Form(_depth_to_space, _dividing),
        "phases": Form(_phases),
        "exported": Form(_exported_conv),
    },
    "MaxPool": {
        "positions": Form(_positions),
        "exported": Form(_exported_max_pool),
    },
    "AveragePool": {
        "ConvTranspose": Form(_transposed_ones),
        "phases": Form(_phases_of_ones, lambda case: 1 < case.stride < case.size),
        "Pad, AveragePool": Form(_pad_and_pool, lambda case: case.stride == 1),
        "exported": Form(_exported_average_pool),
    },
}
"""Per operator: the forms; what the export emits last."""
