"""Compare a gradient with central differences: a function and its claimed gradient in, errors out.

Pure NumPy. The derivative of the score along a direction d is estimated as
``(y(A + h d) - y(A - h d)) / 2h`` and compared with ``<gradient, d>``. One step size h proves
little: too small and rounding dominates, too large and ReLU or max-pooling kinks do. So h runs
over a ladder, and a derivative counts as measured where two neighbouring steps agree with each
other; the claimed value has to agree with both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
ScoreOfPerturbation = Callable[[Array], Array]

TOLERANCE = 2e-2
"""Accepted relative error along the claimed gradient itself."""

OTHER_TOLERANCE = 1e-1
"""Accepted root mean square of the relative errors along all other directions.

There the derivative is small beside kinks and rounding, so one alone says little; an error of
the gradient of r times its length shows up as r, whatever its direction.
"""

STEPS = tuple(10.0 ** (-index / 2) for index in range(15))
"""Sizes of a perturbation relative to the root mean square of A: 1 down to 1e-7."""

FIRST_STEP = 4
"""Index of the step that is tried first, 1e-2."""

PRECISE_STEPS = (1e-5, 1e-6, 1e-7)
"""The same for a score in float64: below all but a few kinks."""

ROUNDING = 4.0
"""Assumed rounding error of a score, in units of the last place of the largest score."""


@dataclass(frozen=True)
class Agreement:
    """How well claimed gradients agree with central differences.

    Attributes:
        agrees: within both tolerances, and measured along a gradient at least once (unless all
            derivatives are lost in rounding).
        error: largest relative error along the claimed gradients.
        worst: the image and the class where it was found.
        other_error: root mean square of the relative errors along all other directions, which are
            not tried where `error` is too large already.
        measured: share of the derivatives that could be measured, 0..1.
        lost: all derivatives are lost in rounding: nothing to compare.
        zero: all claimed gradients are exactly zero.
        support: ``all`` elements of A, or ``interior``: without those where A is zero or at its
            smallest or largest value, where max-pooling over a ReLU's zeros has no derivative.
    """

    agrees: bool
    error: float
    worst: str
    other_error: float
    measured: float
    lost: bool
    zero: bool
    support: str


def compare(
    score: ScoreOfPerturbation,
    activations: Array,
    gradients: Sequence[Array],
    classes: Sequence[Array],
    *,
    seed: int = 0,
    precise: bool = False,
    quick: bool = False,
) -> Agreement:
    """Compare claimed gradients with central differences along several directions.

    The directions: each gradient itself (finds a wrong scale, sign or class), the activations
    (the sum that Grad-CAM takes), one random factor per channel (the channel weights), random
    noise and random signs (find what is orthogonal to the claimed gradient). Errors are relative
    to the largest of the claimed derivative, the measured one, and what a random direction of
    that length would give.

    Args:
        score: maps a perturbation of A, ``(N, C, *spatial)``, to all scores ``(N, K)``.
        activations: A, ``(N, C, *spatial)``.
        gradients: claimed dy^c/dA, one array of A's shape for each entry of `classes`.
        classes: int ``(N,)`` each: the class c of every image.
        seed: of the random directions.
        precise: `score` works in float64 and is slow: small steps, and of the directions only
            the first gradient and random signs.
        quick: of the directions only the gradients and random noise.

    Returns:
        The agreement over all elements of A or, where that fails, over its interior.
    """
    options = {"precise": precise, "quick": quick}
    whole = _compare(score, activations, gradients, classes, seed, "all", **options)
    if whole.agrees:
        return whole
    interior = _compare(score, activations, gradients, classes, seed, "interior", **options)
    return interior if interior.agrees and not interior.lost else whole


def _compare(
    score: ScoreOfPerturbation,
    activations: Array,
    gradients: Sequence[Array],
    classes: Sequence[Array],
    seed: int,
    support: str,
    *,
    precise: bool,
    quick: bool,
) -> Agreement:
    base = activations.astype(np.result_type(activations.dtype, np.float32))
    activations = base.astype(np.float64)
    claims = [np.asarray(g, np.float64) for g in gradients]
    mask = _interior(activations) if support == "interior" else np.ones_like(activations)
    rng = np.random.default_rng(seed)
    steps, step = (PRECISE_STEPS, 0) if precise else (STEPS, FIRST_STEP)

    def measure(direction: Array, cases: list[int], tolerance: float) -> Array:
        nonlocal step
        unit = _scaled(direction * mask, activations)
        claimed, chosen = [claims[c] for c in cases], [classes[c] for c in cases]
        errors, step = _errors(score, base, unit, claimed, chosen, tolerance, steps, step)
        return errors

    every_case = list(range(1 if precise else len(claims)))
    along = {c: measure(claims[c], [c], TOLERANCE)[0] for c in every_case if claims[c].any()}
    error, worst = _worst(along, classes)
    every_direction = [] if error > TOLERANCE else list(_directions(activations, rng))
    if precise or quick:
        every_direction = every_direction[-1:]
    others = np.array([measure(d, every_case, OTHER_TOLERANCE) for d in every_direction])
    everything = np.concatenate([*along.values(), others.ravel()])
    settled = others[np.isfinite(others)]
    other_error = float(np.sqrt(np.mean(settled**2))) if settled.size else 0.0
    lost = bool(np.isnan(everything).all())
    return Agreement(
        agrees=error <= TOLERANCE and other_error <= OTHER_TOLERANCE and (bool(worst) or lost),
        error=error,
        worst=worst,
        other_error=other_error,
        measured=float(np.isfinite(everything).mean()),
        lost=lost,
        zero=not along,
        support=support,
    )


def _worst(along: Mapping[int, Array], classes: Sequence[Array]) -> tuple[float, str]:
    """Return the largest error along a gradient, and for which image and class."""
    found = [
        (float(error), f"image {image}, class {classes[case][image]}")
        for case, errors in along.items()
        for image, error in enumerate(errors)
        if np.isfinite(error)
    ]
    return max(found, default=(0.0, ""))


def _directions(activations: Array, rng: np.random.Generator) -> Iterator[Array]:
    yield activations
    per_channel = (*activations.shape[:2], *[1] * (activations.ndim - 2))
    factors: Array = rng.standard_normal(per_channel)
    yield factors * np.ones_like(activations)
    yield np.where(rng.random(activations.shape) < 0.5, -1.0, 1.0)
    for _ in range(2):
        yield np.asarray(rng.standard_normal(activations.shape))


def _scaled(direction: Array, activations: Array) -> Array:
    """Return the direction with the root mean square of the activations, image by image."""
    return np.asarray(direction / _size(direction) * _size(activations))


def _size(array: Array) -> Array:
    """Return the root mean square of each image, ``(N, 1, ..., 1)``, and 1 where it is zero."""
    axes = tuple(range(1, array.ndim))
    size = np.sqrt(np.mean(array**2, axis=axes, keepdims=True))
    return np.asarray(np.where(size > 0, size, 1.0))


def _representable(base: Array, perturbation: Array) -> Array:
    """Return what is left of a perturbation once it is added to A in A's own precision."""
    moved = (base + perturbation).astype(base.dtype)
    return np.asarray(moved.astype(np.float64) - base)


