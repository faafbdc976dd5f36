"""Photos in: a path, encoded bytes or an array becomes uint8 RGB ``(H, W, 3)``, upright."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import ImageError, MissingDependencyError
from onnx_gradcam.runtime.image_header import FORMAT_NAMES, ImageHeader, read_header

if TYPE_CHECKING:
    from types import ModuleType

Photo = NDArray[np.uint8]
PhotoSource = str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[Any]

MAX_PIXELS = 180_000_000
"""Largest photo that is decoded; the environment variable below overrides it."""

DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16))

MAX_PIXELS_VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"
"""OpenCV's own variable: one setting for both."""


def allow_pixels(most: int) -> None:
    """Let this process decode photos of so many pixels; OpenCV reads that when it is imported."""
    if most > MAX_PIXELS:
        os.environ[MAX_PIXELS_VARIABLE] = str(most)


def import_cv2() -> ModuleType:
    """Return the ``cv2`` module, imported on first use only.

    Raises:
        MissingDependencyError: it is not installed, or its shared libraries are missing.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            f"OpenCV cannot be imported ({error}); pip install opencv-python-headless"
        ) from error
    return cv2


def read_photo(source: PhotoSource) -> Photo:
    """Return a photo as uint8 RGB ``(H, W, 3)``.

    Files are turned upright by their EXIF orientation, grey becomes RGB, 16-bit values are
    scaled to 8 bits, and transparent pixels show white (a file with an alpha channel is not
    rotated). Arrays are taken as RGB ``(H, W, 3)``, RGBA ``(H, W, 4)`` or grey ``(H, W)`` or
    ``(H, W, 1)``, of uint8 or uint16.

    Raises:
        ImageError: no such file, not an image, damaged, or too large.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), "the given bytes")
    path = Path(source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read image {path}: {error.strerror or error}") from error
    return _decode(data, str(path))


def _decode(data: bytes, name: str) -> Photo:
    if not data:
        raise ImageError(f"{name}: the image is empty (0 bytes)")
    header = read_header(data)
    if header is None:
        raise ImageError(f"{name}: not an image of a known format ({', '.join(FORMAT_NAMES)})")
    _refuse_oversized(header.height, header.width, name)
    pixels = _decode_upright(data, header) if header.height and header.width else None
    if pixels is None:
        raise ImageError(f"{name}: this {header.format} image is damaged or of an unsupported kind")
    if pixels.dtype in DTYPES:  # others are refused below
        cv2 = import_cv2()
        code = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
        pixels = cv2.cvtColor(pixels, code)
    return _from_array(pixels, name)


def _decode_upright(data: bytes, header: ImageHeader) -> NDArray[Any] | None:
    """Return pixels as BGR or BGRA, or None where OpenCV cannot decode them.

    Only the conversion to BGR turns photos upright, and it drops the alpha channel: a file that
    may have one is decoded as it is first.
    """
    cv2 = import_cv2()
    encoded = np.frombuffer(data, np.uint8)
    try:
        if header.may_have_alpha:
            pixels: NDArray[Any] | None = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
            if pixels is None or (pixels.ndim == 3 and pixels.shape[2] == 4):
                return pixels
        pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        return None
    return pixels


def _from_array(pixels: NDArray[Any], name: str = "image array") -> Photo:
    """Return any accepted array as a contiguous uint8 RGB array.

    Raises:
        ImageError: a shape or dtype that photos do not have.
    """
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in {3, 4})
    if not fits or 0 in pixels.shape:
        raise ImageError(
            f"{name}: expected shape (H, W, 3), (H, W, 4) or (H, W), got {pixels.shape}"
        )
    if pixels.dtype not in DTYPES:
        raise ImageError(
            f"{name}: expected uint8 pixel values from 0 to 255 (or uint16), got {pixels.dtype}"
        )
    _refuse_oversized(pixels.shape[0], pixels.shape[1], name)
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.shape[2] == 4:
        color, alpha = pixels[..., :3].astype(np.uint32), pixels[..., 3:].astype(np.uint32)
        pixels = ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def _refuse_oversized(height: int, width: int, name: str) -> None:
    limit = _max_pixels()
    if height * width > limit:
        raise ImageError(
            f"{name}: {width} x {height} pixels is over the limit of {limit}; make it smaller, or"
            f" raise the limit with the environment variable {MAX_PIXELS_VARIABLE}"
        )


def _max_pixels() -> int:
    value = os.environ.get(MAX_PIXELS_VARIABLE, "")
    return int(value) if value.isdecimal() else MAX_PIXELS
