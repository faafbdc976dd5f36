from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from onnx_gradcam.runtime.resample import FILTERS, Filter, filter_weights, resize

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


def in_integers(photo: np.ndarray, axis: int, target: int, kernel: Filter) -> np.ndarray:
    """Return one pass of Pillow's resize as Pillow computes it, one tap after another."""
    indices, weights = filter_weights(photo.shape[axis], target, kernel)
    scaled = weights * (1 << 22)
    fixed = np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32)
    shape = [target if a == axis else 1 for a in range(photo.ndim)]
    total = np.int32(1 << 21)
    for tap in range(indices.shape[1]):
        total = total + photo.take(indices[:, tap], axis).astype(np.int32) * fixed[:, tap].reshape(
            shape
        )
    return (total >> 22).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(
    ("source", "target"), [((37, 53), (20, 31)), ((700, 11), (6, 30)), ((9, 1200), (9, 17))]
)
def test_blocks_of_floats_give_the_bits_of_the_integers(
    name: str, source: tuple[int, int], target: tuple[int, int]
) -> None:
    # black and white overshoots most
    photo = np.random.default_rng(5).choice(np.array([0, 1, 254, 255], np.uint8), (*source, 3))
    expected = photo
    for axis in (1, 0):
        if source[axis] != target[axis]:
            expected = in_integers(expected, axis, target[axis], FILTERS[name])
    whole = resize(photo, target, name, antialias=True)
    np.testing.assert_array_equal(whole, expected)
    part = (slice(1, target[0] - 1), slice(3, 12))
    np.testing.assert_array_equal(
        resize(photo, target, name, antialias=True, part=part), expected[part]
    )


@pytest.mark.parametrize("name", ["nearest", "bilinear"])
def test_a_part_of_what_opencv_makes(name: str) -> None:
    part = (slice(2, 9), slice(0, 5))
    whole = resize(PHOTO, (10, 14), name, antialias=False)
    np.testing.assert_array_equal(
        resize(PHOTO, (10, 14), name, antialias=False, part=part), whole[part]
    )
    unchanged = resize(PHOTO, (29, 41), name, antialias=True, part=part)
    np.testing.assert_array_equal(unchanged, PHOTO[part])