def _interior(activations: Array) -> Array:
    axes = tuple(range(1, activations.ndim))
    low = activations.min(axis=axes, keepdims=True)
    high = activations.max(axis=axes, keepdims=True)
    inside = (activations != 0) & (activations != low) & (activations != high)
    return np.asarray(inside, np.float64)


def _dot(left: Array, right: Array) -> Array:
    return np.asarray((left * right).reshape(len(left), -1).sum(axis=1))


def _errors(
    score: ScoreOfPerturbation,
    base: Array,
    unit: Array,
    claims: Sequence[Array],
    classes: Sequence[Array],
    tolerance: float,
    steps: Sequence[float],
    first: int,
) -> tuple[Array, int]:
    """Measure the derivatives along one direction.

    Args:
        score: of a perturbation.
        base: A, in the precision in which it is perturbed.
        unit: the direction, scaled like A.
        claims: claimed gradients.
        classes: their classes.
        tolerance: an error that ends the search for a better step.
        steps: the ladder of steps.
        first: index of the step to try first.

    Returns:
        Relative errors ``(cases, N)``, NaN where the derivative is lost in rounding at every
        step, infinite where no two neighbouring steps agree; and the step to try first next time.
    """
    lengths = np.stack([np.sqrt(_dot(claim, claim)) for claim in claims])
    typical = lengths * np.sqrt(_dot(unit, unit) / unit[0].size)
    columns, rows = np.stack(classes), np.arange(len(unit))
    best = np.full(lengths.shape, np.inf)
    seen = np.zeros(lengths.shape, bool)
    tried: dict[int, tuple[Array, Array, Array]] = {}
    in_range = True
    for index in (*range(first, len(steps)), *range(first - 1, -1, -1)):
        if index > first and not in_range:
            continue
        step = steps[index]
        up, down = _representable(base, step * unit), _representable(base, -step * unit)
        upper, lower = score(up), score(down)
        claimed = np.stack([_dot(claim, up - down) for claim in claims]) / (2 * step)
        slopes = (upper.astype(np.float64) - lower)[rows, columns] / (2 * step)
        rounding = ROUNDING * np.finfo(upper.dtype).eps * np.abs(upper).max(axis=1) / (2 * step)
        scale = np.maximum(np.maximum(np.abs(claimed), np.abs(slopes)), typical)
        resolved = (rounding <= tolerance * scale) & (scale > 0)
        excess = slopes - claimed
        in_range = bool(resolved.any())
        seen |= resolved
        for neighbour in (index - 1, index + 1):
            if neighbour in tried:
                other, other_excess, other_resolved = tried[neighbour]
                largest = np.maximum(np.maximum(np.abs(slopes), np.abs(other)), typical)
                close = np.abs(slopes - other) <= tolerance * largest + rounding
                settled = close & resolved & other_resolved
                error = np.abs(excess + other_excess)[settled] / 2 / scale[settled]
                best[settled] = np.minimum(best[settled], error)
        tried[index] = slopes, excess, resolved
        if np.all(best <= tolerance):
            return best, max(min(index, first), index - 1)
    return np.where(seen, best, np.nan), first
