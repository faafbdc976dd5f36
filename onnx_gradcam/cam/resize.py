"""Maps at another size: linear interpolation along one axis after the other.

Small maps are multiplied with matrices of interpolation weights, which are kept; of long axes the
two neighbours of each pixel are looked up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam.components import Maps
from onnx_gradcam.errors import UsageError

FEW = 64
"""Up to so many elements an axis is multiplied with a matrix."""

ON_ONE_THREAD = 2**18
"""Multiplications in a matrix product that a BLAS does without waking its other threads, which
would then spin beside those of onnxruntime."""

Ends = tuple[list[float], list[float]]
"""The lowest and the highest value of each of N maps."""

_Step = Callable[[Maps], Maps]
"""Resizes one axis."""


def resize_linear(maps: Maps, size: Sequence[int]) -> Maps:
    """Return maps resized by (bi-, tri-) linear interpolation with half-pixel centres.

    Equal to ``cv2.resize(..., INTER_LINEAR)`` on float images up to rounding; no antialiasing.

    Args:
        maps: float32 ``(N, *spatial)``, finite.
        size: the new extents, one per spatial axis.

    Raises:
        UsageError: `size` has another number of axes than the maps.
    """
    return _resized(maps, size, outline=False)


def ends_of(maps: Maps) -> Ends:
    """Return the lowest and the highest value of each map ``(N, *spatial)``, none of them empty."""
    axes = tuple(range(1, maps.ndim))
    low, high = np.minimum.reduce(maps, axis=axes), np.maximum.reduce(maps, axis=axes)
    return low.tolist(), high.tolist()


def ends_of_resized(maps: Maps, size: Sequence[int]) -> Ends:
    """Return the lowest and the highest value of each resized map, to rounding, without resizing.

    Between two elements a resized map is linear along each axis, so that its ends are among the
    first and last pixels between any two.

    Args:
        maps: see `resize_linear`; at least one, and not empty.
        size: likewise.

    Raises:
        UsageError: see `resize_linear`.
    """
    return ends_of(_resized(maps, size, outline=True))


def sample_linear(maps: Maps, positions: NDArray[np.float64], axis: int) -> Maps:
    """Return `maps` interpolated along one axis at fractional indices, edges repeated."""
    lower, upper, fraction = _neighbours(positions, maps.shape[axis])
    shape = [1] * maps.ndim
    shape[axis] = -1
    weight = fraction.reshape(shape)
    result, above = maps.take(lower, axis), maps.take(upper, axis)
    result *= 1 - weight
    above *= weight
    result += above
    return result


def _resized(maps: Maps, size: Sequence[int], *, outline: bool) -> Maps:
    """Return resized maps, or the first and last pixels between any two elements alone.

    Raises:
        UsageError: see `resize_linear`.
    """
    if len(size) != maps.ndim - 1:
        raise UsageError(
            f"maps with {maps.ndim - 1} spatial axes cannot be resized to {tuple(size)}"
        )
    if maps.shape[0] == 0 or 0 in size:
        return np.zeros((maps.shape[0], *size), np.float32)
    for step in _steps(maps.shape[1:], tuple(size), outline):
        maps = step(maps)
    return maps


@lru_cache(maxsize=32)
def _steps(before: tuple[int, ...], after: tuple[int, ...], outline: bool) -> tuple[_Step, ...]:
    """Return what resizes maps ``(N, *before)``: the last axis first, while the maps are small."""
    shape, steps = list(before), []
    for axis in reversed(range(len(before))):
        elements, pixels = before[axis], after[axis]
        if elements == pixels:
            continue
        positions = np.arange(0.5, pixels, dtype=np.float64) * (elements / pixels) - 0.5
        if outline:
            positions = positions[_outline(positions, elements)]
        shape[axis] = len(positions)
        if elements > FEW:
            steps.append(_by_neighbours(positions, axis + 1))
        elif axis == len(before) - 1:
            steps.append(_by_matrix_behind(_matrix(elements, positions), shape))
        else:
            steps.append(_by_matrix_before(_matrix(elements, positions), axis, shape))
    return tuple(steps)


def _outline(positions: NDArray[np.float64], elements: int) -> NDArray[np.intp]:
    """Return which pixels are the first or last between two elements."""
    lower, _, _ = _neighbours(positions, elements)
    changes = np.flatnonzero(np.diff(lower))
    return np.unique([0, *changes, *(changes + 1), len(positions) - 1])


def _matrix(elements: int, positions: NDArray[np.float64]) -> Maps:
    """Return the weight of each element in each pixel, ``(pixels, elements)``."""
    return sample_linear(np.eye(elements, dtype=np.float32), positions, 0)


def _by_neighbours(positions: NDArray[np.float64], axis: int) -> _Step:
    return lambda maps: sample_linear(maps, positions, axis)


def _by_matrix_behind(matrix: Maps, shape: Sequence[int]) -> _Step:
    """Return what resizes the last axis; `shape` is then that of one map."""
    transposed, rows = matrix.T, math.prod(shape[:-1])
    blocks = _blocks(rows, matrix.size)
    flat = (-1, rows // blocks, matrix.shape[1])
    result = (-1, *shape)
    return lambda maps: (maps.reshape(flat) @ transposed).reshape(result)


def _by_matrix_before(matrix: Maps, axis: int, shape: Sequence[int]) -> _Step:
    """Return what resizes another axis; `shape` is then that of one map."""
    pixels, elements = matrix.shape
    columns = math.prod(shape[axis + 1 :])
    blocked = matrix.reshape(_blocks(pixels, elements * columns), -1, elements)
    flat = (-1, 1, elements, columns)
    result = (-1, *shape)
    return lambda maps: (blocked @ maps.reshape(flat)).reshape(result)


def _blocks(rows: int, work: int) -> int:
    """Return into how many equal products to split one of some rows, with `work` for each.

    One row each where no number divides them.
    """
    needed = max(-(-rows * work // ON_ONE_THREAD), 1)
    return next((n for n in range(needed, rows) if rows % n == 0), rows)


def _neighbours(
    positions: NDArray[np.float64], elements: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return the elements before and behind each position, and how near it is to the second."""
    inside = positions.clip(0, elements - 1)
    lower = np.floor(inside).astype(np.intp)
    upper = np.minimum(lower + 1, elements - 1)
    return lower, upper, (inside - lower).astype(np.float32)
