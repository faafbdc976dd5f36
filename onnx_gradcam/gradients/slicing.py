"""Gradients of operators that take a part of a tensor: Slice, Concat, Split.

Sources: ONNX operator specifications Slice-13, Concat-13, Split-18.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import TensorProto

from onnx_gradcam.gradients.emitter import TO_THE_END, Dim, Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering
from onnx_gradcam.gradients.sizes import (
    Length,
    Size,
    cut,
    element,
    larger,
    pad,
    reshape,
    size_of,
    smaller,
)


@gradient("Concat")
def _concat(ctx: Context) -> Gradients:
    """Cut dy into the parts; the bounds are counted from the end behind an unknown size."""
    axis = ctx.attribute("axis", 1) % len(ctx.shape(ctx.outputs[0]))
    emit = ctx.emit
    sizes = [size_of(emit, name, axis) for name in ctx.inputs]
    results: list[str | None] = []
    for i, size in enumerate(sizes):
        start, behind = _total(sizes[:i]), _total(sizes[i + 1 :])
        end = start + size
        if isinstance(end, Length) and isinstance(behind, int):
            start = -(behind + size) if isinstance(size, int) else start
            end = -behind if behind else TO_THE_END
        results.append(cut(emit, ctx.dy, [start], [end], [axis]) if ctx.wanted[i] else None)
    return results


def _total(sizes: Sequence[Size]) -> Size:
    total: Size = 0
    for size in sizes:
        total = total + size
    return total


@gradient("Split")
def _split(ctx: Context) -> Gradients:
    emit = ctx.emit
    axis = ctx.attribute("axis", 0) % len(ctx.shape(ctx.inputs[0]))
    pieces = [
        g if g is not None else emit.zeros_like(y)
        for g, y in zip(ctx.output_gradients, ctx.outputs, strict=True)
    ]
    dx = pieces[0] if len(pieces) == 1 else emit.concat(pieces, axis)
    return [dx]


# -- Slice ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """What a Slice takes along one axis: numbers, or bounds computed at run time."""

    axis: int
    start: Size
    end: Size
    step: int

    @property
    def takes_all(self) -> bool:
        """Return whether nothing is left out, whatever the size."""
        whole = isinstance(self.end, int) and self.end >= TO_THE_END
        return isinstance(self.start, int) and self.start == 0 and whole and self.step == 1


@gradient("Slice", until=9)
def _slice_attributes(ctx: Context) -> Gradients:
    starts, ends = ctx.attribute("starts"), ctx.attribute("ends")
    rank = len(ctx.shape(ctx.inputs[0]))
    axes = ctx.attribute("axes", list(range(len(starts))))
    cuts = [Cut(a % rank, s, e, 1) for a, s, e in zip(axes, starts, ends, strict=True)]
    return [unslice(ctx, ctx.dy, ctx.inputs[0], cuts)]


@gradient("Slice", since=10)
def _slice_inputs(ctx: Context) -> Gradients:
    x = ctx.inputs[0]
    return [unslice(ctx, ctx.dy, x, _cuts(ctx, x, 1))]


@lowering("SliceGrad")
def _lower_slice_grad(ctx: Context) -> list[str]:
    """com.microsoft.SliceGrad(dY, Shape(X), starts, ends, axes, steps)."""
    x = ctx.differentiated
    return [unslice(ctx, ctx.inputs[0], x, _cuts(ctx, x, 2))]


def _cuts(ctx: Context, x: str, first: int) -> list[Cut]:
    """Return what a Slice takes whose starts are input `first`.

    Raises:
        FormulaError: its axes or steps are not constant.
    """
    starts, ends = (_bounds(ctx, first + i) for i in (0, 1))
    count = max(len(starts), len(ends))
    if ctx.has_input(first + 2):
        axes = [int(v) for v in ctx.constant(first + 2, "axis").reshape(-1)]
    elif count:
        axes = list(range(count))
    else:
        raise FormulaError("how many axes it slices is not known at export")
    steps = [1] * len(axes)
    if ctx.has_input(first + 3):
        steps = [int(v) for v in ctx.constant(first + 3, "step").reshape(-1)]
    starts, ends = (
        bounds or _computed(ctx, ctx.inputs[first + i], len(axes))
        for i, bounds in enumerate((starts, ends))
    )
    rank = len(ctx.shape(x))
    bounds = zip(axes, starts, ends, steps, strict=True)
    return [Cut(axis % rank, start, end, step) for axis, start, end, step in bounds]


def _bounds(ctx: Context, index: int) -> list[Size]:
    """Return bounds as far as they are constant: all, or none."""
    value = ctx.emit.value(ctx.inputs[index])
    if value is not None:
        return [int(v) for v in value.reshape(-1)]
    shape = ctx.emit.shape(ctx.inputs[index])
    return (
        _computed(ctx, ctx.inputs[index], shape[0]) if shape and isinstance(shape[0], int) else []
    )


def _computed(ctx: Context, name: str, count: int) -> list[Size]:
    emit = ctx.emit
    return [element(emit, lambda: emit.cast(name, TensorProto.INT64), i) for i in range(count)]


def unslice(ctx: Context, dy: str, x: str, cuts: Sequence[Cut]) -> str:
    """Return dy put back where the slices took it from x, zeros elsewhere.

    Raises:
        FormulaError: a size known at run time only, in an opset that cannot work it out.
    """
    emit, rank = ctx.emit, len(ctx.shape(x))
    cuts = [c for c in cuts if not c.takes_all]
    if emit.opset < 10 and any(not isinstance(size_of(emit, x, c.axis), int) for c in cuts):
        return _unslice_by_concat(ctx, dy, x, cuts)
    begins: list[Size] = [0] * rank
    tails: list[Size] = [0] * rank
    strides: dict[int, int] = {}
    y_shape = list(ctx.shape(x))
    for c in cuts:
        size = size_of(emit, x, c.axis)
        if isinstance(size, int) and isinstance(c.start, int) and isinstance(c.end, int):
            taken = range(size)[c.start : c.end : c.step]
            first = min(taken, default=0)
            dy = dy if c.step > 0 else emit.reversed(dy, c.axis, len(taken))
            begins[c.axis], tails[c.axis] = first, size - first - len(taken) * abs(c.step)
            y_shape[c.axis] = len(taken)
        else:
            y_shape[c.axis] = None
            count = _length(emit, dy, c.axis)
            dy = dy if c.step > 0 else _reversed(emit, dy, c.axis)
            begins[c.axis], tails[c.axis] = _around(c, size, count)
        strides[c.axis] = abs(c.step)
    stuffed = zero_stuff(emit, dy, y_shape, strides)
    computed = [axis for axis, begin in enumerate(begins) if isinstance(begin, Length)]
    computed += [axis for axis, tail in enumerate(tails) if isinstance(tail, Length)]
    surplus = [1 - strides.get(axis, 1) if axis in computed else 0 for axis in range(rank)]
    return pad(emit, emit.pad(stuffed, [0] * rank + surplus), [*begins, *tails])


def _length(emit: Emitter, dy: str, axis: int) -> Length:
    return element(emit, lambda: emit.node("Shape", [dy]), axis)


def _reversed(emit: Emitter, x: str, axis: int) -> str:
    bounds = [emit.ints([v]) for v in (-1, -(2**63) + 1, axis, -1)]
    return emit.node("Slice", [x, *bounds])


def _around(c: Cut, size: Size, count: Length) -> tuple[Size, Size]:
    """Return how much of x lies before and behind the elements that were taken.

    They span (count - 1) |step| + 1; numbers are kept where the bounds say them.
    """
    span = (count - 1) * abs(c.step) + 1
    before: Size
    if c.step < 0:
        before = smaller(_from_start(c.start, size), size - 1) + 1 - span
    elif isinstance(c.start, int) and c.start >= 0:
        before = c.start
        if c.step == 1 and isinstance(c.end, int) and c.end < 0:
            return before, -c.end
    else:
        before = smaller(larger(_from_start(c.start, size), 0), size)
    return before, size - before - span


def _from_start(bound: Size, size: Size) -> Size:
    """Return a bound counted from the start; negative ones count from the end."""
    if isinstance(bound, int):
        return bound if bound >= 0 else size + bound
    emit = bound.emit

    def write() -> str:
        negative = emit.less(bound.name, emit.ints([0]))
        return emit.where(negative, (bound + size).name, bound.name)

    return Length(emit, write)


def _unslice_by_concat(ctx: Context, dy: str, x: str, cuts: Sequence[Cut]) -> str:
    """Return the same where Pad takes no computed widths: zeros in the shape of what was left out.

    Raises:
        FormulaError: a bound is computed, too, or a step is not one.
    """
    emit = ctx.emit
    for i, c in reversed(list(enumerate(cuts))):
        if not isinstance(c.start, int) or not isinstance(c.end, int) or c.step != 1:
            raise FormulaError("a computed bound, or a step, of unknown size needs opset 10")
        source = x
        for outer in cuts[:i]:  # those axes are put back later
            source = cut(emit, source, [outer.start], [outer.end], [outer.axis])
        parts = [dy]
        if c.start != 0:
            parts.insert(0, emit.zeros_like(emit.slice(source, [0], [c.start], [c.axis])))
        if c.end < TO_THE_END:
            parts.append(emit.zeros_like(emit.slice(source, [c.end], [TO_THE_END], [c.axis])))
        dy = emit.concat(parts, c.axis)
    return dy


def zero_stuff(
    emit: Emitter, x: str, shape: Sequence[Dim | Size], strides: Mapping[int, int]
) -> str:
    """Return x with `stride - 1` zeros after every element along the given axes.

    Args:
        emit: where to write nodes.
        x: tensor to spread.
        shape: its shape, as far as it is known at export.
        strides: axis -> stride; strides of one change nothing.
    """
    axes = {axis: stride for axis, stride in sorted(strides.items()) if stride > 1}
    if not axes:
        return x
    sizes: list[Size] = []
    for axis, known in enumerate(shape):
        copied = axis < min(axes)  # a Reshape's 0 copies
        unknown = 0 if copied else _length(emit, x, axis)
        sizes.append(known if isinstance(known, (int, Length)) else unknown)
    split: list[Size] = []
    pads: list[int] = []
    merged: list[Size] = []
    for axis, size in enumerate(sizes):
        split += [size, 1] if axis in axes else [size]
        pads += [0, axes[axis] - 1] if axis in axes else [0]
        merged.append(size * axes.get(axis, 1))
    spread = emit.pad(reshape(emit, x, split), [0] * len(pads) + pads)
    return reshape(emit, spread, merged)
