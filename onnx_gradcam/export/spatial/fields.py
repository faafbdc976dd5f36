"""Arrays that say something about every element of a tensor, stored small.

A field has the rank of its tensor; an axis along which nothing changes has size one, whatever the
size of the tensor. A row number of a ``(1, 64, 56, 56)`` map is a ``(1, 1, 56, 1)`` field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]
Shape = tuple[int, ...]


def regroup(field: Field, old: Shape, new: Shape) -> Field:
    """Return the field of a tensor of shape `old` after it was reshaped to `new`.

    Axes that belong together (``(56, 56) -> (3136,)``) are written out only where one of them
    varies.

    Raises:
        ValueError: the shapes hold different numbers of elements.
    """
    if math.prod(old) != math.prod(new):
        raise ValueError(f"{old} cannot be reshaped to {new}")
    expanded: list[int] = []
    result: list[int] = []
    for before, after in _groups(old, new):
        varies = any(field.shape[axis] > 1 for axis in before)
        expanded += [old[axis] if varies else 1 for axis in before]
        result += [new[axis] if varies else 1 for axis in after]
    return shrunk(np.broadcast_to(field, expanded).reshape(result))


def shrunk(field: Field) -> Field:
    """Return the field with size one for every axis along which nothing changes."""
    for axis in varying_axes(field):
        first = field[(slice(None),) * axis + (slice(0, 1),)]
        if np.array_equal(
            np.broadcast_to(first, field.shape), field, equal_nan=field.dtype.kind == "f"
        ):
            field = first
    return field


def _groups(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """Return the smallest runs of axes of both shapes that hold equally many elements."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        before, after = [], []
        left = right = 1
        while True:
            if i < len(old) and (left <= right or j == len(new)):
                left *= old[i]
                before.append(i)
                i += 1
            elif j < len(new):
                right *= new[j]
                after.append(j)
                j += 1
            if left == right and ((before and after) or i == len(old) or j == len(new)):
                break
        groups.append((before, after))
    return groups


def aligned(field: Field, rank: int) -> Field:
    """Return the field with leading axes of size one, as broadcasting adds them."""
    return field.reshape((1,) * (rank - field.ndim) + field.shape)


def taken(field: Field, indices: NDArray[Any], axis: int) -> Field:
    """Return the field after a Gather along an axis, which becomes the axes of the indices."""
    if field.shape[axis] > 1:
        return np.asarray(np.take(field, indices, axis=axis))
    shape = (*field.shape[:axis], *(1,) * indices.ndim, *field.shape[axis + 1 :])
    return field.reshape(shape)


def sliced(field: Field, axis: int, taken_: slice) -> Field:
    """Return the field after a slice along one axis."""
    if field.shape[axis] == 1:
        return field
    return field[(slice(None),) * axis + (taken_,)]


def joined(fields: Sequence[Field], sizes: Sequence[int], axis: int) -> Field:
    """Return the field of a Concat of tensors whose sizes along the axis are given."""
    rest = np.broadcast_shapes(*((*f.shape[:axis], *f.shape[axis + 1 :]) for f in fields))
    parts = [
        np.broadcast_to(f, (*rest[:axis], size, *rest[axis:]))
        for f, size in zip(fields, sizes, strict=True)
    ]
    return shrunk(np.concatenate(parts, axis))


def varying_axes(field: Field) -> set[int]:
    """Return the axes along which a field changes."""
    return {axis for axis, size in enumerate(field.shape) if size > 1}
