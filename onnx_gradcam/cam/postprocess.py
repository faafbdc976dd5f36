"""From raw maps to heat maps: ReLU, normalise, resize to the image, normalise again.

The order and the constants are those of pytorch-grad-cam 1.5.7, so that heat maps agree with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam.components import Maps
from onnx_gradcam.cam.finite import finite_float32
from onnx_gradcam.cam.resize import Ends, ends_of, ends_of_resized, resize_linear

EPSILON = np.float32(1e-7)
"""Added to the maximum before dividing by it, so that a map of zeros stays one."""

BEYOND_ROUNDING = 1 + 2**-22
"""Factor of a number that makes it larger than float32 rounding can."""


def heat_maps(
    raw: NDArray[Any], size: Sequence[int], *, rectify: bool = True, ends: Ends | None = None
) -> Maps:
    """Return heat maps at the image's size.

    With m the raw map without what is below its lowest value, M the same resized, and e the small
    constant, the heat map is (M - min M) / (max M - min M + e (max m + e)). The ends of M are known
    before it is there (`resize.ends_of_resized`), so that all of this is done to m, and large maps
    are only written. But for rounding that is: normalise, resize, normalise again.

    Args:
        raw: raw maps, float ``(N, *spatial)``; NaN counts as 0.
        size: the image's extents, one per spatial axis, e.g. ``(H, W)``.
        rectify: cut off what is below zero, see `registry.Method.rectified`.
        ends: those of the maps, where they are known, and then all finite.

    Returns:
        float32 ``(N, *size)`` in [0, 1]; zeros for a map that is constant, or nowhere positive
        where it is rectified.

    Raises:
        UsageError: `size` has another number of axes than the maps.
    """
    maps = raw if ends else finite_float32(raw)
    maps = np.maximum(maps, 0) if rectify else maps
    if maps.shape[1:] == tuple(size) or maps.size == 0 or 0 in size:
        return normalise(resize_linear(normalise(maps), size))
    low, high = ends or ends_of(maps)
    if rectify:
        low, high = ([max(end, 0.0) for end in each] for each in (low, high))
    if any(low):
        maps = maps - _column(low, maps)
    bottom, top = ends_of_resized(maps, size)
    e = float(EPSILON)
    extents = zip(low, high, bottom, top, strict=True)
    scale = [above - below + e * (most - least + e) for least, most, below, above in extents]
    # a little more is taken off, so that the lowest pixel is 0, not what rounding leaves of it
    small = maps - _column([b * BEYOND_ROUNDING for b in bottom], maps)
    small /= _column(scale, maps)
    result = resize_linear(small, size)
    return result.clip(0, 1, out=result)


def _column(values: Sequence[float], maps: Maps) -> Maps:
    """Return one value per map, to go with maps ``(N, *spatial)``."""
    return np.array(values, np.float32).reshape(-1, *[1] * (maps.ndim - 1))


def stretched(raw: NDArray[Any], size: Sequence[int], *, rectify: bool = True) -> Maps:
    """Return what `heat_maps` normalises once more: raw maps stretched to [0, 1], then resized.

    Raises:
        UsageError: see `heat_maps`.
    """
    shown = rectified(raw) if rectify else finite_float32(raw)
    return resize_linear(normalise(shown), size)


def rectified(raw: NDArray[Any]) -> Maps:
    """Return raw maps with 0 in place of what is below it, and of NaN."""
    return np.maximum(finite_float32(raw), 0)


def normalise(maps: Maps) -> Maps:
    """Return each map of ``(N, *spatial)`` shifted to minimum 0 and divided by its maximum."""
    if maps.size == 0:
        return maps
    axes = tuple(range(1, maps.ndim))
    shifted = maps - maps.min(axis=axes, keepdims=True)
    result: Maps = shifted / (EPSILON + shifted.max(axis=axes, keepdims=True))
    return result
