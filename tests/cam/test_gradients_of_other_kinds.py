"""Shapley-CAM, and the weights of Finer-CAM."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.cam import Need, compute, finer_weights, heat_maps
from onnx_gradcam.errors import UnsupportedModelError
from tests.cam.small_network import CLASSES, IMAGES, REFERENCES, SIZE, Array, activations, gradients
from tests.cam.small_network import head as scores_of

A, G, CURVATURE = (REFERENCES[key] for key in ("activations", "gradients", "curvature"))


def shapley(curvature: Array) -> Array:
    return compute("shapleycam", A, G, further={Need.CURVATURE: curvature})


def test_shapleycam_agrees_with_pytorch_grad_cam() -> None:
    reference = REFERENCES["pytorch-grad-cam/shapleycam/raw"]
    raw = shapley(CURVATURE)
    np.testing.assert_allclose(raw, reference, rtol=0, atol=2e-6 * np.abs(reference).max())
    cams = heat_maps(raw, SIZE)
    expected = REFERENCES["pytorch-grad-cam/shapleycam/cam"]
    np.testing.assert_allclose(cams, expected, rtol=0, atol=2e-6)


def test_shapleycam_of_a_score_that_is_linear_in_the_activations_is_gradcam() -> None:
    plain = compute("gradcam", A, G)
    np.testing.assert_array_equal(shapley(np.zeros_like(A)), plain)
    assert np.abs(shapley(CURVATURE) - plain).max() > 0.05 * np.abs(plain).max()


def test_shapleycam_needs_curvature() -> None:
    with pytest.raises(UnsupportedModelError, match="'shapleycam' needs second derivatives"):
        compute("shapleycam", A, G)


def test_curvature_is_the_second_derivative_times_the_activations() -> None:
    """What an exported file has to supply, by central differences."""
    step, weights = 1e-3, np.eye(5)[CLASSES]
    a = A.astype(np.float64)
    ahead, behind = (gradients(a * (1 + s), weights).astype(np.float64) for s in (step, -step))
    found = (ahead - behind) / (2 * step)
    np.testing.assert_allclose(found, CURVATURE, rtol=0, atol=1e-3 * np.abs(CURVATURE).max())


@pytest.mark.parametrize("classes", [6, 3, 2])
def test_finer_weights_agree_with_autograd(classes: int) -> None:
    expected = REFERENCES[f"finer{classes}/weights"]
    scores, chosen = (REFERENCES[f"finer{classes}/{key}"] for key in ("scores", "classes"))
    found = finer_weights(scores, chosen)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)
    # of six classes the last row compares with such that have next to no probability
    assert classes != 6 or 0.95 < expected[-1, chosen[-1]] < 0.99


@pytest.mark.parametrize(("alpha", "comparisons"), [(1.0, 3), (0.6, 1), (0.0, 2), (1.5, 99)])
def test_finer_weights_are_the_slope_of_their_target(alpha: float, comparisons: int) -> None:
    random = np.random.default_rng(9)
    scores, chosen = 2 * random.normal(size=(20, 7)), random.integers(0, 7, 20)

    def target(y: Array) -> Array:
        found = []
        for row, c in zip(y, chosen, strict=True):
            others = [d for d in range(7) if d != c]
            near = sorted(others, key=lambda d: abs(row[d] - row[c]))[:comparisons]
            p = np.exp(row) / np.exp(row).sum()
            top = sum(p[d] * (row[c] - alpha * row[d]) for d in near)
            found.append(top / (sum(p[d] for d in near) + 1e-9))
        return np.array(found)

    found = finer_weights(scores, chosen, alpha, comparisons)
    for k in range(7):
        step = 1e-6 * np.eye(7)[k]
        slope = (target(scores + step) - target(scores - step)) / 2e-6
        np.testing.assert_allclose(found[:, k], slope, rtol=0, atol=1e-6)


def test_gradcam_of_finer_weights_is_finercam() -> None:
    a = activations(IMAGES)
    scores = scores_of(a)
    weights = finer_weights(scores, scores.argmax(axis=1))  # there, of the highest score
    raw = compute("gradcam", a, gradients(a, weights))
    reference = REFERENCES["pytorch-grad-cam/finercam/raw"]
    largest = np.abs(reference).max(axis=(1, 2), keepdims=True)
    np.testing.assert_array_less(np.abs(raw - reference) / largest, 5e-6)
    expected = REFERENCES["pytorch-grad-cam/finercam/cam"]
    np.testing.assert_allclose(heat_maps(raw, SIZE), expected, rtol=0, atol=5e-6)
    plain = compute("gradcam", a, gradients(a, np.eye(5)[scores.argmax(axis=1)]))
    assert (np.abs(raw - plain).max(axis=(1, 2)) > 0.1 * largest.ravel()).all()


def test_finer_weights_of_ties_compare_with_other_classes() -> None:
    found = finer_weights(np.zeros((2, 4)), np.array([0, 2]), comparisons=1)
    np.testing.assert_allclose(found, [[1, -1, 0, 0], [-1, 0, 1, 0]], atol=1e-7)


def test_finer_weights_far_from_the_highest_score_fade_without_overflow() -> None:
    scores = np.array([[2000.0, 0, -1, 1, 2]], np.float32)
    np.testing.assert_array_equal(finer_weights(scores, np.array([1])), 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_finer_weights_of_scores_that_are_not_finite(value: float) -> None:
    scores = np.array([[1, value, 0], [2, 1, 0]], np.float32)
    found = finer_weights(scores, np.array([0, 0]))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_finer_weights_need_a_class_to_compare_with() -> None:
    with pytest.raises(UnsupportedModelError, match="only one"):
        finer_weights(np.ones((2, 1)), np.zeros(2, np.int64))
