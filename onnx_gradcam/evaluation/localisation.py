"""Pointing game and energy in the box: is the heat on the object?"""

from __future__ import annotations

import numpy as np

from onnx_gradcam.evaluation.prediction import Maps, Masks, Values


def pointing_game(maps: Maps, masks: Masks, tolerance: float = 0) -> Values:
    """Return 1 where the map's maximum is on the object, else 0; higher is better.

    The mean over images is the accuracy hits / (hits + misses). Of equal maxima the first counts; a
    constant map points at nothing and misses.

    Args:
        maps: float ``(N, *spatial)``.
        masks: bool ``(N, *spatial)``, true on the object.
        tolerance: a maximum so many pixels away still hits; 15 in the paper.

    Returns:
        float64 ``(N,)``, 0 or 1; NaN where the mask is empty.

    Source: Zhang et al., arXiv:1608.00507, section 4.2.
    """
    return np.array(
        [_points(one, mask, tolerance) for one, mask in zip(maps, masks, strict=True)], np.float64
    )


def _points(one: Maps, mask: Masks, tolerance: float) -> float:
    if not mask.any():
        return np.nan
    if one.max() == one.min():
        return 0.0
    point = np.unravel_index(one.argmax(), one.shape)
    distances = np.linalg.norm(np.argwhere(mask) - np.array(point), axis=1)
    return float(distances.min() <= tolerance)


def energy_in_mask(maps: Maps, masks: Masks) -> Values:
    """Return the share of the map's sum that is on the object; higher is better.

    sum over the mask of L / sum of L. A map that is the same everywhere has the share of the image
    that the object covers.

    Args:
        maps: float ``(N, *spatial)``, not negative.
        masks: bool ``(N, *spatial)``, true on the object.

    Returns:
        float64 ``(N,)`` in [0, 1]; NaN where the mask is empty or the map is zero everywhere.

    Source: Wang et al. (Score-CAM), arXiv:1910.01279 (energy-based pointing game).
    """
    axes = tuple(range(1, maps.ndim))
    total = maps.sum(axis=axes, dtype=np.float64)
    inside = np.where(masks, maps, 0).sum(axis=axes, dtype=np.float64)
    defined = masks.any(axis=axes) & (total > 0)
    result: Values = np.where(defined, inside / np.where(defined, total, 1), np.nan)
    return result
