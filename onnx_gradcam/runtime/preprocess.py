"""The stored `Preprocessing` applied: a photo becomes one image of the model's input.

Sizes follow torchvision: the shorter side gets the given length, the longer one is truncated to an
integer; the crop is centred, and black is added where the photo is smaller than the crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam.registry import Maps
from onnx_gradcam.cam.resize import sample_linear
from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.runtime.photo import Photo, import_cv2
from onnx_gradcam.runtime.resample import resize

IN_CACHE = 1 << 16
"""How many elements of a map to compute at a time."""

GRAY_WEIGHTS = (19595, 38470, 7471)
"""ITU-R 601-2 luma in 1/65536, as in Pillow's ``convert("L")``."""


@dataclass(frozen=True)
class CropGeometry:
    """Which part of a photo the model saw.

    Attributes:
        photo_size: ``(height, width)`` of the photo in pixels.
        resized: ``(height, width)`` after the resize.
        top: first row of the crop in the resized photo; negative where black was added.
        left: first column, likewise.
        crop: ``(height, width)`` of the crop, which is the model's input size.
    """

    photo_size: tuple[int, int]
    resized: tuple[int, int]
    top: int
    left: int
    crop: tuple[int, int]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The crop ``(left, top, right, bottom)`` in pixels of the photo, within the photo."""
        vertical = self._extent(0, self.top)
        horizontal = self._extent(1, self.left)
        return horizontal[0], vertical[0], horizontal[1], vertical[1]

    @property
    def visible(self) -> tuple[slice, slice]:
        """Rows and columns of the resized photo that lie in the crop."""
        starts = (self.top, self.left)
        rows, columns = (
            slice(max(start, 0), min(start + length, whole))
            for start, length, whole in zip(starts, self.crop, self.resized, strict=True)
        )
        return rows, columns

    def _extent(self, axis: int, start: int) -> tuple[float, float]:
        scale = self.photo_size[axis] / self.resized[axis]
        low = max(start * scale, 0.0)
        high = min((start + self.crop[axis]) * scale, float(self.photo_size[axis]))
        return low, high

    def to_photo(self, cams: Maps) -> Maps:
        """Return heat maps of the crop laid on the whole photo, zero outside the crop.

        Args:
            cams: float32 ``(H, W)`` or ``(N, H, W)`` at the model's input size.

        Returns:
            float32 of the photo's size: ``(height, width)`` or ``(N, height, width)``.
        """
        maps = cams if cams.ndim == 3 else cams[None]
        tall = self._spread(maps, 0)
        result = np.empty((*tall.shape[:2], self.photo_size[1]), np.float32)
        rows = max(IN_CACHE // max(self.photo_size[1], 1), 1)
        for first in range(0, tall.shape[1], rows):
            result[:, first : first + rows] = self._spread(tall[:, first : first + rows], 1)
        return result if cams.ndim == 3 else result[0]

    def _spread(self, maps: Maps, axis: int) -> Maps:
        """Return maps ``(N, *spatial)`` on one axis of the photo, zero outside the crop."""
        length = self.photo_size[axis]
        scale = self.resized[axis] / length
        positions = np.arange(0.5, length, dtype=np.float64) * scale - (self.top, self.left)[axis]
        inside = (positions >= 0) & (positions <= self.crop[axis])
        spread = sample_linear(maps, positions - 0.5, axis + 1)
        return spread * inside.reshape((1, -1, 1) if axis == 0 else (1, 1, -1))


def crop_geometry(photo_size: tuple[int, int], recipe: Preprocessing) -> CropGeometry:
    """Return where resize and centre crop of `recipe` fall on a photo of this size."""
    height, width = photo_size
    match recipe.resize:
        case None:
            resized = photo_size
        case int(side):
            short, long = min(photo_size), max(photo_size)
            scaled = int(side * long / short)
            resized = (side, scaled) if height <= width else (scaled, side)
        case pair:
            resized = pair
    crop = recipe.crop or resized
    top, left = map(_crop_start, resized, crop)
    return CropGeometry(photo_size, resized, top, left, crop)


def _crop_start(outer: int, inner: int) -> int:
    """Return where a centred crop starts, rounded as torchvision does; negative for a padding."""
    return round((outer - inner) / 2) if inner <= outer else -((inner - outer) // 2)


def preprocess(
    photo: Photo, recipe: Preprocessing, layout: str, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], CropGeometry]:
    """Return a photo as one image of the model's input, and where it was cropped.

    Args:
        photo: uint8 RGB ``(H, W, 3)``.
        recipe: what to do with it.
        layout: ``NCHW`` or ``NHWC``, used where `recipe` does not name one.
        dtype: of the model's input; integers are rounded and clipped to their range.

    Returns:
        the image, ``(C, H, W)`` or ``(H, W, C)`` without batch axis, and its geometry.
    """
    geometry = crop_geometry((photo.shape[0], photo.shape[1]), recipe)
    colored = photo if recipe.color == "RGB" else _COLORS[recipe.color](photo)
    seen = resize(
        colored, geometry.resized, recipe.interpolation, recipe.antialias, geometry.visible
    )
    pixels = _padded(seen, geometry).reshape(*geometry.crop, -1).astype(np.float32)
    values = pixels * np.float32(recipe.scale) - np.asarray(recipe.mean, np.float32)
    values /= np.asarray(recipe.std, np.float32)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        values = values.round().clip(limits.min, limits.max)
    if (recipe.layout or layout) == "NCHW":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values, dtype=dtype), geometry


def _gray(photo: Photo) -> Photo:
    weighted = photo.astype(np.uint32) @ np.array(GRAY_WEIGHTS, np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)


def _bgr(photo: Photo) -> Photo:
    cv2 = import_cv2()
    swapped: Photo = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)
    return swapped


_COLORS = {"BGR": _bgr, "GRAY": _gray}


def _padded(seen: Photo, geometry: CropGeometry) -> Photo:
    """Return the crop: what of the photo is in it, with black around where it is too small."""
    rows, columns = geometry.visible
    above, left = rows.start - geometry.top, columns.start - geometry.left
    below = geometry.crop[0] - above - seen.shape[0]
    right = geometry.crop[1] - left - seen.shape[1]
    if any((above, below, left, right)):
        around = [(above, below), (left, right)] + [(0, 0)] * (seen.ndim - 2)
        return np.pad(seen, around)
    return seen
