"""Compare a gradient with central differences: a function and its claimed gradient in, errors out.

Pure NumPy. The derivative of the score along a direction d is estimated as
``(y(A + h d) - y(A - h d)) / 2h`` and compared with ``<gradient, d>``. One step size proves
little: too small and rounding dominates, too large and ReLU or max-pooling kinks do. So step sizes
fall in a ladder, and a direction counts as measured where two neighbouring steps agree with each
other; the claimed value has to agree with both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

TOLERANCE = 2e-2
"""Accepted relative error. Measured agreement is in the docstring of `compare`."""

STEPS = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-1)
"""Size of a perturbation relative to the root mean square of A, in the order of trial."""

ROUNDING = 16.0
"""Assumed error of a score in units of its last place; forward passes sum thousands of terms."""


@dataclass(frozen=True)
class Agreement:
    """How well claimed gradients agree with central differences.

    Attributes:
        agrees: every measurable derivative is within the tolerance.
        error: largest relative error of a measurable derivative, 0 when there is none.
        worst: the direction, the image and the class where it was found.
        measured: share of the derivatives that stand out from rounding, 0..1.
        zero: all claimed gradients are exactly zero.
        support: ``all`` elements of A, or ``interior``: without those where A is zero or at its
            smallest or largest value, where max-pooling over a ReLU's zeros has no derivative.
    """

    agrees: bool
    error: float
    worst: str
    measured: float
    zero: bool
    support: str


def compare(
    score: Callable[[Array], Array],
    activations: Array,
    gradients: Sequence[Array],
    classes: Sequence[Array],
    *,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> Agreement:
    """Compare claimed gradients with central differences along several directions.

    The directions: each gradient itself (finds a wrong scale or sign), the activations (the sum
    that Grad-CAM takes), one random factor per channel (the channel weights), random noise
    and random signs (find what is orthogonal to the claimed gradient). The error is
    relative to the larger of claimed and measured derivative and of what a random direction of
    that length would give.

    Args:
        score: maps a perturbation of A, ``(N, C, *spatial)``, to all scores ``(N, K)``.
        activations: A, ``(N, C, *spatial)``.
        gradients: claimed dy^c/dA, one array of A's shape for each entry of `classes`.
        classes: int ``(N,)`` each: the class c of every image.
        seed: of the random directions.
        tolerance: largest accepted relative error.

    Returns:
        The agreement over all elements of A or, where that fails, over its interior.
    """
    whole = _compare(score, activations, gradients, classes, seed, tolerance, "all")
    if whole.agrees:
        return whole
    interior = _compare(score, activations, gradients, classes, seed, tolerance, "interior")
    return interior if interior.agrees and interior.measured > 0 else whole


def _compare(
    score: Callable[[Array], Array],
    activations: Array,
    gradients: Sequence[Array],
    classes: Sequence[Array],
    seed: int,
    tolerance: float,
    support: str,
) -> Agreement:
    activations = activations.astype(np.float64)
    claims = [np.asarray(g, np.float64) for g in gradients]
    mask = _interior(activations) if support == "interior" else np.ones_like(activations)
    worst, where, measured, total, agrees = 0.0, "", 0, 0, True
    for name, direction in _directions(activations, claims, np.random.default_rng(seed)):
        unit = _scaled(direction * mask, activations)
        errors = _errors(score, unit, claims, classes, tolerance)
        total += errors.size
        measured += int(np.isfinite(errors).sum())
        if np.isnan(errors).all():
            continue
        largest = np.unravel_index(np.nanargmax(errors), errors.shape)
        if errors[largest] > worst or not where:
            worst = float(errors[largest])
            case, image = map(int, largest)
            where = f"along {name}, image {image}, class {int(classes[case][image])}"
        agrees = agrees and worst <= tolerance
    zero = not any(claim.any() for claim in claims)
    return Agreement(agrees, worst, where, measured / max(total, 1), zero, support)


def _directions(
    activations: Array, claims: Sequence[Array], rng: np.random.Generator
) -> Iterator[tuple[str, Array]]:
    for claim in claims:
        if claim.any():
            yield "the gradient", claim
    yield "the activations", activations
    per_channel = (*activations.shape[:2], *[1] * (activations.ndim - 2))
    factors: Array = rng.standard_normal(per_channel)
    yield "random channels", factors * np.ones_like(activations)
    yield "random noise", np.asarray(rng.standard_normal(activations.shape))
    yield "random signs", rng.choice([-1.0, 1.0], size=activations.shape)
    yield "more random noise", np.asarray(rng.standard_normal(activations.shape))


def _per_image(array: Array) -> Array:
    """Return ``(N, 1, ..., 1)``: the root mean square of each image, 1 where it is zero."""
    axes = tuple(range(1, array.ndim))
    rms = np.sqrt(np.mean(array**2, axis=axes, keepdims=True))
    return np.asarray(np.where(rms > 0, rms, 1.0))


def _scaled(direction: Array, activations: Array) -> Array:
    """Return the direction with the root mean square of the activations, per image."""
    return np.asarray(direction / _per_image(direction) * _per_image(activations))


def _interior(activations: Array) -> Array:
    axes = tuple(range(1, activations.ndim))
    low = activations.min(axis=axes, keepdims=True)
    high = activations.max(axis=axes, keepdims=True)
    inside = (activations != 0) & (activations != low) & (activations != high)
    return np.asarray(inside, np.float64)


def _dot(left: Array, right: Array) -> Array:
    return np.asarray((left * right).reshape(len(left), -1).sum(axis=1))


def _errors(
    score: Callable[[Array], Array],
    unit: Array,
    claims: Sequence[Array],
    classes: Sequence[Array],
    tolerance: float,
) -> Array:
    """Return the relative errors along one direction, ``(cases, N)``; NaN: lost in rounding."""
    claimed = np.stack([_dot(claim, unit) for claim in claims])
    length = np.sqrt(_dot(unit, unit))
    size = unit[0].size
    typical = np.stack([np.sqrt(_dot(claim, claim)) * length / np.sqrt(size) for claim in claims])
    columns = np.stack(classes)
    rows = np.arange(len(unit))
    best = np.full(claimed.shape, np.inf)
    seen = np.zeros(claimed.shape, bool)
    ladder: list[tuple[float, Array, Array]] = []
    for step in STEPS:
        upper, lower = score(step * unit), score(-step * unit)
        rounding = ROUNDING * np.finfo(upper.dtype).eps * np.abs(upper).max(axis=1) / (2 * step)
        derivatives = (upper.astype(np.float64) - lower)[rows, columns] / (2 * step)
        scale = np.maximum(np.maximum(np.abs(claimed), np.abs(derivatives)), typical)
        resolved = rounding <= tolerance / 2 * scale
        seen |= resolved
        error = np.abs(derivatives - claimed) / np.where(resolved, scale, 1.0)
        error = np.where(resolved, error, np.inf)
        ladder.append((step, derivatives, error))
        best = np.minimum(best, _agreed(ladder, scale, tolerance))
        if np.all(best <= tolerance):
            break
    single = np.min([error for _, _, error in ladder], axis=0)
    undecided = np.maximum(single, 2 * tolerance)  # no two neighbouring steps agree
    return np.where(seen, np.where(np.isfinite(best), best, undecided), np.nan)


def _agreed(ladder: list[tuple[float, Array, Array]], scale: Array, tolerance: float) -> Array:
    """Return the larger error of the newest step and of its neighbour, where these two agree."""
    step, derivatives, error = ladder[-1]
    best = np.full(error.shape, np.inf)
    for other, former, former_error in ladder[:-1]:
        if max(step, other) / min(step, other) < 4:
            consistent = np.abs(derivatives - former) <= tolerance * scale
            both = np.maximum(error, former_error)
            best = np.minimum(best, np.where(consistent, both, np.inf))
    return best
