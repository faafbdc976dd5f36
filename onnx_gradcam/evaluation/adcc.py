"""ADCC: average drop, coherency and complexity in one number.

Source of all: Poppi, Cornia, Baraldi and Cucchiara, arXiv:2104.10252, section 3.
"""

from __future__ import annotations

import numpy as np

from onnx_gradcam.evaluation.prediction import Classes, Explain, Images, Maps, Values, spread


def complexity(maps: Maps) -> Values:
    """Return mean |map|, float64 ``(N,)`` in [0, 1]; lower is better.

    Args:
        maps: float ``(N, *spatial)`` in [0, 1].

    Source: arXiv:2104.10252, section 3 (the L1 norm; divided by the pixels as its authors do).
    """
    result: Values = np.abs(maps.reshape(len(maps), -1)).mean(axis=1, dtype=np.float64)
    return result


def coherency(explain: Explain, images: Images, classes: Classes, maps: Maps) -> Values:
    """Return how like the map is to that of the image it was laid on; higher is better.

    (1 + rho) / 2 with rho Pearson's correlation of CAM(x) and CAM(x * CAM(x)): float64 ``(N,)`` in
    [0, 1]; NaN where either map is constant.

    Args:
        explain: makes maps of images.
        images: float ``(N, C, *spatial)``.
        classes: int ``(N,)``, explained in both.
        maps: float ``(N, *spatial)`` in [0, 1], `explain` of the images.

    Source: arXiv:2104.10252, section 3 (maximum coherency).
    """
    again = explain(images * spread(maps), classes)
    return (1 + correlation(maps, again)) / 2


def adcc(drop: Values, coherency: Values, complexity: Values) -> Values:
    """Return the harmonic mean of coherency, 1 - complexity and 1 - drop; higher is better.

    Args:
        drop: float64 ``(N,)`` in [0, 1], the share of the score that is lost.
        coherency: float64 ``(N,)`` in [0, 1].
        complexity: float64 ``(N,)`` in [0, 1].

    Returns:
        float64 ``(N,)`` in [0, 1]; 0 where one of the three is 0.

    Source: arXiv:2104.10252, section 3 (ADCC).
    """
    parts = np.stack([coherency, 1 - complexity, 1 - drop])
    with np.errstate(divide="ignore"):
        result: Values = 3 / (1 / parts.clip(min=0)).sum(axis=0)
    return result


def correlation(first: Maps, second: Maps) -> Values:
    """Return Pearson's correlation of each pair of maps, float64 ``(N,)``; NaN for a constant."""
    a, b = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (first, second))
    a = a - a.mean(axis=1, keepdims=True)
    b = b - b.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Values = np.where(norms > 0, (a * b).sum(axis=1) / norms, np.nan)
    return result
