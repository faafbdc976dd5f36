"""Photo resize: uint8 in, uint8 out; antialiased as Pillow does it, in the same integer arithmetic.

Equal to Pillow 13 to the last bit where both sides shrink or grow by one factor. (Where the height
shrinks much more than the width, Pillow filters the columns first and differs by rounding.)
Training pipelines of torchvision and timm resize with Pillow, and a classifier's scores depend
on it. A separable filter is widened by the shrink factor, so that every source pixel counts.

A target pixel depends on a few source pixels, so each axis is a product with a band matrix. It is
cut into blocks and computed in float64, where sums of fixed-point products are exact: the result is
that of the integers. Only the part that a crop keeps is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.runtime.photo import Photo, import_cv2

FIXED_POINT_BITS = 22
"""Pillow's fixed-point precision: 8 bits for the pixel, 2 for the overshoot of bicubic."""

BAND = 8
"""Target pixels per block: more of them, and zeros around the diagonal take most of the time."""

PRODUCTS = 1 << 17
"""Multiplications per block at most. OpenBLAS uses threads of its own from twice as many on, which
would fight with those that decode and run the model."""

COLUMNS = 256
"""Columns per block at most."""

IN_CACHE = 1 << 17
"""Pixels that are computed with at a time. Few calls of NumPy matter as well as the cache: each
lets other Python threads in, and waits for its own turn to come again."""

Part = tuple[slice, slice]
"""Rows and columns, both with start and stop."""


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


def resize(
    photo: Photo,
    size: tuple[int, int],
    interpolation: str,
    antialias: bool,
    part: Part | None = None,
) -> Photo:
    """Return a photo resized to `size`, or a part of it.

    Args:
        photo: uint8 ``(H, W)`` or ``(H, W, C)``.
        size: new ``(height, width)`` in pixels.
        interpolation: ``nearest``, ``bilinear``, ``bicubic`` or ``area``.
        antialias: low-pass before shrinking; without effect on ``nearest`` and ``area``. Without
            it, bilinear and bicubic are OpenCV's (bicubic a = -0.75).
        part: which rows and columns of the resized photo; None for all.
    """
    if interpolation in FILTERS and antialias and photo.shape[:2] != size:
        whole = slice(0, size[0]), slice(0, size[1])
        return resize_antialiased(photo, size, FILTERS[interpolation], part or whole)
    resized = photo if photo.shape[:2] == size else _resize_by_opencv(photo, size, interpolation)
    return resized if part is None else resized[part]


def _resize_by_opencv(photo: Photo, size: tuple[int, int], interpolation: str) -> Photo:
    cv2 = import_cv2()
    flags = {
        "nearest": cv2.INTER_NEAREST_EXACT,
        "bilinear": cv2.INTER_LINEAR,
        "bicubic": cv2.INTER_CUBIC,
        "area": cv2.INTER_AREA,
    }
    resized: Photo = cv2.resize(photo, size[::-1], interpolation=flags[interpolation])
    return resized


def resize_antialiased(photo: Photo, size: tuple[int, int], kernel: Filter, part: Part) -> Photo:
    """Return a part of a photo resized along its rows, rounded to uint8, then along its columns.

    Source: the arithmetic of Pillow's ``Image.resize``; the tests hold frozen results of it.
    """
    rows = _bands(photo.shape[0], size[0], kernel, part[0].start, part[0].stop)
    columns = _bands(photo.shape[1], size[1], kernel, part[1].start, part[1].stop)
    seen = photo[rows.sources, columns.sources]
    narrow = _transposed(_combined(_transposed(seen), columns))
    return _combined(narrow, rows)


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


@dataclass(frozen=True, eq=False)
class Bands:
    """A band matrix in blocks: B times `BAND` target pixels, each block of S source pixels.

    Attributes:
        sources: all source pixels that are needed.
        places: intp ``(B, S)``, which of those each block takes.
        weights: float64 ``(B, BAND, S)``, multiples of ``2 ** -FIXED_POINT_BITS``.
        targets: the number of target pixels; those of the last block beyond it are nothing.
    """

    sources: slice
    places: NDArray[np.intp]
    weights: NDArray[np.float64]
    targets: int


@lru_cache(maxsize=64)  # the photos of a folder often have one size
def _bands(source: int, target: int, kernel: Filter, start: int, stop: int) -> Bands:
    """Return what makes the target pixels from `start` to `stop` of one axis."""
    if source == target:
        indices, weights = np.arange(target)[:, None], np.ones((target, 1))
    else:
        indices, weights = filter_weights(source, target, kernel)
    scaled = weights[start:stop] * (1 << FIXED_POINT_BITS)
    fixed = np.trunc(scaled + np.copysign(0.5, scaled)) / (1 << FIXED_POINT_BITS)
    taken = indices[start:stop]
    first = int(taken[0, 0])
    blocks = range(0, stop - start, BAND)
    lows = np.array([taken[block, 0] for block in blocks])
    span = (
        max(int(taken[b : b + BAND].max() - low) for b, low in zip(blocks, lows, strict=True)) + 1
    )
    last = int(taken.max())
    matrix = np.zeros((len(blocks), BAND, span))
    rows = np.arange(stop - start)[:, None]
    np.add.at(matrix, (rows // BAND, rows % BAND, taken - lows[rows // BAND]), fixed)
    places = np.minimum(lows[:, None] + np.arange(span), last) - first
    return Bands(slice(first, last + 1), places, matrix, stop - start)


def _combined(photo: Photo, bands: Bands) -> Photo:
    """Return rows that are sums of the rows of a photo, which holds those that are needed.

    A sum s is a multiple of ``2 ** -FIXED_POINT_BITS`` below 2 ** 9, so float64 holds it exactly,
    in whatever order a product of matrices adds; floor(s + 1/2) is what Pillow rounds to.
    """
    lines = photo.reshape(len(photo), -1)
    count, span = bands.places.shape
    columns = max(min(COLUMNS, PRODUCTS // (BAND * span)), 1)
    step = max(IN_CACHE // (span * columns), 1)
    result = np.empty((count, BAND, lines.shape[1]), np.uint8)
    for left in range(0, lines.shape[1], columns):
        block = lines[:, left : left + columns]
        for first in range(0, count, step):
            chosen = slice(first, first + step)
            pixels = block[bands.places[chosen]].astype(np.float64)
            sums = np.matmul(bands.weights[chosen], pixels)
            sums += 0.5
            np.clip(sums, 0, 255, out=sums)
            np.copyto(result[chosen, :, left : left + columns], sums, casting="unsafe")
    rows = result.reshape(count * BAND, -1)[: bands.targets]
    return rows.reshape(bands.targets, *photo.shape[1:])


def _transposed(photo: Photo) -> Photo:
    """Return a photo with rows and columns exchanged, contiguous."""
    turned: Photo = import_cv2().transpose(photo)
    return turned.reshape(photo.shape[1], photo.shape[0], *photo.shape[2:])
