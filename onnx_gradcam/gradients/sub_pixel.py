"""The input gradient of a strided convolution as convolutions of stride one, one per phase.

Position ``stride * q + a`` of x takes part in window o through element k where
``stride * (o - q) = a + begin - k * dilation``. So the phase a of dL/dx is a convolution of dy
with every such element of the kernel, in reverse order; the phases are put side by side.
Together they multiply as often as the forward convolution does (Shi et al., arXiv 1609.07009).
Source: ONNX operator specification Conv-11.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.phases import put_together
from onnx_gradcam.gradients.registry import Context
from onnx_gradcam.gradients.windows import Axis, static

FEWEST_CHANNELS = 8
"""Of fewer channels onnxruntime has no fast convolution on common CPUs: it fills up blocks of 8."""


def is_faster(axes: Sequence[Axis], channels: int) -> bool:
    """Return whether this is faster than ConvTranspose (docs/lowering.md), and known at export.

    Windows that touch, but do not overlap, leave ConvTranspose nothing to sum: it is as good.
    """
    overlap = any(axis.kernel > axis.stride > 1 for axis in axes)
    single = all(axis.kernel == 1 for axis in axes)
    fast = channels >= FEWEST_CHANNELS and (overlap or single)
    return fast and all(axis.is_static for axis in axes)


@dataclass(frozen=True)
class Taps:
    """The elements of a kernel that one phase along one axis is convolved with.

    Attributes:
        elements: of the kernel, in the order of dy.
        dilation: distance between them in dy.
        begin: padding of dy before; negative where that much is cut off the result.
        end: padding of dy behind.
    """

    elements: list[int]
    dilation: int
    begin: int
    end: int


def phase_length(axis: Axis) -> int:
    """Return how many positions a phase has, the last ones perhaps behind the map."""
    return -(-static(axis.size) // axis.stride)


def taps(axis: Axis, phase: int) -> Taps | None:
    """Return what a phase is convolved with; None where no window reaches it."""
    found = {
        k: (phase + static(axis.begin) - k * axis.dilation) // axis.stride
        for k in range(axis.kernel)
        if (phase + static(axis.begin) - k * axis.dilation) % axis.stride == 0
    }
    if not found:
        return None
    elements = sorted(found, reverse=True)
    first, last = found[elements[0]], found[elements[-1]]
    return Taps(
        elements,
        dilation=axis.dilation // math.gcd(axis.dilation, axis.stride),
        begin=-first,
        end=phase_length(axis) + last - static(axis.count),
    )


def convolutions(ctx: Context, dy: str, weight: str, group: int, axes: Sequence[Axis]) -> str:
    """Return dL/dx.

    Args:
        ctx: the node's context.
        dy: dL/dy, ``(N, M, *out)``.
        weight: in and out channels swapped, ``(C, M / group, *kernel)``.
        group: number of groups of channels.
        axes: the windows, all of known sizes.
    """
    emit = ctx.emit
    per_axis = [[taps(axis, phase) for phase in range(axis.stride)] for axis in axes]
    phases = [
        _convolved(emit, dy, weight, group, [t for t in combination if t is not None])
        if None not in combination
        else None
        for combination in itertools.product(*per_axis)
    ]
    behind: list[int] = []
    for i, axis in reversed(list(enumerate(axes))):
        rows = [phases[k : k + axis.stride] for k in range(0, len(phases), axis.stride)]
        length = phase_length(axis)
        phases = [
            put_together(emit, row, 2 + i, length, behind) if any(row) else None for row in rows
        ]
        behind.insert(0, length * axis.stride)
    surplus = [static(axis.size) - length for axis, length in zip(axes, behind, strict=True)]
    return emit.pad(phases[0] or "", [0] * (4 + len(axes)) + surplus)


def _convolved(emit: Emitter, dy: str, weight: str, group: int, along: Sequence[Taps]) -> str:
    """Return one phase of dL/dx."""
    for i, t in enumerate(along):
        weight = emit.node("Gather", [weight, emit.ints(t.elements)], axis=2 + i)
    pads = [t.begin for t in along] + [t.end for t in along]
    dilations = [t.dilation for t in along]
    result = emit.conv(
        dy,
        weight,
        kernel_shape=[len(t.elements) for t in along],
        pads=[max(0, p) for p in pads],
        dilations=dilations if any(d > 1 for d in dilations) else None,
        group=group,
    )
    crop = [min(0, p) for p in pads]
    rank = len(along)
    return emit.pad(result, [0, 0, *crop[:rank], 0, 0, *crop[rank:]])
