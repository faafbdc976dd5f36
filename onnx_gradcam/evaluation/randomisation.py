"""The model randomisation sanity check: a map that a random network gives as well says nothing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.evaluation.adcc import correlation
from onnx_gradcam.evaluation.prediction import Classes, Explain, Images, Maps, Values


def model_randomisation(
    maps: Maps, images: Images, classes: Classes, randomised: Iterable[Explain]
) -> Values:
    """Return how like the maps stay while the model's layers are randomised, the last one first.

    Spearman's rank correlation of the original's map with that of each randomised model, in
    [-1, 1]. A method that depends on what the model has learned falls to about 0.

    Args:
        maps: float ``(N, *spatial)`` of the original model.
        images: float ``(N, C, *spatial)``.
        classes: int ``(N,)``, explained in all models.
        randomised: makes maps by one randomised model each, in order;
            `onnx_gradcam.export.randomise` writes such models.

    Returns:
        float64 ``(models, N)``; NaN where either map is constant.

    Source: Adebayo et al., arXiv:1810.03292 (cascading randomisation, rank correlation).
    """
    found = [spearman(maps, explain(images, classes)) for explain in randomised]
    return np.array(found).reshape(-1, len(maps))


def spearman(first: Maps, second: Maps) -> Values:
    """Return the rank correlation of each pair of maps, float64 ``(N,)`` in [-1, 1].

    Equal values share the mean of their ranks; NaN for a constant map.
    """
    return correlation(_ranks(first), _ranks(second))


def _ranks(maps: Maps) -> NDArray[np.float32]:
    """Return the rank of each value within its map; those of 2^24 values are exact in float32."""
    return np.stack([_ranked(one.ravel()) for one in maps])


def _ranked(values: Maps) -> NDArray[np.float32]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse].astype(np.float32)
