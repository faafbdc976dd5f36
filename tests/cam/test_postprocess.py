from __future__ import annotations

import cv2
import numpy as np
import pytest

from onnx_gradcam.cam import heat_maps, resize_linear
from onnx_gradcam.errors import UsageError

RANDOM = np.random.default_rng(4)


@pytest.mark.parametrize("source", [(7, 7), (2, 2), (1, 1), (5, 9), (13, 4)])
@pytest.mark.parametrize("size", [(224, 224), (33, 17), (7, 7), (3, 5), (1, 1), (31, 8)])
def test_resize_equals_opencv(source: tuple[int, int], size: tuple[int, int]) -> None:
    maps = RANDOM.normal(size=(2, *source)).astype(np.float32)
    expected = np.stack([cv2.resize(m, size[::-1], interpolation=cv2.INTER_LINEAR) for m in maps])
    np.testing.assert_allclose(resize_linear(maps, size), expected, rtol=0, atol=2e-6)


def test_resize_along_one_and_three_axes() -> None:
    line = np.array([[0, 1]], np.float32)
    assert resize_linear(line, (4,)).tolist() == [[0, 0.25, 0.75, 1]]
    cube = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    grown = resize_linear(cube, (4, 2, 6))
    assert grown.shape == (1, 4, 2, 6)
    assert (grown.min(), grown.max()) == (0, 7)


def test_resize_needs_as_many_extents_as_axes() -> None:
    with pytest.raises(UsageError, match="2 spatial axes"):
        resize_linear(np.zeros((1, 2, 2), np.float32), (4,))


def test_heat_maps_lie_between_zero_and_one() -> None:
    raw = RANDOM.normal(size=(3, 7, 7)).astype(np.float32)
    maps = heat_maps(raw, (64, 48))
    assert maps.shape == (3, 64, 48)
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps.min(axis=(1, 2)), 0)
    assert (maps.max(axis=(1, 2)) > 0.99999).all()
    assert maps.max() <= 1


@pytest.mark.parametrize("value", [0.0, -2.0, 5.0, np.nan, np.inf, -np.inf])
def test_a_map_without_contrast_is_zero(value: float) -> None:
    maps = heat_maps(np.full((2, 3, 3), value, np.float32), (6, 6))
    np.testing.assert_array_equal(maps, np.zeros((2, 6, 6), np.float32))


def test_nan_counts_as_no_evidence_and_infinity_as_the_most() -> None:
    raw = np.array([[[np.nan, 1], [2, 4]], [[np.inf, 1], [2, -np.inf]]], np.float32)
    maps = heat_maps(raw, (2, 2))
    np.testing.assert_allclose(maps, [[[0, 0.25], [0.5, 1]], [[1, 0], [0, 0]]], atol=1e-6)


def test_each_map_has_its_own_scale() -> None:
    one = RANDOM.random((1, 4, 4)).astype(np.float32)
    both = heat_maps(np.concatenate([one, 1000 * one]), (8, 8))
    np.testing.assert_allclose(both[0], both[1], atol=1e-5)


def test_faint_maps_are_normalised_as_pytorch_grad_cam_does() -> None:
    raw = np.array([[[0, 1e-8], [0, 0]]], np.float32)
    first = np.float32(1e-8) / np.float32(1e-7 + 1e-8)
    assert heat_maps(raw, (2, 2)).max() == pytest.approx(first / (1e-7 + first), rel=1e-6)


def test_no_maps() -> None:
    assert heat_maps(np.zeros((0, 3, 3)), (5, 6)).shape == (0, 5, 6)
