"""Gradients of Pad, in all of its modes, and of CenterCropPad.

Sources: ONNX operator specifications Pad-21, CenterCropPad-18.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto

from onnx_gradcam.gradients.emitter import TO_THE_END
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient
from onnx_gradcam.gradients.sizes import Size, pad, size_of


@gradient("Pad", until=10)
def _pad_attributes(ctx: Context) -> Gradients:
    return [_unpad(ctx, ctx.attribute("pads"), list(range(len(ctx.shape(ctx.inputs[0])))))]


@gradient("Pad", since=11)
def _pad_inputs(ctx: Context) -> Gradients:
    pads = ctx.emit.value(ctx.inputs[1])
    if pads is None:
        return [_crop_at_run_time(ctx)]
    rank = len(ctx.shape(ctx.inputs[0]))
    axes = list(range(rank))
    if ctx.has_input(3):
        axes = [int(a) % rank for a in ctx.constant(3, "axes").reshape(-1)]
    return [_unpad(ctx, [int(p) for p in pads.reshape(-1)], axes)]


def _crop_at_run_time(ctx: Context) -> str:
    """Return dy padded by what the padding was, with the sign turned: Pad crops, too.

    Raises:
        FormulaError: it repeats values of x.
    """
    if ctx.attribute("mode", "constant") != "constant":
        raise FormulaError(f"its padding must be constant in mode {ctx.attribute('mode')!r}")
    emit = ctx.emit
    negative = emit.neg(emit.cast(ctx.inputs[1], TensorProto.INT64))
    inputs = [ctx.dy, negative, *(["", ctx.inputs[3]] if ctx.has_input(3) else [])]
    return emit.node("Pad", inputs, mode="constant")


def _unpad(ctx: Context, pads: Sequence[int], axes: Sequence[int]) -> str:
    """Crop dy; in other modes than ``constant`` what is cut off is added where it came from.

    Negative paddings cut off first: x -> Slice -> Pad.
    """
    emit, x, rank = ctx.emit, ctx.inputs[0], len(ctx.shape(ctx.inputs[0]))
    mode = ctx.attribute("mode", "constant")
    begins, ends = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        begins[axis], ends[axis] = pads[i], pads[len(axes) + i]
    if mode == "constant":
        return emit.pad(ctx.dy, [-p for p in begins + ends])
    dx = ctx.dy
    for axis in reversed(range(rank)):
        widths = max(0, begins[axis]), max(0, ends[axis])
        kept = size_of(emit, x, axis) + min(0, begins[axis]) + min(0, ends[axis])
        if any(widths):
            dx = _folded(ctx, dx, axis, widths, kept)
    return emit.pad(dx, [max(0, -p) for p in begins + ends])


def _folded(ctx: Context, dy: str, axis: int, widths: tuple[int, int], size: Size) -> str:
    """Return the middle of dy, with what was repeated from it added there.

    Raises:
        FormulaError: the padding is longer than what it repeats, or its mode is not known here.
    """
    emit, rank = ctx.emit, len(ctx.shape(ctx.inputs[0]))
    begin, end = widths
    mode = ctx.attribute("mode")
    # per border: its slice of dy, and how far from the begin or the end of x it came from
    near = 1 if mode == "reflect" else 0
    if mode not in {"reflect", "edge", "wrap"}:
        raise FormulaError(f"padding mode {mode!r} is not covered")
    if mode != "edge" and isinstance(size, int) and max(widths) > size - near:
        raise FormulaError(f"a padding of {max(widths)} repeats more than there is")
    total = pad(emit, dy, _along(axis, rank, -begin, -end))
    borders = [
        (begin, emit.slice(dy, [0], [begin], [axis]) if begin else "", mode != "wrap"),
        (end, emit.slice(dy, [-end], [TO_THE_END], [axis]) if end else "", mode == "wrap"),
    ]
    for width, border, at_begin in borders:
        if not width:
            continue
        if mode == "edge":
            border, width = emit.reduce_sum(border, [axis]), 1
        elif mode == "reflect":
            border = emit.reversed(border, axis, width)
        rest = size - width - near
        around = _along(axis, rank, *((near, rest) if at_begin else (rest, near)))
        total = emit.add(total, pad(emit, border, around))
    return total


def _along(axis: int, rank: int, begin: Size, end: Size) -> list[Size]:
    widths: list[Size] = [0] * (2 * rank)
    widths[axis], widths[rank + axis] = begin, end
    return widths


@gradient("CenterCropPad")
def _center_crop_pad(ctx: Context) -> Gradients:
    """What was cut off gets zeros, what was padded is cut off.

    Raises:
        FormulaError: a size is not known at export, so neither is which of the two it is.
    """
    emit, x, rank = ctx.emit, ctx.inputs[0], len(ctx.shape(ctx.inputs[0]))
    axes = [a % rank for a in ctx.attribute("axes", list(range(rank)))]
    wanted = [int(n) for n in ctx.constant(1, "shape").reshape(-1)]
    begins, ends = [0] * rank, [0] * rank
    for axis, target in zip(axes, wanted, strict=True):
        size = size_of(emit, x, axis)
        if not isinstance(size, int):
            raise FormulaError(f"the size of axis {axis} is not known at export")
        missing = size - target  # positive: cut off
        begins[axis] = missing // 2 if missing > 0 else -(-missing // 2)
        ends[axis] = missing - begins[axis]
    return [emit.pad(ctx.dy, begins + ends)]
