"""Noisy linear imputation: missing pixels become weighted means of their neighbours, plus noise.

Source: Rong, Leemann, Borisov, Kasneci and Kasneci (ROAD), arXiv:2202.00449.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_gradcam.evaluation.prediction import Images, Masks, Values
from onnx_gradcam.runtime.photo import import_cv2

BESIDE, DIAGONAL = 1 / 6, 1 / 12
"""Weights of the neighbours that share an edge or a corner; all eight sum to 1."""

KERNEL = np.array([[DIAGONAL, BESIDE, DIAGONAL], [BESIDE, 0, BESIDE], [DIAGONAL, BESIDE, DIAGONAL]])
NOISE = 0.01

TOLERANCE = 1e-6
"""Of the norm of the residual, as a share of the right side's; far below the noise."""

MAX_STEPS = 500
DAMPING = 0.8
COARSEST = 4
"""Grids of so few rows or columns are not made coarser."""


def impute(
    image: Images,
    known: Masks,
    noise: float = NOISE,
    random: np.random.Generator | None = None,
) -> Images:
    """Return an image whose missing pixels are weighted means of their neighbours, plus noise.

    For every missing pixel: x = sum_n w_n x_n / sum_n w_n over its neighbours n within the image,
    missing or not, one linear system. Where no pixel is known, the image's mean is taken.

    Args:
        image: float ``(C, H, W)``.
        known: bool ``(H, W)``, true where the pixel stays.
        noise: standard deviation of the normal noise on the missing pixels.
        random: where the noise comes from; None for seed 0.

    Returns:
        float32 ``(C, H, W)``.
    """
    missing = ~known
    filled = np.array(image, np.float32)
    if not missing.any():
        return filled
    mean = image.mean(axis=(1, 2), dtype=np.float64)
    values = np.repeat(mean[:, None], missing.sum(), axis=1)
    if known.any():
        values += _solve(image - mean[:, None, None], missing)[:, missing]
    generator = random or np.random.default_rng(0)
    filled[:, missing] = values + noise * generator.standard_normal(values.shape)
    return filled


def _solve(image: Values, missing: Masks) -> Values:
    """Return the missing pixels of ``(C, H, W)``, 0 elsewhere.

    The matrix is a graph Laplacian, symmetric and positive: conjugate gradients, each channel with
    its own steps, preconditioned by a multigrid cycle.
    """
    grid = _Grid.of(missing)
    right = grid.unknown * _neighbours(image * (1 - grid.unknown))
    solution = np.zeros_like(right)
    residual = right.copy()
    improved = grid.improve(residual)
    direction = improved
    product = _dot(residual, improved)
    limit = TOLERANCE**2 * _dot(right, right)
    for _ in range(MAX_STEPS):
        if (_dot(residual, residual) <= limit).all():
            break
        image_of = grid.apply(direction)
        length = _ratio(product, _dot(direction, image_of))
        solution += length * direction
        residual -= length * image_of
        improved = grid.improve(residual)
        product, former = _dot(residual, improved), product
        direction = improved + _ratio(product, former) * direction
    return solution


@dataclass(frozen=True, eq=False)
class _Grid:
    """The system on one grid, and the grid of half its extents.

    Attributes:
        unknown: float64 ``(H, W)``, 1 where a pixel is missing, else 0.
        weights: float64 ``(H, W)``, the sum of the weights of the neighbours in the image.
        coarser: None for the coarsest.
    """

    unknown: Values
    weights: Values
    coarser: _Grid | None

    @classmethod
    def of(cls, missing: Masks) -> _Grid:
        """Return the grid of these missing pixels; a coarse pixel is missing if all its are."""
        coarser = None
        if min(missing.shape) > COARSEST:
            even = np.pad(missing, [(0, extent % 2) for extent in missing.shape], mode="edge")
            blocks = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2)
            coarser = cls.of(np.asarray(blocks.all(axis=(1, 3))))
        unknown = missing.astype(np.float64)
        return cls(unknown, _neighbours(np.ones((1, *missing.shape)))[0], coarser)

    def apply(self, values: Values) -> Values:
        """Return the matrix times values ``(C, H, W)`` that are 0 where pixels are known."""
        result: Values = self.weights * values - self.unknown * _neighbours(values)
        return result

    def improve(self, residual: Values) -> Values:
        """Return an approximate solution for this right side: one symmetric V-cycle."""
        step = DAMPING * self.unknown / self.weights
        values = step * residual
        if self.coarser is None:
            for _ in range(2 * COARSEST):
                values += step * (residual - self.apply(values))
            return values
        left = residual - self.apply(values)
        height, width = self.unknown.shape
        even = np.pad(left, [(0, 0), (0, height % 2), (0, width % 2)])
        pairs = even[:, ::2] + even[:, 1::2]
        blocks = pairs[..., ::2] + pairs[..., 1::2]
        below = self.coarser.improve(self.coarser.unknown * blocks)
        spread = below.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]
        values += self.unknown * spread
        values += step * (residual - self.apply(values))
        return values


def _neighbours(values: Values) -> Values:
    """Return the weighted sum over the eight neighbours in the image of each of ``(C, H, W)``."""
    cv2 = import_cv2()
    edges = cv2.BORDER_CONSTANT
    return np.stack([cv2.filter2D(one, -1, KERNEL, borderType=edges) for one in values])


def _dot(first: Values, second: Values) -> Values:
    """Return the inner product of each channel of two ``(C, H, W)``, as ``(C, 1, 1)``."""
    result: Values = (first * second).sum(axis=(1, 2), keepdims=True)
    return result


def _ratio(above: Values, below: Values) -> Values:
    """Return a / b, 0 where b is 0: a channel that is solved exactly."""
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0)
