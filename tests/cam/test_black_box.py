"""RISE and occlusion, against direct definitions."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from onnx_gradcam.cam import Need, paint
from onnx_gradcam.cam.black_box import occlusion, rise
from tests.cam.small_network import (
    CLASSES,
    IMAGES,
    SIZE,
    Array,
    LinearRuns,
    SmallRuns,
    activations,
)


def direct_rise(seed: int, masks: int) -> Array:
    """RISE by opencv, one mask at a time."""
    random, total = np.random.RandomState(seed), np.zeros(IMAGES.shape[:1] + SIZE)
    cell = (2, 2)  # a seventh of 11 x 14 pixels, rounded up
    for _ in range(masks):
        grid = (random.random_sample((7, 7)) < 0.5).astype(np.float32)
        large = cv2.resize(grid, (16, 16), interpolation=cv2.INTER_LINEAR)
        top, left = (int(extent * random.random_sample()) for extent in cell)
        mask = large[top : top + SIZE[0], left : left + SIZE[1]]
        y = SmallRuns()(IMAGES * mask, np.arange(3)).astype(np.float64)
        p = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
        total += p[np.arange(3), CLASSES][:, None, None] * mask
    return total / masks / 0.5


def test_rise_is_the_mean_of_masks_by_what_they_score() -> None:
    raw = rise(SmallRuns(), seed=3, masks=50)
    assert raw.shape == (3, *SIZE)
    np.testing.assert_allclose(raw, direct_rise(3, 50), rtol=0, atol=1e-6)
    assert np.ptp(raw, axis=(1, 2)).min() > 0.01


def test_rise_of_a_model_that_sees_nothing_is_its_probability() -> None:
    images = np.ones((1, 1, 21, 28), np.float32)
    runs = LinearRuns(images, np.zeros((4, 1, 21, 28)), np.array([2]))
    np.testing.assert_allclose(rise(runs, masks=4000), 1 / 4 * np.ones((1, 21, 28)), atol=0.02)


@pytest.mark.parametrize("function", [rise, occlusion])
@pytest.mark.parametrize("size", [(30,), (21, 28), (8, 9, 10)])
def test_black_boxes_find_what_the_score_depends_on(
    function: Callable[..., Array], size: tuple[int, ...]
) -> None:
    random = np.random.default_rng(1)
    images = (1 + 0.1 * random.normal(size=(2, 3, *size))).astype(np.float32)
    weights = np.zeros((2, 3, *size))
    here = tuple(slice(extent // 2, extent // 2 + 3) for extent in size)
    for channel, (row, sign) in enumerate([(0, 1), (1, 1), (1, -1)]):
        weights[(row, channel, *here)] = sign / 3 ** len(size)
    images[(slice(None), slice(None), *here)] *= 3  # a patch of the mean colour hides it
    raw = function(LinearRuns(images, weights, np.array([0, 0])))
    assert raw.shape == (2, *size)
    inside = np.zeros(size, bool)
    inside[here] = True
    for one in raw:
        assert inside[np.unravel_index(one.argmax(), size)]
        assert one[inside].mean() > np.abs(one[~inside]).mean() + 0.01


def direct_occlusion(window: tuple[int, int], stride: tuple[int, int]) -> Array:
    """Occlusion pixel by pixel of the patch's places."""

    def probability(images: Array) -> Array:
        y = SmallRuns()(images, np.arange(3)).astype(np.float64)
        return (np.exp(y) / np.exp(y).sum(axis=1, keepdims=True))[np.arange(3), CLASSES]

    drops: dict[tuple[int, int], list[Array]] = {}
    grey = IMAGES.mean(axis=(2, 3))
    top = 0
    while True:
        left = 0
        while True:
            rows = range(top, min(top + window[0], SIZE[0]))
            columns = range(left, min(left + window[1], SIZE[1]))
            hidden = IMAGES.copy()
            for r in rows:
                for c in columns:
                    hidden[:, :, r, c] = grey
            drop = probability(IMAGES) - probability(hidden)
            for r in rows:
                for c in columns:
                    drops.setdefault((r, c), []).append(drop)
            if left + window[1] >= SIZE[1]:
                break
            left += stride[1]
        if top + window[0] >= SIZE[0]:
            break
        top += stride[0]
    found = np.zeros((3, *SIZE))
    for place, each in drops.items():
        found[:, place[0], place[1]] = np.mean(each, axis=0)
    return found


@pytest.mark.parametrize(
    ("window", "stride"), [((2, 2), (1, 1)), ((4, 5), (3, 2)), ((20, 3), (5, 3)), ((2, 2), (4, 5))]
)
def test_occlusion_is_the_mean_drop_of_patches_over_a_pixel(
    window: tuple[int, int], stride: tuple[int, int]
) -> None:
    expected = direct_occlusion(window, stride)
    raw = occlusion(SmallRuns(), window=window, stride=stride)
    np.testing.assert_allclose(raw, expected, rtol=0, atol=1e-6)
    assert np.abs(expected).max(axis=(1, 2)).min() > 0.01


def test_a_patch_of_occlusion_is_a_seventh_of_the_image() -> None:
    images = np.ones((1, 1, 224, 224), np.float32)
    runs = LinearRuns(images, np.zeros((2, 1, 224, 224)), np.array([0]))
    seen: list[Array] = []

    class Watched(LinearRuns):
        def __call__(self, images: Array, rows: Array) -> Array:
            seen.extend((images != 1).sum(axis=(1, 2, 3)).tolist())
            return super().__call__(images, rows)

    images[0, 0, ::2] = 3
    watched = Watched(images, runs.weights, runs.classes)
    seen.clear()
    occlusion(watched)
    assert len(seen) == 169


def test_the_probability_of_a_single_score_is_its_sigmoid() -> None:
    images = np.arange(1, 13, dtype=np.float32).reshape(1, 1, 12)
    weights = np.zeros((1, 1, 12))
    weights[0, 0, -1] = 0.25
    runs = LinearRuns(images, weights, np.array([0]))
    raw = occlusion(runs, window=[1], stride=[1])
    drop = 1 / (1 + np.exp(-12 / 4)) - 1 / (1 + np.exp(-6.5 / 4))
    np.testing.assert_allclose(raw, [[*[0] * 11, drop]], atol=1e-6)
    further = {Need.MODEL_RUNS: runs}
    painted = paint("occlusion", np.ones((1, 2, 3), np.float32), None, (12,), further=further)
    np.testing.assert_allclose(painted.cams, [[*[0] * 10, 0.5, 1]], atol=1e-6)


def test_heat_maps_of_black_boxes_are_not_resized() -> None:
    painted = paint(
        "occlusion", activations(IMAGES), None, SIZE, further={Need.MODEL_RUNS: SmallRuns()}
    )
    positive = np.maximum(painted.raw, 0)
    assert painted.raw.shape == painted.cams.shape == (3, *SIZE)
    expected = positive / positive.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(painted.cams, expected, atol=1e-5)
