"""From raw maps to heat maps: ReLU, normalise, resize to the image, normalise again.

The order and the constants are those of pytorch-grad-cam 1.5.7, so that heat maps agree with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam.components import Maps
from onnx_gradcam.cam.registry import finite_float32
from onnx_gradcam.errors import UsageError

EPSILON = np.float32(1e-7)
"""Added to the maximum before dividing by it, so that a map of zeros stays one."""


def heat_maps(raw: NDArray[Any], size: Sequence[int], *, rectify: bool = True) -> Maps:
    """Return heat maps at the image's size.

    Args:
        raw: raw maps, float ``(N, *spatial)``; NaN counts as 0.
        size: the image's extents, one per spatial axis, e.g. ``(H, W)``.
        rectify: cut off what is below zero, see `registry.Method.rectified`.

    Returns:
        float32 ``(N, *size)`` in [0, 1]; zeros for a map that is constant, or nowhere positive
        where it is rectified.

    Raises:
        UsageError: `size` has another number of axes than the maps.
    """
    return normalise(stretched(raw, size, rectify=rectify))


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


def resize_linear(maps: Maps, size: Sequence[int]) -> Maps:
    """Return maps resized by (bi-, tri-) linear interpolation with half-pixel centres.

    Equal to ``cv2.resize(..., INTER_LINEAR)`` on float images up to rounding; no antialiasing.

    Args:
        maps: float32 ``(N, *spatial)``.
        size: the new extents, one per spatial axis.

    Raises:
        UsageError: `size` has another number of axes than the maps.
    """
    if len(size) != maps.ndim - 1:
        raise UsageError(
            f"maps with {maps.ndim - 1} spatial axes cannot be resized to {tuple(size)}"
        )
    if maps.shape[0] == 0 or 0 in size:
        return np.zeros((maps.shape[0], *size), np.float32)
    for axis, extent in enumerate(size, start=1):
        if maps.shape[axis] != extent:
            positions = (np.arange(extent) + 0.5) * (maps.shape[axis] / extent) - 0.5
            maps = sample_linear(maps, positions, axis)
    return maps


def sample_linear(maps: Maps, positions: NDArray[np.float64], axis: int) -> Maps:
    """Return `maps` interpolated along one axis at fractional indices, edges repeated."""
    inside = positions.clip(0, maps.shape[axis] - 1)
    lower = np.floor(inside).astype(np.intp)
    upper = np.minimum(lower + 1, maps.shape[axis] - 1)
    shape = [1] * maps.ndim
    shape[axis] = -1
    fraction = (inside - lower).astype(np.float32).reshape(shape)
    below, above = maps.take(lower, axis), maps.take(upper, axis)
    result: Maps = below * (1 - fraction) + above * fraction
    return result
