"""Compare H A with second differences of y: claimed second derivatives in, an error out.

Pure NumPy. For a direction d, <H A, d> is the mixed derivative of y along A and d:
``(y(+,+) - y(+,-) - y(-,+) + y(-,-)) / 4 h h'``, where the signs are those of h A and h' d.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

STEPS = (1e-3, 1e-4, 1e-5)
"""Steps relative to A; in float64 rounding is 1e-16 of y, divided by their square."""

DIRECTIONS = 4


def second_difference_error(
    score: Callable[[Array], Array],
    activations: Array,
    claimed: Array,
    gradients: Array,
    seed: int = 0,
    tolerance: float = 1e-2,
) -> float:
    """Return the largest relative error of a claimed H A along several directions.

    Relative to the largest of claimed derivative, measured one, and what a random direction of
    that length would give for H A and for dy/dA, which is what H A is taken from. NaN where all
    of it is lost in rounding.

    Args:
        score: maps a perturbation of A, float64 ``(N, C, *spatial)``, to y in column 0.
        activations: A.
        claimed: H A of the same shape.
        gradients: dy/dA.
        seed: of the random directions.
        tolerance: share of a derivative that may be rounding where it counts as measured.
    """
    random = np.random.default_rng(seed)
    size = np.sqrt(np.mean(activations**2)) or 1.0
    directions = [claimed, *(random.standard_normal(claimed.shape) for _ in range(DIRECTIONS))]
    errors = []
    for direction in directions:
        length = np.sqrt(np.mean(direction**2))
        unit = direction / (length or 1.0) * size
        steps = [
            _errors(score, activations, unit, (claimed, gradients), step, tolerance)
            for step in STEPS
        ]
        errors.append(np.fmin.reduce(steps))  # kinks spoil large steps, rounding small ones
    return float(np.fmax.reduce(np.concatenate(errors)))


def _errors(
    score: Callable[[Array], Array],
    activations: Array,
    unit: Array,
    claims: tuple[Array, Array],
    step: float,
    tolerance: float,
) -> Array:
    """Return the relative error of each image, NaN where the derivative is lost in rounding."""
    corners = {
        (a, b): score(step * (a * activations + b * unit))[:, 0] for a in (1, -1) for b in (1, -1)
    }
    measured = (corners[1, 1] - corners[1, -1] - corners[-1, 1] + corners[-1, -1]) / (4 * step**2)
    axes = tuple(range(1, unit.ndim))
    stated = (claims[0] * unit).sum(axis=axes)
    lengths = [np.sqrt((claim**2).sum(axis=axes)) for claim in claims]
    typical = np.maximum(*lengths) * np.sqrt(np.mean(unit**2, axis=axes))
    rounding = 4 * np.finfo(np.float64).eps * np.abs(corners[1, 1]).max() / step**2
    scale = np.maximum(np.maximum(np.abs(measured), np.abs(stated)), typical)
    resolved = scale * tolerance > rounding
    return np.where(resolved, np.abs(measured - stated) / np.where(resolved, scale, 1), np.nan)
