"""Photo resize: uint8 in, uint8 out; antialiased as Pillow does it, in the same integer arithmetic.

Equal to Pillow 13 to the last bit where both sides shrink or grow by one factor. (Where the height
shrinks much more than the width, Pillow filters the columns first and differs by rounding.)
Training pipelines of torchvision and timm resize with Pillow, and a classifier's scores depend
on it. A separable filter is widened by the shrink factor, so that every source pixel counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.runtime.photo import Photo, import_cv2

FIXED_POINT_BITS = 22
"""Pillow's fixed-point precision: 8 bits for the pixel, 2 for the overshoot of bicubic."""


@dataclass(frozen=True)
class Filter:
    """A resampling filter: its half width, and its value at a distance from the centre."""

    support: float
    value: Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return (1 - np.abs(x)).clip(min=0)


def _cubic(x: NDArray[np.float64], a: float = -0.5) -> NDArray[np.float64]:
    """Keys' cubic convolution; a = -0.5 in Pillow (OpenCV and PyTorch: -0.75)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


FILTERS = {"bilinear": Filter(1.0, _triangle), "bicubic": Filter(2.0, _cubic)}


def resize(photo: Photo, size: tuple[int, int], interpolation: str, antialias: bool) -> Photo:
    """Return a photo resized to `size`.

    Args:
        photo: uint8 ``(H, W)`` or ``(H, W, C)``.
        size: new ``(height, width)`` in pixels.
        interpolation: ``nearest``, ``bilinear``, ``bicubic`` or ``area``.
        antialias: low-pass before shrinking; without effect on ``nearest`` and ``area``. Without
            it, bilinear and bicubic are OpenCV's (bicubic a = -0.75).
    """
    if photo.shape[:2] == size:
        return photo
    if interpolation in FILTERS and antialias:
        return resize_antialiased(photo, size, FILTERS[interpolation])
    cv2 = import_cv2()
    flags = {
        "nearest": cv2.INTER_NEAREST_EXACT,
        "bilinear": cv2.INTER_LINEAR,
        "bicubic": cv2.INTER_CUBIC,
        "area": cv2.INTER_AREA,
    }
    resized: Photo = cv2.resize(photo, size[::-1], interpolation=flags[interpolation])
    return resized


def resize_antialiased(photo: Photo, size: tuple[int, int], kernel: Filter) -> Photo:
    """Return a photo resized along its rows, rounded to uint8, then along its columns.

    Source: the arithmetic of Pillow's ``Image.resize``; the tests hold frozen results of it.
    """
    for axis in (1, 0):
        if photo.shape[axis] != size[axis]:
            photo = _resize_axis(photo, axis, size[axis], kernel)
    return photo


def filter_weights(
    source: int, target: int, kernel: Filter
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return which source pixels make up each target pixel, and with what weight.

    Returns:
        indices ``(target, taps)``, within the source, and weights ``(target, taps)`` that sum to 1
        per target pixel (0 for taps outside of the source).
    """
    scale = source / target
    stretch = max(scale, 1.0)
    support = kernel.support * stretch
    centers = (np.arange(target) + 0.5) * scale
    first = np.maximum((centers - support + 0.5).astype(np.intp), 0)
    last = np.minimum((centers + support + 0.5).astype(np.intp), source)
    taps = first[:, None] + np.arange(int((last - first).max()))
    weights = kernel.value((taps - centers[:, None] + 0.5) * (1 / stretch))
    weights = np.where(taps < last[:, None], weights, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.minimum(taps, source - 1), weights


def _resize_axis(photo: Photo, axis: int, target: int, kernel: Filter) -> Photo:
    indices, weights = filter_weights(photo.shape[axis], target, kernel)
    scaled = weights * (1 << FIXED_POINT_BITS)
    fixed = np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32)
    shape = [1] * photo.ndim
    shape[axis] = target
    out_shape = list(photo.shape)
    out_shape[axis] = target
    total = np.full(out_shape, 1 << (FIXED_POINT_BITS - 1), np.int32)
    for tap in range(indices.shape[1]):
        pixels = photo.take(indices[:, tap], axis).astype(np.int32)
        total += pixels * fixed[:, tap].reshape(shape)
    return (total >> FIXED_POINT_BITS).clip(0, 255).astype(np.uint8)
