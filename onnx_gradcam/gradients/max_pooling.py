"""Gradients of MaxPool and MaxUnpool.

Sources: ONNX operator specifications MaxPool-12, MaxUnpool-11.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from onnx import helper

from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.pooling import pooled_axes
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering
from onnx_gradcam.gradients.sizes import Size, cut, pad, reshape, sizes_of
from onnx_gradcam.gradients.windows import Axis, static


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

    Positions p are split into phase and block, p = block * stride + phase, so that the k-th
    positions of all windows are one contiguous slice of one phase. Going through the positions
    of a window in order, the first that is not less than the maximum takes dy, and nothing is
    left for later ones: ties go to the first, as in onnxruntime and PyTorch.
    """
    emit = ctx.emit
    axes = pooled_axes(ctx, x, y)
    rank = len(axes)
    surplus = [_surplus(axis) for axis in axes]
    blocks = [axis.count + more for axis, more in zip(axes, surplus, strict=True)]
    tails = [n * a.stride - a.begin - a.size for n, a in zip(blocks, axes, strict=True)]
    lowest = float(np.finfo(helper.tensor_dtype_to_np_dtype(emit.dtype(x))).min)
    padded = pad(emit, x, [0, 0, *(a.begin for a in axes), 0, 0, *tails], lowest)
    phases = _split_phases(emit, padded, axes, blocks)
    collected: dict[tuple[int, ...], list[str]] = {}
    remaining = dy
    offsets = list(itertools.product(*(range(a.kernel) for a in axes)))
    for number, offset in enumerate(offsets):
        position = [k * a.dilation for k, a in zip(offset, axes, strict=True)]
        phase = tuple(p % a.stride for p, a in zip(position, axes, strict=True))
        start = [p // a.stride for p, a in zip(position, axes, strict=True)]
        rest = [more - s for more, s in zip(surplus, start, strict=True)]
        values = emit.pad(phases[phase], [0, 0, *(-s for s in start), 0, 0, *(-r for r in rest)])
        lost = emit.less(values, y)
        share = emit.where(lost, 0.0, remaining)
        if number + 1 < len(offsets):
            remaining = emit.where(lost, remaining, 0.0)
        collected.setdefault(phase, []).append(emit.pad(share, [0, 0, *start, 0, 0, *rest]))
    merged = _merge_phases(emit, collected, x, axes, blocks)
    if all(axis.is_static for axis in axes):
        crop = [-static(n) for n in (*(a.begin for a in axes), *tails)]
        return emit.pad(merged, [0, 0, *crop[:rank], 0, 0, *crop[rank:]])
    ends = [axis.begin + axis.size for axis in axes]
    return cut(emit, merged, [axis.begin for axis in axes], ends, range(2, 2 + rank))


def _surplus(axis: Axis) -> int:
    """Return by how many the blocks of an axis exceed its windows.

    The padded length, blocks times stride, holds all windows and the whole map. Where the size of
    the map is not known, as many blocks are taken as any size may need.
    """
    held = axis.reach // axis.stride
    if isinstance(axis.count, int) and isinstance(axis.size, int) and isinstance(axis.begin, int):
        return max(held, -(-(axis.begin + axis.size) // axis.stride) - axis.count)
    if not isinstance(axis.end, int):  # SAME: the map is at most count * stride long
        return held
    return max(held, -((axis.end - axis.reach) // axis.stride))


def _split_phases(
    emit: Emitter, x: str, axes: list[Axis], blocks: Sequence[Size]
) -> dict[tuple[int, ...], str]:
    """Return per phase the tensor ``(N, C, *blocks)`` of the positions of that phase."""
    rank = len(axes)
    strides = [a.stride for a in axes]
    if all(s == 1 for s in strides):
        return {(0,) * rank: x}
    split: list[Size] = [0, 0]
    for block, stride in zip(blocks, strides, strict=True):
        split += [block, stride]
    block_axes = [2 + 2 * i for i in range(rank)]
    phase_axes = [3 + 2 * i for i in range(rank)]
    apart = emit.transpose(reshape(emit, x, split), [*phase_axes, 0, 1, *block_axes])
    result = {}
    for phase in itertools.product(*(range(s) for s in strides)):
        one = emit.slice(apart, phase, [i + 1 for i in phase], range(rank))
        result[phase] = emit.squeeze(one, range(rank))
    return result


def _merge_phases(
    emit: Emitter,
    collected: dict[tuple[int, ...], list[str]],
    x: str,
    axes: list[Axis],
    blocks: Sequence[Size],
) -> str:
    """Return the tensor whose phases are the sums of what was collected for each."""
    rank = len(axes)
    strides = [a.stride for a in axes]
    if all(s == 1 for s in strides):
        return emit.sum(collected[(0,) * rank])
    sums = {phase: emit.sum(values) for phase, values in collected.items()}
    some = next(iter(sums.values()))
    missing = None
    parts = []
    for phase in itertools.product(*(range(s) for s in strides)):
        if phase not in sums:
            missing = missing or emit.mul(some, 0.0)
        parts.append(emit.unsqueeze(sums.get(phase) or str(missing), [0]))
    stacked = reshape(emit, emit.concat(parts, 0), [*strides, *sizes_of(emit, x, [0, 1]), *blocks])
    perm = [rank, rank + 1]
    for i in range(rank):
        perm += [rank + 2 + i, i]
    together = emit.transpose(stacked, perm)
    return reshape(emit, together, [0, 0, *(b * s for b, s in zip(blocks, strides, strict=True))])


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
