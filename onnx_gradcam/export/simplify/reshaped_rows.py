"""Which rows of a reshaped tensor are the rows of what it was before; sizes known or symbolic."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_gradcam.export.shapes.sizes import Sizes
from onnx_gradcam.export.simplify.cut_rows import Rows
from onnx_gradcam.gradients.emitter import Dim

_SIZES = Sizes()


def reshaped(before: Sequence[Dim], after: Sequence[Dim], rows: Rows) -> Rows | None:
    """Return the rows behind a reshape; None where they are not rows of one axis there.

    The axis may stay, be joined with the one behind it, or be split off again.
    """
    lead = _SIZES.product(before[: rows.axis])
    whole = _SIZES.product([rows.total, rows.repeat])
    for axis in range(len(after)):
        if (
            lead is None
            or _SIZES.product(after[:axis]) != lead
            or (after[axis] == 1 and whole != 1)
        ):
            continue
        if after[axis] == whole:
            return Rows(axis, rows.begin, rows.count, rows.total, rows.repeat)
        if after[axis] == rows.total and rows.repeat != 1:
            behind = _SIZES.product(after[axis + 1 : axis + 2])
            return Rows(axis, rows.begin, rows.count, rows.total) if behind == rows.repeat else None
        joined = before[rows.axis + 1] if rows.axis + 1 < len(before) else None
        if rows.repeat == 1 and joined and after[axis] == _SIZES.product([rows.total, joined]):
            return Rows(axis, rows.begin, rows.count, rows.total, joined)
        return None
    return None


def core_sizes(shape: Sequence[Dim], rows: Rows, *, split: bool = False) -> list[int] | None:
    """Return the sizes of the rows of a tensor of this shape, as Reshape takes them.

    At most one may be open. With `split`, what each row stands for gets an axis of its own.
    """
    sizes: list[int] = []
    for axis, size in enumerate(shape):
        if axis != rows.axis:
            sizes.append(size if isinstance(size, int) else -1)
        elif isinstance(rows.repeat, int):
            sizes += [rows.count, rows.repeat] if split else [rows.count * rows.repeat]
        else:
            sizes += [rows.count, -1] if split else [-1]
    return sizes if sizes.count(-1) <= 1 else None
