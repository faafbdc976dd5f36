"""Methods that run the model again, on a small network and against what libraries make of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnx_gradcam.cam import Need, compute, get_method, heat_maps, method_names, paint
from onnx_gradcam.cam.masking import iscam, scorecam, sscam
from onnx_gradcam.cam.smooth import smooth_gradcam_plus_plus
from onnx_gradcam.errors import UsageError
from tests.cam.small_network import (
    CLASSES,
    IMAGES,
    REFERENCES,
    SIZE,
    Array,
    LinearRuns,
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


def test_the_methods() -> None:
    assert ["scorecam", "sscam", "iscam", "smoothgradcam++", *BLACK_BOX] == RERUNNING
    assert SEEDED == ["sscam", "smoothgradcam++", "rise"]
    seeing = [name for name in RERUNNING if not get_method(name).sees_activations]
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
