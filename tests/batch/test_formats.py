"""Image files of every kind: what is measured is in pixels of the photo as people see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from onnx_gradcam.batch import BatchOptions
from onnx_gradcam.batch.regions import decode_counts
from onnx_gradcam.runtime import load
from onnx_gradcam.runtime.photo import read_photo
from tests.batch.examples import batch, rows, write_model
from tests.batch.test_regions import pixel_by_pixel
from tests.runtime.test_photo import with_orientation

OPTIONS = BatchOptions(shard_size=100, region="all", thumbnails=64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def photo(height: int = 60, width: int = 90) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a photo, BGR, that has no symmetry: dark, with a bright spot at the upper left."""
    pixels = np.random.default_rng(4).integers(0, 60, (height, width, 3), np.uint8)
    pixels[6:18, 9:27] = (40, 220, 250)
    return pixels


def only_row(model: Path, content: bytes, name: str, folder: Path) -> dict[str, Any]:
    (folder / name).write_bytes(content)
    batch(model, folder / name, folder / "out", OPTIONS, force=True)
    (row,) = rows(folder / "out")
    return row


def encoded(pixels: Any, ending: str, *options: int) -> bytes:
    return bytes(cv2.imencode(ending, pixels, options)[1].tobytes())


def mask_of_row(row: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    counts = decode_counts(row["rle"])
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    flat = np.pad(flat, (0, row["height"] * row["width"] - len(flat)))
    return flat.reshape(row["width"], row["height"]).T


MEASURED = (
    *("height", "width", "class", "score", "peak_x", "peak_y", "area", "rle"),
    *("box_x", "box_y", "box_width", "box_height", "crop_x", "crop_y", "map"),
)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_photos_are_measured_upright(model: Path, tmp_path: Path, orientation: int) -> None:
    jpeg = with_orientation(encoded(photo(), ".jpg"), orientation)
    row = only_row(model, jpeg, "turned.jpg", tmp_path)
    upright = read_photo(jpeg)
    assert upright.shape[:2] == (row["height"], row["width"])
    assert (row["height"], row["width"]) == ((60, 90) if orientation < 5 else (90, 60))
    expected = only_row(model, encoded(upright[..., ::-1], ".png"), "upright.png", tmp_path)
    assert {name: row[name] for name in MEASURED} == {name: expected[name] for name in MEASURED}
    explanation = load(model, device="cpu").explain_image(upright)
    assert explanation.geometry is not None
    heat = pixel_by_pixel(explanation.cams[0], explanation.geometry)
    mask = heat >= np.float32(0.5) * explanation.cams.max()
    np.testing.assert_array_equal(mask_of_row(row), mask)
    assert heat[row["peak_y"], row["peak_x"]] > 0.9
    ys, xs = np.nonzero(mask)
    assert (xs.min(), ys.min()) == (row["box_x"], row["box_y"])
    assert mask.sum() == row["area"]
    small = cv2.imdecode(np.frombuffer(row["thumbnail"], np.uint8), cv2.IMREAD_COLOR)
    assert small.shape[:2] == ((43, 64) if orientation < 5 else (64, 43))


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tiff", ".ppm", ".webp", ".gif"])
def test_formats_without_loss_give_the_same(model: Path, tmp_path: Path, ending: str) -> None:
    pixels = photo()
    if ending == ".gif":  # 256 colours
        pixels = (pixels // 64) * 64
        if cv2.imencode(ending, pixels)[0] is False:
            pytest.skip("this OpenCV writes no GIF")
    options = (cv2.IMWRITE_WEBP_QUALITY, 101) if ending == ".webp" else ()
    data = encoded(pixels, ending, *options)
    expected = only_row(model, encoded(pixels, ".png"), "x.png", tmp_path)
    row = only_row(model, data, f"x{ending}", tmp_path)
    if ending == ".gif":
        assert row["error"] is None
        assert row["score"] == pytest.approx(expected["score"], rel=0.1)
    else:
        assert {name: row[name] for name in MEASURED} == {n: expected[n] for n in MEASURED}


def test_sixteen_bits_grey_and_transparent(model: Path, tmp_path: Path) -> None:
    pixels = photo()
    expected = only_row(model, encoded(pixels, ".png"), "x.png", tmp_path)
    deep = only_row(model, encoded(pixels.astype(np.uint16) * 257, ".png"), "deep.png", tmp_path)
    assert deep["map"] == expected["map"]
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    assert only_row(model, encoded(opaque, ".png"), "a.png", tmp_path)["map"] == expected["map"]
    grey = pixels[..., 0]
    flat = only_row(model, encoded(grey, ".png"), "grey.png", tmp_path)
    same = only_row(model, encoded(np.dstack([grey] * 3), ".png"), "same.png", tmp_path)
    assert flat["map"] == same["map"] != expected["map"]


def test_the_four_colours_of_printing(model: Path, tmp_path: Path) -> None:
    """A JPEG of them holds what is left of the light, which OpenCV turns round."""
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[:, :45], pixels[:, 45:] = (200, 40, 30), (20, 180, 220)  # RGB
    image.fromarray(pixels).convert("CMYK").save(tmp_path / "print.jpg", quality=100)
    row = only_row(model, (tmp_path / "print.jpg").read_bytes(), "print.jpg", tmp_path)
    small = cv2.imdecode(np.frombuffer(row["thumbnail"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    for column, color in ((10, (200, 40, 30)), (55, (20, 180, 220))):
        assert np.abs(small[20, column].astype(int) - color).max() < 12


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 20000), (4000, 3000)])
def test_sizes_of_every_kind(model: Path, tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    row = only_row(model, encoded(pixels, ".png"), "x.png", tmp_path)
    assert row["error"] is None
    assert (row["height"], row["width"]) == shape
    assert 0 <= row["peak_x"] < shape[1]
    assert 0 <= row["peak_y"] < shape[0]
    if row["area"]:  # of what is hot, nothing may be at the middle of a pixel
        assert mask_of_row(row).sum() == row["area"]
        assert row["box_x"] + row["box_width"] <= shape[1]
        assert row["box_y"] + row["box_height"] <= shape[0]
    else:
        assert row["rle"] is row["box_x"] is None
        assert min(shape) < 8
