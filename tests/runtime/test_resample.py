from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from onnx_gradcam.runtime.resample import FILTERS, filter_weights, resize

REFERENCES = np.load(Path(__file__).parent / "resize_references.npz")
PHOTO = REFERENCES["photo"]
SIZES = [(10, 14), (7, 7), (29, 13), (45, 60), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_antialiased_resize_equals_pillow(name: str, size: tuple[int, int]) -> None:
    expected = REFERENCES[f"{name}/{size[0]}x{size[1]}"]
    np.testing.assert_array_equal(resize(PHOTO, size, name, antialias=True), expected)


def test_gray_photos_are_resized_alike() -> None:
    for name in FILTERS:
        gray = resize(np.ascontiguousarray(PHOTO[..., 1]), (10, 14), name, antialias=True)
        np.testing.assert_array_equal(gray, REFERENCES[f"{name}/10x14"][..., 1])


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("source", "target"), [(100, 7), (7, 100), (5, 5), (3, 1)])
def test_weights_sum_to_one(name: str, source: int, target: int) -> None:
    indices, weights = filter_weights(source, target, FILTERS[name])
    assert indices.shape == weights.shape
    assert (indices.min(), indices.max()) == (0, source - 1)
    np.testing.assert_allclose(weights.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("name", "flag"),
    [("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC), ("area", cv2.INTER_AREA)],
)
def test_without_antialiasing_it_is_opencv(name: str, flag: int) -> None:
    expected = cv2.resize(PHOTO, (14, 10), interpolation=flag)
    np.testing.assert_array_equal(resize(PHOTO, (10, 14), name, antialias=False), expected)


def test_nearest_takes_the_pixel_at_the_centre() -> None:
    ramp = np.arange(9, dtype=np.uint8)[None].repeat(2, axis=0)
    assert resize(ramp, (2, 3), "nearest", antialias=True)[0].tolist() == [1, 4, 7]


def test_the_same_size_is_left_alone() -> None:
    assert resize(PHOTO, (29, 41), "bicubic", antialias=True) is PHOTO
