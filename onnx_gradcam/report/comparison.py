"""How far the results of one batch are from those of another: images by path, classes by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.batch.rows import restored_map
from onnx_gradcam.batch.schema import Row
from onnx_gradcam.cam.finite import finite_float32
from onnx_gradcam.cam.resize import sample_linear

RawMap = NDArray[np.float32]


@dataclass(frozen=True)
class Difference:
    """What became of a class of an image, from the other batch to this one.

    Attributes:
        drift: how differently the model looks, 0 to 2; None where it is not defined.
        change: of the score, this one minus the other one.
    """

    drift: float | None
    change: float


def difference(row: Row, others: Sequence[Row]) -> Difference | None:
    """Return how a row differs from that of the same class; None where there is none."""
    other = same_class(row, others)
    if other is None:
        return None
    return Difference(drift(row, other), float(row["score"]) - float(other["score"]))


def same_class(row: Row, others: Sequence[Row]) -> Row | None:
    """Return the row of the same class in another batch; None where there is none.

    That is the one of equal index whose name is equal, too, where both have names; else one of
    equal name, for models that number their classes differently.
    """
    for other in others:
        named = _label(row) is not None and _label(other) is not None
        if other["class"] == row["class"] and (not named or _label(other) == _label(row)):
            return other
    if _label(row) is not None:
        return next((other for other in others if _label(other) == _label(row)), None)
    return None


def _label(row: Row) -> str | None:
    name = row["class_name"]
    return None if name == f"class {row['class']}" else name


def drift(row: Row, other: Row) -> float | None:
    """Return 1 - r, r being the Pearson correlation of the raw maps of two rows.

    0: the model looks alike, but for a factor and a constant; 1: the maps have nothing in common;
    2: one is the inverse of the other. Maps that differ in size, or show different parts of the
    photo, are compared where both are: at the centres of a grid over the part in common, with as
    many rows and columns as the finer of them has, interpolated linearly.

    None where it is not defined: a map is missing or constant, or they have no part in common.
    """
    maps = [restored_map(each) for each in (row, other)]
    if maps[0] is None or maps[1] is None:
        return None
    places = [_place(each) for each in (row, other)]
    first, second = finite_float32(maps[0]), finite_float32(maps[1])
    if first.shape != second.shape or places[0] != places[1]:
        grids = _grid(places[0], places[1], np.maximum(first.shape, second.shape).tolist())
        if grids is None:
            return None
        first, second = (
            _sampled(each, place, grids)
            for each, place in zip((first, second), places, strict=True)
        )
    return _one_minus_correlation(first, second)


Place = tuple[tuple[float, float], tuple[float, float]]
"""Start and extent of what a map shows, from top to bottom and from left to right, as parts of the
photo's height and width."""


def _place(row: Row) -> Place:
    vertical, horizontal = (
        (row[f"crop_{start}"] / row[whole], row[f"crop_{whole}"] / row[whole])
        for start, whole in (("y", "height"), ("x", "width"))
    )
    return vertical, horizontal


def _grid(first: Place, second: Place, size: Sequence[int]) -> list[NDArray[np.float64]] | None:
    """Return the rows and the columns of a grid over the part in common; None without one."""
    grid = []
    for one, other, count in zip(first, second, size, strict=True):
        start = max(one[0], other[0])
        end = min(one[0] + one[1], other[0] + other[1])
        if not end > start:
            return None
        grid.append(start + (np.arange(count) + 0.5) / count * (end - start))
    return grid


def _sampled(raw: RawMap, place: Place, grid: Sequence[NDArray[np.float64]]) -> RawMap:
    for axis, ((start, extent), centres) in enumerate(zip(place, grid, strict=True)):
        positions = (centres - start) / extent * raw.shape[axis] - 0.5
        raw = sample_linear(raw, positions, axis)
    return raw


def _one_minus_correlation(first: RawMap, second: RawMap) -> float | None:
    one, other = (_standardised(each) for each in (first, second))
    if one is None or other is None:
        return None
    return float(np.clip(1 - (one * other).mean(), 0, 2))


def _standardised(raw: RawMap) -> NDArray[np.float64] | None:
    values: NDArray[Any] = raw.astype(np.float64).ravel()
    scale = np.abs(values).max(initial=0)
    if not scale > 0:
        return None
    values = values / scale  # so that tiny maps do not underflow below
    values -= values.mean()
    spread = float(np.sqrt(np.square(values).mean()))
    return values / spread if spread > 1e-6 else None  # below the rounding of what is stored
