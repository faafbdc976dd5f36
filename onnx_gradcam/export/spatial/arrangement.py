"""Finds how a layer's axes make up a feature map ``(N, C, *spatial)``.

In: the fields of a tensor (`positions`). Out: an `Arrangement`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.arrangement import Arrangement
from onnx_gradcam.export.spatial.fields import Field, Shape, varying_axes
from onnx_gradcam.export.spatial.tracking import Fields

Array = NDArray[Any]

_DIGITS = 4
"""Decimals to which places are compared."""

_UNEVEN = 2
"""Distances between grid lines may differ by this factor: padding shifts middles at a border."""

SPATIAL = {1: "W", 2: "HW", 3: "DHW"}
"""Names of the spatial axes by their number."""


def arrange(fields: Fields, shape: Shape, images: int) -> Arrangement | None:
    """Return the arrangement of a tensor, None where it is no feature map.

    Args:
        fields: image number and coordinates of its elements.
        shape: its shape.
        images: size of the batch.
    """
    varying = set().union(*(varying_axes(field) for field in fields))
    still = [axis for axis in range(1, len(shape)) if axis not in varying]
    wide = [axis for axis in still if shape[axis] > 1]
    if len(shape) < 3 or len(wide) > 1 or not still:
        return None
    plain = _plain(fields, shape, images, wide)
    if plain is not None or not wide:
        return plain
    return _tokens(fields, shape, images, wide[0])


def _plain(fields: Fields, shape: Shape, images: int, wide: list[int]) -> Arrangement | None:
    """Return the layout of a tensor that has each spatial axis as an axis of its own."""
    image, *spatial = fields
    if len(spatial) != len(shape) - 2 or shape[0] != images or not varying_axes(image) <= {0}:
        return None
    if not np.isnan(image).all() and image.reshape(-1).tolist() != list(range(images)):
        return None
    letters: dict[int, str] = {0: "N"}
    names = SPATIAL[len(spatial)]
    for name, field in zip(names, spatial, strict=True):
        axes = varying_axes(field)
        if len(axes) > 1 or axes & set(letters):
            return None
        if axes:
            (axis,) = axes
            if not np.all(np.diff(field.reshape(-1)) > 0):
                return None
            letters[axis] = name
        elif np.isnan(field).any():
            return None
    if len(letters) == 1:
        return None
    free = [axis for axis in range(1, len(shape)) if axis not in letters]
    letters[wide[0] if wide else free[0]] = "C"
    missing = (name for name in names if name not in letters.values())
    for axis in free:
        if axis not in letters:
            letters[axis] = next(missing)
    layout = "".join(letters[axis] for axis in range(len(shape)))
    return Arrangement(layout) if _in_order(layout, names) else None


def _in_order(layout: str, names: str) -> bool:
    return [letter for letter in layout if letter in names] == list(names)


def _tokens(fields: Fields, shape: Shape, images: int, channel: int) -> Arrangement | None:
    rest = [axis for axis in range(len(shape)) if axis != channel]
    count = math.prod(shape[axis] for axis in rest)
    if count % images:
        return None
    rows = count // images

    def per_image(field: Field) -> Array:
        full = np.broadcast_to(
            np.moveaxis(field, channel, -1)[..., 0], [shape[axis] for axis in rest]
        )
        return full.reshape(images, rows)

    image, *spatial = map(per_image, fields)
    placed = ~np.isnan(image) & ~np.any([np.isnan(s) for s in spatial], axis=0)
    if not placed.any() or np.any(placed != placed[:1]):
        return None
    if np.any(np.where(placed, image - np.arange(images)[:, None], 0)):
        return None
    if any(np.nanmax(np.abs(s - s[:1])) > 10.0**-_DIGITS for s in spatial):
        return None
    found = _grid_of([s[0][placed[0]] for s in spatial])
    if found is None:
        return None
    grid, order = found
    letters = ["T"] * len(shape)
    letters[0], letters[channel] = "N" if shape[0] == images else "B", "C"
    numbers = np.flatnonzero(placed[0])
    return Arrangement("".join(letters), grid, tuple(int(numbers[i]) for i in order), rows)


def _grid_of(coordinates: list[Array]) -> tuple[tuple[int, ...], list[int]] | None:
    """Return the sizes of the grid that points fill, and the point in each cell, row by row."""
    cells = []
    sizes = []
    for values in coordinates:
        lines, cell = np.unique(values.round(_DIGITS), return_inverse=True)
        steps = np.diff(lines)
        if steps.size and steps.max() > _UNEVEN * steps.min():
            return None
        cells.append(cell)
        sizes.append(len(lines))
    if math.prod(sizes) != len(cells[0]) or math.prod(sizes) == 1:
        return None
    number = np.ravel_multi_index(cells, sizes)
    if len(np.unique(number)) != len(number):
        return None
    return tuple(sizes), [int(i) for i in np.argsort(number)]
