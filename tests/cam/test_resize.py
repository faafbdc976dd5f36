from __future__ import annotations

import cv2
import numpy as np
import pytest

from onnx_gradcam.cam import heat_maps, resize
from onnx_gradcam.cam.postprocess import normalise
from onnx_gradcam.cam.resize import ends_of_resized, resize_linear, sample_linear

RANDOM = np.random.default_rng(4)
SHAPES = [
    ((7,), (224,)),
    ((7, 7), (224, 224)),
    ((14, 20), (299, 331)),
    ((5, 9), (3, 40)),
    ((70, 3), (130, 211)),
    ((3, 70), (4, 90)),
    ((200, 90), (31, 12)),
    ((4, 5, 6), (9, 5, 13)),
]
"""Few elements, many, prime numbers of pixels, and fewer pixels than elements."""


def by_neighbours(maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:  # type: ignore[type-arg]
    """Return resized maps, looked up along each axis."""
    for axis, pixels in enumerate(size, start=1):
        elements = maps.shape[axis]
        maps = sample_linear(maps, (np.arange(pixels) + 0.5) * elements / pixels - 0.5, axis)
    return maps


@pytest.mark.parametrize(("source", "size"), SHAPES)
def test_matrices_and_neighbours_agree(source: tuple[int, ...], size: tuple[int, ...]) -> None:
    maps = RANDOM.normal(size=(3, *source)).astype(np.float32)
    resized = resize_linear(maps, size)
    np.testing.assert_allclose(resized, by_neighbours(maps, size), rtol=0, atol=2e-6)
    np.testing.assert_array_equal(resized[1:2], resize_linear(maps[1:2], size))


@pytest.mark.parametrize(("source", "size"), [((64, 64), (224, 200)), ((65, 80), (224, 200))])
def test_maps_with_many_elements_equal_opencv(
    source: tuple[int, int], size: tuple[int, int]
) -> None:
    maps = RANDOM.normal(size=(2, *source)).astype(np.float32)
    expected = np.stack([cv2.resize(m, size[::-1], interpolation=cv2.INTER_LINEAR) for m in maps])
    np.testing.assert_allclose(resize_linear(maps, size), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("source", "size"), SHAPES)
def test_ends_are_known_before_resizing(source: tuple[int, ...], size: tuple[int, ...]) -> None:
    maps = RANDOM.normal(size=(4, *source)).astype(np.float32)
    resized = resize_linear(maps, size).reshape(4, -1)
    low, high = ends_of_resized(maps, size)
    np.testing.assert_allclose(low, resized.min(axis=1), rtol=1e-6)
    np.testing.assert_allclose(high, resized.max(axis=1), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e30])
@pytest.mark.parametrize("rectify", [True, False])
@pytest.mark.parametrize(("source", "size"), SHAPES)
def test_heat_maps_are_normalised_resized_and_normalised_again(
    source: tuple[int, ...], size: tuple[int, ...], rectify: bool, scale: float
) -> None:
    raw = np.float32(scale) * RANDOM.normal(size=(3, *source)).astype(np.float32)
    small = normalise(np.maximum(raw, 0) if rectify else raw)
    maps = heat_maps(raw, size, rectify=rectify)
    np.testing.assert_allclose(maps, normalise(by_neighbours(small, size)), rtol=0, atol=2e-6)
    axes = tuple(range(1, maps.ndim))
    assert maps.min(axis=axes).tolist() == [0, 0, 0]
    assert maps.max() <= 1


@pytest.mark.parametrize(
    ("rows", "work", "blocks"), [(224, 7 * 224, 2), (224, 14 * 224, 4), (331, 14 * 331, 331)]
)
def test_products_stay_on_one_thread(rows: int, work: int, blocks: int) -> None:
    """A thread of BLAS that has been woken spins for milliseconds, beside those of onnxruntime."""
    assert resize._blocks(rows, work) == blocks
    assert rows // blocks * work <= resize.ON_ONE_THREAD
