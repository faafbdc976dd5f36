"""Methods that run the model again, on a small network and against what libraries make of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from onnx_gradcam.cam import Need, compute, get_method, heat_maps, method_names, paint
from onnx_gradcam.cam.black_box import occlusion, rise
from onnx_gradcam.cam.masking import iscam, scorecam, sscam
from onnx_gradcam.cam.smooth import smooth_gradcam_plus_plus
from onnx_gradcam.errors import UsageError
from tests.cam.small_network import (
    CLASSES,
    IMAGES,
    REFERENCES,
    SIZE,
    Array,
    SmallRuns,
    activations,
    gradients,
)

A = activations(IMAGES)
SEED = 7
RERUNNING = [n for n in method_names() if Need.MODEL_RUNS in get_method(n).needs]
SEEDED = [n for n in RERUNNING if Need.SEED in get_method(n).needs]
BLACK_BOX = ["rise", "occlusion"]
FEWER: dict[str, dict[str, int]] = {"rise": {"masks": 60}, "sscam": {"samples": 5}}


def raw_maps(name: str, runs: Any, a: Array = A, seed: int = SEED, **options: Any) -> Array:
    return compute(name, a, seed=seed, further={Need.MODEL_RUNS: runs}, **options)


def call(name: str, runs: Any, a: Array = A, seed: int = SEED, **options: Any) -> Array:
    """Call the function behind a name, with options of its own and fewer samples."""
    function: Callable[..., Array] = get_method(name).function
    options |= {"model_runs": runs, **FEWER.get(name, {})}
    if name in SEEDED:
        options["seed"] = seed
    return function(*[a] * (name not in BLACK_BOX), **options)


class LinearRuns:
    """y = the images times `weights` ``(K, channels, *size)``, summed."""

    def __init__(self, images: Array, weights: Array, classes: Array) -> None:
        self.images, self.weights, self.classes = images, weights, classes
        self.scores = self(images, np.arange(len(images)))

    def __call__(self, images: Array, rows: Array) -> Array:
        axes = list(range(1, images.ndim))
        return np.tensordot(images, self.weights, (axes, axes)).astype(np.float32)

    def explain(self, images: Array, rows: Array) -> tuple[Array, Array]:
        g = self.weights[self.classes[rows]]
        return images, g.astype(np.float32)


def test_the_methods() -> None:
    assert ["scorecam", "sscam", "iscam", "smoothgradcam++", *BLACK_BOX] == RERUNNING
    assert SEEDED == ["sscam", "smoothgradcam++", "rise"]
    seeing = [name for name in method_names() if not get_method(name).sees_activations]
    assert seeing == BLACK_BOX


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("pytorch-grad-cam", "scorecam"),
        ("torchcam", "sscam"),
        ("torchcam", "iscam"),
        ("paper", "smoothgradcam++"),
    ],
)
def test_maps_agree_with_the_references(library: str, name: str) -> None:
    raw = raw_maps(name, SmallRuns())
    reference = REFERENCES[f"{library}/{name}/raw"]
    largest = np.abs(reference).max(axis=(1, 2), keepdims=True)
    assert np.ptp(reference / largest, axis=(1, 2)).min() > 0.4, "or rounding is compared"
    np.testing.assert_array_less(np.abs(raw - reference) / largest, 2e-6)
    if library != "paper":
        expected = REFERENCES[f"{library}/{name}/cam"]
        cams = heat_maps(raw, expected.shape[1:])
        np.testing.assert_allclose(cams, expected, rtol=0, atol=2e-6)


def test_the_references_tell_the_methods_apart() -> None:
    keys = ["pytorch-grad-cam/scorecam", "torchcam/sscam", "torchcam/iscam"]
    maps = [REFERENCES[f"{key}/raw"] for key in keys]
    differences = [np.abs(maps[i] - maps[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(differences) > 0.1


def test_where_torchcam_departs_from_score_cam() -> None:
    """It stretches first, and lays half-pixel centres on one another, as its SS-CAM does."""
    reference = REFERENCES["torchcam/scorecam/raw"]
    largest = np.abs(reference).max(axis=(1, 2), keepdims=True)
    without_noise = sscam(A, SmallRuns(), samples=1, deviation=0)
    np.testing.assert_array_less(np.abs(without_noise - reference) / largest, 2e-6)
    ours = np.abs(raw_maps("scorecam", SmallRuns()) - reference) / largest
    assert (ours.max(axis=(1, 2)) > 1e-3).all()


def test_where_torchcam_departs_from_smooth_gradcam_plus_plus() -> None:
    """Its map follows from our pieces by the three departures that the docstring names."""
    found = []
    for row, image in enumerate(IMAGES):
        random, spread = np.random.RandomState(SEED), 0.3 * image.std(dtype=np.float64)
        noise = spread * random.standard_normal((4, *image.shape))
        a, g = SmallRuns().explain((image + noise).astype(np.float32), np.full(4, row))
        second, third = (g.astype(np.float64) ** n for n in (2, 3))
        inside = (third.mean(axis=0) * A[row]).sum(axis=(1, 2), keepdims=True)
        ratio = second.mean(axis=0) / (2 * second.mean(axis=0) + inside + 1e-8)
        weights = (ratio * np.maximum(g[-1], 0)).sum(axis=(1, 2), keepdims=True)
        found.append((weights * a[-1]).sum(axis=0))
    reference = REFERENCES["torchcam/smoothgradcam++/raw"]
    np.testing.assert_allclose(found, reference, rtol=0, atol=1e-5 * np.abs(reference).max())
    ours = raw_maps("smoothgradcam++", SmallRuns())
    assert (np.abs(ours - reference).max(axis=(1, 2)) > 0.1).all()


def test_smooth_gradcam_plus_plus_without_noise_is_gradcam_plus_plus() -> None:
    weights = np.eye(5)[CLASSES]
    plain = compute("gradcam++", A, 100 * gradients(A, weights))

    class Steep(SmallRuns):  # large gradients, beside which the small constants do not count
        def explain(self, images: Array, rows: Array) -> tuple[Array, Array]:
            a, g = super().explain(images, rows)
            return a, 100 * g

    still = smooth_gradcam_plus_plus(A, Steep(), samples=3, deviation=0)
    np.testing.assert_allclose(still, plain, rtol=0, atol=1e-5 * np.abs(plain).max())
    noisy = smooth_gradcam_plus_plus(A, Steep())
    assert np.abs(noisy - plain).max() > 1e-2 * np.abs(plain).max()


@pytest.mark.parametrize("name", SEEDED)
def test_the_seed_decides(name: str) -> None:
    raw = call(name, SmallRuns())
    np.testing.assert_array_equal(call(name, SmallRuns()), raw)
    other = call(name, SmallRuns(), seed=SEED + 1)
    assert np.abs(other - raw).max() > 1e-3 * np.abs(raw).max()
    for seed in (-1, 2**32):
        with pytest.raises(UsageError, match="seed"):
            raw_maps(name, SmallRuns(), seed=seed)


@pytest.mark.parametrize(
    ("name", "each"),
    [("scorecam", 6), ("sscam", 6 * 5), ("iscam", 6 * 10), ("rise", 60), ("occlusion", 10 * 13)],
)
@pytest.mark.parametrize("block", [1, 5, 1000])
def test_blocks_of_any_size_give_the_same_map(name: str, each: int, block: int) -> None:
    runs, usual = SmallRuns(), SmallRuns()
    raw = call(name, runs, block=block)
    assert max(runs.blocks) == min(block, each)
    expected = call(name, usual)
    assert max(usual.blocks) <= 32
    assert sum(runs.blocks) == sum(usual.blocks)
    assert sum(runs.blocks) == 3 * each
    np.testing.assert_allclose(raw, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "each"), [("scorecam", 6), ("sscam", 210), ("iscam", 60), ("rise", 1000)]
)
def test_how_often_the_model_runs(name: str, each: int) -> None:
    runs = SmallRuns(IMAGES[:1], CLASSES[:1])
    raw_maps(name, runs, A[:1])
    assert sum(runs.blocks) == each
    assert max(runs.blocks) <= 32


@pytest.mark.parametrize("block", [1, 3])
def test_gradients_come_in_blocks_too(block: int) -> None:
    runs = SmallRuns()
    raw = call("smoothgradcam++", runs, block=block)
    assert max(runs.gradient_blocks) == block
    assert sum(runs.gradient_blocks) == 3 * 4
    assert not runs.blocks
    expected = call("smoothgradcam++", SmallRuns())
    np.testing.assert_allclose(raw, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", RERUNNING)
def test_a_batch_is_its_images_one_by_one(name: str) -> None:
    together = call(name, SmallRuns())
    for row in range(len(IMAGES)):
        one = slice(row, row + 1)
        alone = call(name, SmallRuns(IMAGES[one], CLASSES[one]), A[one])
        np.testing.assert_array_equal(alone[0], together[row])
    assert np.abs(together[0] - together[1]).max() > 1e-3


class BrokenRuns(SmallRuns):
    """Scores and gradients that overflow for the second image, once it is changed."""

    def __call__(self, images: Array, rows: Array) -> Array:
        y = super().__call__(images, rows)
        y[(rows == 1) & (images.sum(axis=(1, 2, 3)) != 0)] = np.nan
        return y

    def explain(self, images: Array, rows: Array) -> tuple[Array, Array]:
        a, g = super().explain(images, rows)
        g[rows == 1] = np.inf
        return a, g


@pytest.mark.parametrize("name", RERUNNING)
def test_a_score_that_is_not_finite_is_reported_and_not_painted(name: str) -> None:
    options: dict[str, Any] = {"seed": SEED, "further": {Need.MODEL_RUNS: BrokenRuns()}}
    painted = paint(name, A, None, SIZE, **options)
    assert painted.notes == ("", "the raw map holds NaN or infinite values", "")
    assert not painted.cams[1].any()
    clean = paint(name, A, None, SIZE, **(options | {"further": {Need.MODEL_RUNS: SmallRuns()}}))
    assert clean.notes == ("", "", "")
    np.testing.assert_array_equal(painted.cams[::2], clean.cams[::2])
    assert (clean.cams.max(axis=(1, 2)) > 0.99).all()


@pytest.mark.parametrize("name", RERUNNING)
def test_activations_that_are_not_finite_matter_where_they_are_seen(name: str) -> None:
    a = A.copy()
    a[1, 2, 3, 3] = np.nan
    further = {Need.MODEL_RUNS: SmallRuns()}
    painted = paint(name, a, None, SIZE, seed=SEED, further=further)
    note = "" if name in BLACK_BOX else "the activations hold NaN or infinite values"
    assert painted.notes == ("", note, "")
    assert painted.cams[1].any() == (name in BLACK_BOX)


@pytest.mark.parametrize("name", [n for n in RERUNNING if get_method(n).smooths])
def test_eigen_smooth_takes_the_first_component_of_the_summands(name: str) -> None:
    raw = raw_maps(name, SmallRuns())
    smooth = raw_maps(name, SmallRuns(), eigen_smooth=True)
    assert np.abs(smooth - raw).max() > 0.01
    evidence = smooth * (raw - raw.mean(axis=(1, 2), keepdims=True))
    assert (evidence.sum(axis=(1, 2)) > 0).all()


@pytest.mark.parametrize("name", RERUNNING)
def test_no_images(name: str) -> None:
    runs = SmallRuns(IMAGES[:0], CLASSES[:0])
    assert len(raw_maps(name, runs, A[:0])) == 0
    assert not runs.blocks


def test_scorecam_by_hand() -> None:
    """Two channels, one of which covers what the class likes."""
    a = np.array([[[[0, 3]], [[5, 1]]]], np.float32)
    images = np.full((1, 1, 1, 3), 2, np.float32)  # masks 0, 1/2, 1 and 1, 1/2, 0
    weights = np.array([[[[0, 0, 0]]], [[[0, 1, 0.5]]]], np.float32)
    runs = LinearRuns(images, weights, np.array([1]))
    powers = np.exp([2 * (1 / 2 + 0.5), 2 * (1 / 2)])
    w = powers / powers.sum()
    expected = [[[5 * w[1], 3 * w[0] + w[1]]]]
    np.testing.assert_allclose(raw_maps("scorecam", runs, a), expected, rtol=1e-6)


def test_flat_channels_hide_the_image() -> None:
    a = np.ones((1, 2, 2, 2), np.float32)
    runs = LinearRuns(np.ones((1, 1, 4, 4), np.float32), np.ones((2, 1, 4, 4)), np.array([0]))
    for function in (scorecam, iscam):
        np.testing.assert_allclose(function(a, runs), np.ones((1, 2, 2)), rtol=1e-6)
    with_noise = sscam(a, runs)
    np.testing.assert_allclose(with_noise, np.ones((1, 2, 2)), rtol=1e-6)


def test_iscam_multiplies_masks_by_sums_of_steps() -> None:
    a = np.array([[[[0, 1]], [[1, 0]]]], np.float32)
    weights = np.zeros((2, 1, 1, 2))
    weights[0, 0, 0] = [1, 3]
    runs = LinearRuns(np.ones((1, 1, 1, 2), np.float32), weights, np.array([0]))
    # multiples 1/4, 3/4, 6/4, 10/4 of masks that score 3 and 1: on average 5/4
    powers = np.exp([3 * 5 / 4, 5 / 4])
    raw = iscam(a, runs, samples=4)
    np.testing.assert_allclose(raw[0, 0], powers[::-1] / powers.sum(), rtol=1e-6)


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
    painted = paint("occlusion", A, None, SIZE, further={Need.MODEL_RUNS: SmallRuns()})
    positive = np.maximum(painted.raw, 0)
    assert painted.raw.shape == painted.cams.shape == (3, *SIZE)
    expected = positive / positive.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(painted.cams, expected, atol=1e-5)
