from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from onnx_gradcam.errors import ImageError
from onnx_gradcam.runtime import photo as photo_module
from onnx_gradcam.runtime.image_header import read_header
from onnx_gradcam.runtime.photo import Photo, read_photo

RGB = np.random.default_rng(6).integers(0, 256, (6, 9, 3), dtype=np.uint8)
LOSSLESS = [".png", ".bmp", ".tiff", ".ppm", ".webp"]


def encoded(pixels: np.ndarray[tuple[int, ...], np.dtype[np.integer]], ending: str) -> bytes:
    parameters = [cv2.IMWRITE_WEBP_QUALITY, 101] if ending == ".webp" else []
    done, data = cv2.imencode(ending, pixels, parameters)
    assert done
    return bytes(data.tobytes())


def bgr(pixels: Photo) -> Photo:
    return np.ascontiguousarray(pixels[..., ::-1])


@pytest.mark.parametrize("ending", LOSSLESS)
def test_lossless_formats(tmp_path: Path, ending: str) -> None:
    data = encoded(bgr(RGB), ending)
    path = tmp_path / f"photo{ending}"
    path.write_bytes(data)
    for source in (data, bytearray(data), memoryview(data), path, str(path)):
        np.testing.assert_array_equal(read_photo(source), RGB)


def test_jpeg() -> None:
    smooth = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    pixels = read_photo(encoded(bgr(smooth), ".jpg"))
    assert pixels.shape == (16, 24, 3)
    assert np.abs(pixels.astype(int) - smooth).max() <= 3


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Put an EXIF segment with this orientation behind the start marker."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize(
    ("orientation", "expected"), [(1, "red left"), (3, "red right"), (6, "red top"), (8, "red low")]
)
def test_exif_orientation(orientation: int, expected: str) -> None:
    half = np.zeros((16, 32, 3), np.uint8)
    half[:, :16] = (255, 0, 0)
    pixels = read_photo(with_orientation(encoded(bgr(half), ".jpg"), orientation))
    assert pixels.shape == ((16, 32, 3) if orientation in {1, 3} else (32, 16, 3))
    spots = {"left": (8, 4), "right": (8, 28), "top": (4, 8), "low": (28, 8)}
    red = [n for n, (y, x) in spots.items() if _is_inside(pixels, y, x) and pixels[y, x, 0] > 200]
    assert expected.split()[1] in red


def _is_inside(pixels: Photo, y: int, x: int) -> bool:
    return y < pixels.shape[0] and x < pixels.shape[1]


def test_gray_becomes_rgb() -> None:
    gray = RGB[..., 0]
    for pixels in (
        read_photo(encoded(gray, ".png")),
        read_photo(gray),
        read_photo(gray[..., None]),
    ):
        np.testing.assert_array_equal(pixels, gray[..., None].repeat(3, axis=2))


def test_transparent_pixels_show_white() -> None:
    alpha = np.full((6, 9, 1), 255, np.uint8)
    alpha[0] = 0
    alpha[1] = 51
    rgba = np.concatenate([RGB, alpha], axis=2)
    bgra = np.ascontiguousarray(rgba[..., [2, 1, 0, 3]])
    for pixels in (read_photo(rgba), read_photo(encoded(bgra, ".png"))):
        assert (pixels[0] == 255).all()
        np.testing.assert_array_equal(pixels[2:], RGB[2:])
        np.testing.assert_allclose(pixels[1], RGB[1] * 0.2 + 255 * 0.8, atol=0.6)


def test_16_bits_are_scaled_to_8() -> None:
    deep = RGB.astype(np.uint16) * 257
    for pixels in (read_photo(deep), read_photo(encoded(deep[..., ::-1].copy(), ".png"))):
        np.testing.assert_array_equal(pixels, RGB)
    gray = read_photo(encoded(deep[..., 0].copy(), ".png"))
    np.testing.assert_array_equal(gray[..., 1], RGB[..., 0])


def test_arrays_are_taken_as_rgb() -> None:
    np.testing.assert_array_equal(read_photo(RGB), RGB)
    np.testing.assert_array_equal(read_photo(RGB[:, ::-1]), RGB[:, ::-1])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (RGB.astype(np.float32), "uint8"),
        (RGB.astype(np.int64), "uint8"),
        (np.zeros((3, 6, 9), np.uint8), "shape"),
        (np.zeros((1, 6, 9, 3), np.uint8), "shape"),
        (np.zeros((0, 9, 3), np.uint8), "shape"),
        (np.zeros(5, np.uint8), "shape"),
    ],
)
def test_arrays_that_are_no_photo(
    array: np.ndarray[tuple[int, ...], np.dtype], message: str
) -> None:  # type: ignore[type-arg]
    with pytest.raises(ImageError, match=message):
        read_photo(array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello, I am no photo", "known format"),
        (b"%PDF-1.7", "known format"),
        (encoded(RGB, ".png")[:20], "PNG image is damaged"),
        (encoded(RGB, ".png")[:45], "damaged"),
        (encoded(RGB, ".tiff")[:100], "TIFF image is damaged"),
        (encoded(RGB, ".jpg")[:-100], "JPEG image is damaged"),
        (b"\xff\xd8\xff\xe0garbage", "JPEG image is damaged"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "PNG image is damaged"),
    ],
)
def test_files_that_are_no_photo(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        read_photo(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot read image"):
        read_photo(tmp_path / "none.png")
    with pytest.raises(ImageError, match="cannot read image"):
        read_photo(tmp_path)


def huge_png(side: int) -> bytes:
    """A small file that claims side x side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_a_huge_photo_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode() -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(photo_module, "import_cv2", decode)
    with pytest.raises(ImageError, match=r"20000 x 20000 .* over the limit"):
        read_photo(huge_png(20_000))


def test_the_limit_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(photo_module.MAX_PIXELS_VARIABLE, "53")
    for source in (RGB, encoded(RGB, ".png")):
        with pytest.raises(ImageError, match="limit of 53"):
            read_photo(source)
    monkeypatch.setenv(photo_module.MAX_PIXELS_VARIABLE, "54")
    assert read_photo(RGB).shape == (6, 9, 3)


@pytest.mark.parametrize(
    ("ending", "name"),
    [
        (".png", "PNG"),
        (".jpg", "JPEG"),
        (".bmp", "BMP"),
        (".tiff", "TIFF"),
        (".ppm", "PNM"),
        (".webp", "WebP"),
    ],
)
@pytest.mark.parametrize("size", [(6, 9), (1, 1), (300, 257)])
def test_headers(ending: str, name: str, size: tuple[int, int]) -> None:
    header = read_header(encoded(np.zeros((*size, 3), np.uint8), ending))
    assert header is not None
    assert (header.format, header.height, header.width) == (name, *size)


def test_headers_of_other_kinds() -> None:
    gif = read_header(b"GIF89a" + struct.pack("<HH", 320, 200) + b"\0" * 10)
    assert gif is not None
    assert (gif.format, gif.height, gif.width) == ("GIF", 200, 320)
    lossy = cv2.imencode(".webp", np.zeros((30, 70, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 50])
    webp = read_header(lossy[1].tobytes())
    assert webp is not None
    assert (webp.height, webp.width) == (30, 70)
    alpha = read_header(encoded(np.zeros((30, 70, 4), np.uint8), ".webp"))
    assert alpha is not None
    assert (alpha.height, alpha.width) == (30, 70)
    comment = read_header(b"P6\n# made by hand\n12 34\n255\n")
    assert comment is not None
    assert (comment.height, comment.width) == (34, 12)
