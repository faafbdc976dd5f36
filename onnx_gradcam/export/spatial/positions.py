"""Where in the image the elements of tensors lie, followed from the input on.

Token layouts, windows and channels-last maps are all found so: whatever Reshape, Transpose, Slice
and Concat did to a feature map, its elements still know their place. Coordinates run from 0 to 1
along each spatial axis; elements without a place (class tokens, pooled values) have NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.spatial.fields import Field, Shape, regroup, varying_axes
from onnx_gradcam.export.spatial.tracking import Fields, track

_WIDEST = 0.5
"""What is computed from elements this far apart, as a share of the image, has no place."""

_CLOSE = 1e-4


class Positions:
    """The kind of fields: image number, then a coordinate per spatial axis."""

    blank = np.nan

    def combine(self, operands: Sequence[Fields]) -> Fields:
        """Return the places that the operands agree on; blanks do not count."""
        return tuple(_agreed(fields) for fields in zip(*operands, strict=True))

    def reduce(self, fields: Fields, axes: Sequence[int]) -> Fields:
        """Return the middle of neighbours; what lies far apart has none."""
        return tuple(_middle(field, tuple(axes), image=i == 0) for i, field in enumerate(fields))

    def product(self, rows: Fields | None, columns: Fields | None) -> Fields | None:
        """Take the places of the left operand's rows, else of the right one's columns.

        So the values of attention lie where the query lies.
        """
        for side in (rows, columns):
            if side is not None and not all(np.isnan(f).all() for f in side):
                return side
        return None

    def normalise(self, fields: Fields, axes: Sequence[int]) -> Fields:
        """Return them as they are: nothing moves."""
        return fields

    def convolve(self, fields: Fields, shape: Shape, result: Shape) -> Fields | None:
        """Return a regular grid for a regular grid; else places where the windows tile the map."""
        image, *spatial = self.reduce(fields, [1])
        regular = varying_axes(image) <= {0} and all(
            varying_axes(field) <= {2 + axis} for axis, field in enumerate(spatial)
        )
        blank = np.isnan(image)  # all of it where the batch was folded into the channels
        if len(spatial) == len(result) - 2 and regular and (blank.all() or not blank.any()):
            if all(size == 1 for size in result[2:]):
                return None
            return (image, *grid(result, 2))
        if shape[2:] == result[2:]:
            return (image, *spatial)
        return self._tiled((image, *spatial), (shape[0], 1, *shape[2:]), result)

    def _tiled(self, fields: Fields, shape: Shape, result: Shape) -> Fields | None:
        """Return the middles of equal blocks of every spatial axis."""
        if len(shape) != len(result) or any(
            a % b for a, b in zip(shape[2:], result[2:], strict=True)
        ):
            return None
        split = list(shape[:2])
        for size, blocks in zip(shape[2:], result[2:], strict=True):
            split += [blocks, size // blocks]
        axes = list(range(3, len(split), 2))
        parts = tuple(regroup(field, shape, tuple(split)) for field in fields)
        return tuple(field.squeeze(tuple(axes)) for field in self.reduce(parts, axes))

    def other(
        self, operands: Sequence[Fields], shapes: Sequence[Shape], result: Shape
    ) -> Fields | None:
        """Return the places of an input of the same shape, which are taken to be kept."""
        for fields, shape in zip(operands, shapes, strict=True):
            if shape == result:
                return fields
        return None


def grid(shape: Shape, first: int) -> list[Field]:
    """Return the coordinates of a regular grid on the axes from `first` on."""
    fields = []
    for axis in range(first, len(shape)):
        size = shape[axis]
        sizes = [1] * len(shape)
        sizes[axis] = size
        fields.append(((np.arange(size) + 0.5) / size).reshape(sizes))
    return fields


def image_fields(shape: Shape, layout: str) -> Fields:
    """Return the fields of the image itself.

    Args:
        shape: of the image.
        layout: one letter per axis, such as ``NCHW``.
    """
    spatial = [axis for axis, letter in enumerate(layout) if letter not in "NC"]
    images = np.arange(shape[0], dtype=float).reshape([-1, *[1] * (len(shape) - 1)])
    coordinates = grid(shape, 0)
    return (images, *(coordinates[axis] for axis in spatial))


def track_positions(
    graph: Graph, image: str, layout: str, shapes: dict[str, Shape]
) -> dict[str, Fields]:
    """Return the fields of every tensor whose elements have a place in the image.

    Args:
        graph: the model.
        image: its image input.
        layout: axes of the image.
        shapes: of tensors whose shape is known in full.
    """
    known = {image: image_fields(shapes[image], layout)}
    return track(graph, Positions(), known, shapes, graph.nodes)


def _agreed(fields: Sequence[Field]) -> Field:
    result, *others = fields
    for other in others:
        if other is result:
            continue
        apart = np.abs(result - other) > _CLOSE  # False where either is NaN
        agreed = np.where(np.isnan(result), other, result)
        if apart.any():
            agreed = np.where(apart, _finer(result, other), agreed)
        result = agreed
    return result


def _finer(one: Field, other: Field) -> Field | float:
    """Return the places of what is compared with its own mean, NaN for what has other places.

    The channels of one token may lie apart (Swin joins four neighbours); the mean and the
    deviation that a normalisation in pieces takes from them lie in their middle.
    """
    pairs = ((one, other), (other, one))
    finer = next((a for a, b in pairs if varying_axes(b) < varying_axes(a)), None)
    if finer is None:
        return np.nan
    return np.where(np.abs(one - other) < _WIDEST / 2, finer, np.nan)


def _middle(field: Field, axes: tuple[int, ...], *, image: bool) -> Field:
    if not varying_axes(field) & {a % field.ndim for a in axes}:
        return field
    blank = np.isnan(field)
    low = np.where(blank, np.inf, field).min(axis=axes, keepdims=True)
    high = np.where(blank, -np.inf, field).max(axis=axes, keepdims=True)
    count = np.maximum((~blank).sum(axis=axes, keepdims=True), 1)
    middle = np.where(blank, 0.0, field).sum(axis=axes, keepdims=True) / count
    limit = _CLOSE if image else _WIDEST - _CLOSE
    with np.errstate(invalid="ignore"):
        close = (high - low < limit) & (high >= low)
    result: Field = np.where(close, middle, np.nan)
    return result
