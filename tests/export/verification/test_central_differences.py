"""Central differences find each wrong gradient, also of functions with kinks and rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnx_gradcam.export.verification.central_differences import Agreement, compare

Array = np.ndarray
SHAPE = (2, 6, 5, 5)
CLASSES = [np.array([0, 3]), np.array([2, 1])]
WEIGHTS = np.random.default_rng(3).normal(size=(4, 150)) / 12
HIDDEN = np.random.default_rng(4).normal(size=(150, 150)) / 12


def smooth(values: Array) -> tuple[Array, Array]:
    return np.tanh(values), 1 - np.tanh(values) ** 2


def relu(values: Array) -> tuple[Array, Array]:
    return np.maximum(values, 0), (values > 0).astype(float)


class Network:
    """``y = W f(H x)`` in float32 with its gradient in float64."""

    def __init__(self, bend: Callable[[Array], tuple[Array, Array]] = smooth) -> None:
        self.bend = bend
        self.activations = np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)

    def score(self, perturbation: Array) -> Array:
        flat = (self.activations + perturbation).reshape(2, -1).astype(np.float32)
        hidden = self.bend(flat @ HIDDEN.astype(np.float32))[0].astype(np.float32)
        return hidden @ WEIGHTS.T.astype(np.float32)

    def gradient(self, classes: Array) -> Array:
        slope = self.bend(self.activations.reshape(2, -1) @ HIDDEN)[1]
        return ((WEIGHTS[classes] * slope) @ HIDDEN.T).reshape(SHAPE)

    def gradients(self) -> list[Array]:
        return [self.gradient(classes) for classes in CLASSES]

    def compare(self, change: Callable[[Array], Array] = np.asarray) -> Agreement:
        claims = [change(gradient) for gradient in self.gradients()]
        return compare(self.score, self.activations, claims, CLASSES)


def orthogonal_part(gradient: Array) -> Array:
    """A third of the length of the gradient, at right angles to it."""
    noise = np.random.default_rng(9).normal(size=gradient.shape)
    axes = (1, 2, 3)
    norm = (gradient**2).sum(axis=axes, keepdims=True)
    noise -= gradient * (noise * gradient).sum(axis=axes, keepdims=True) / norm
    return noise * np.sqrt(norm / (noise**2).sum(axis=axes, keepdims=True)) / 3


WRONG: dict[str, Callable[[Array], Array]] = {
    "zero": np.zeros_like,
    "twice": lambda gradient: 2 * gradient,
    "a twentieth too large": lambda gradient: 1.05 * gradient,
    "sign flipped": np.negative,
    "channels permuted": lambda gradient: np.roll(gradient, 1, axis=1),
    "space transposed": lambda gradient: gradient.swapaxes(2, 3),
    "summed over the batch": lambda gradient: np.repeat(gradient.sum(0, keepdims=True), 2, 0),
    "an orthogonal error": lambda gradient: gradient + orthogonal_part(gradient),
    "one image missing": lambda gradient: gradient * np.array([1, 0])[:, None, None, None],
    "averaged over space": lambda gradient: (
        np.ones(SHAPE) * gradient.mean(axis=(2, 3), keepdims=True)
    ),
}


@pytest.mark.parametrize("bend", [smooth, relu])
def test_the_right_gradient_agrees(bend: Callable[[Array], tuple[Array, Array]]) -> None:
    found = Network(bend).compare()
    assert found.agrees
    assert found.support == "all"
    assert found.measured == 1
    assert 0 < found.error < 1e-2
    assert 0 < found.other_error < 3e-2


@pytest.mark.parametrize("bend", [smooth, relu])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_gradient_does_not(
    bend: Callable[[Array], tuple[Array, Array]], wrong: str
) -> None:
    found = Network(bend).compare(WRONG[wrong])
    assert not found.agrees
    assert not found.lost


def test_classes_taken_for_each_other_do_not_agree() -> None:
    network = Network()
    first, second = network.gradients()
    assert not compare(network.score, network.activations, [second, first], CLASSES).agrees


def test_a_zero_function_has_a_zero_gradient() -> None:
    network = Network()

    def flat(perturbation: Array) -> Array:
        return 0 * network.score(perturbation) + np.float32(7)

    zeros = [np.zeros(SHAPE)] * 2
    found = compare(flat, network.activations, zeros, CLASSES)
    assert found.agrees
    assert found.zero
    assert found.lost
    assert found.measured == 0
    found = compare(flat, network.activations, network.gradients(), CLASSES)
    assert not found.agrees


def test_a_gradient_far_below_rounding_is_lost_not_confirmed() -> None:
    network = Network()

    def faint(perturbation: Array) -> Array:
        return np.float32(1e6) + np.float32(1e-6) * network.score(perturbation)

    claims = [1e-6 * gradient for gradient in network.gradients()]
    found = compare(faint, network.activations, claims, CLASSES)
    assert found.lost
    assert not found.zero
    assert found.measured == 0


def test_kinks_at_the_zeros_of_a_relu_are_left_out() -> None:
    """``y = W max(x, 0)`` at x = 0: half of the slope on either side, both 0 and W are right."""
    activations = np.maximum(np.random.default_rng(6).normal(size=SHAPE), 0).astype(np.float32)

    def score(perturbation: Array) -> Array:
        moved = np.maximum(activations + perturbation, 0).reshape(2, -1)
        return moved.astype(np.float32) @ WEIGHTS.T.astype(np.float32)

    slope = (activations > 0).reshape(2, -1)
    claims = [(WEIGHTS[classes] * slope).reshape(SHAPE) for classes in CLASSES]
    found = compare(score, activations, claims, CLASSES)
    assert found.agrees
    assert found.support == "interior"
    for wrong in ("twice", "sign flipped", "channels permuted", "an orthogonal error"):
        changed = [WRONG[wrong](claim) * (activations > 0) for claim in claims]
        assert not compare(score, activations, changed, CLASSES).agrees


def test_a_chaotic_function_confirms_nothing() -> None:
    network = Network()
    rng = np.random.default_rng(8)

    def noisy(perturbation: Array) -> Array:
        return network.score(perturbation) + rng.normal(size=(2, 4)).astype(np.float32)

    found = compare(noisy, network.activations, network.gradients(), CLASSES)
    assert not found.agrees
