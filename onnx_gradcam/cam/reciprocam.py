"""ReciproCAM and ViT-ReciproCAM: the score of what one place of the feature map holds."""

from __future__ import annotations

from functools import reduce
from math import prod

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam.components import Maps
from onnx_gradcam.cam.registry import Need, register
from onnx_gradcam.cam.runs import HeadRuns

_PER_RUN = 32
"""Places kept in one go: bounds the memory for masked copies of A."""

_ALONE = (0.0, 1.0, 0.0)
_NEIGHBOURHOOD = (0.25, 0.5, 0.25)
"""Weights of a place and the two beside it, along each axis; in two axes 1/4, 1/8 and 1/16."""


@register(
    "reciprocam",
    title="Recipro-CAM: Fast gradient-free visual explanations for convolutional neural networks",
    paper="arXiv:2209.14074",
    needs=(Need.HEAD_RUNS,),
    rectified=False,
)
def reciprocam(activations: Maps, head_runs: HeadRuns) -> Maps:
    """Return at each place the score of A with all other places set to 0.

    Rows without a place (class and register tokens) stay as they are.

    Source: Byun and Lee, arXiv:2209.14074, section 3, without the Gaussian, as in openvino_xai.
    """
    return _scores_of_places(activations, head_runs, _ALONE)


@register(
    "vitreciprocam",
    title="ViT-ReciproCAM: Gradient and Attention-Free Visual Explanations for Vision Transformer",
    paper="arXiv:2310.02588",
    needs=(Need.HEAD_RUNS,),
    rectified=False,
)
def vitreciprocam(activations: Maps, head_runs: HeadRuns) -> Maps:
    """Return at each place the score of A times a 3 x 3 Gaussian there, 0 beyond it.

    Rows without a place (class and register tokens) stay as they are.

    Source: Byun and Lee, arXiv:2310.02588, section 3, with the Gaussian, as in openvino_xai.
    """
    return _scores_of_places(activations, head_runs, _NEIGHBOURHOOD)


def _scores_of_places(activations: Maps, head_runs: HeadRuns, weights: tuple[float, ...]) -> Maps:
    images, _, *spatial = activations.shape
    places = prod(spatial)
    found = np.empty((images, places), np.float32)
    for image, a in enumerate(activations):
        for start in range(0, places, _PER_RUN):
            kept = np.arange(start, min(start + _PER_RUN, places))
            masks = _masks(kept, spatial, weights)[:, None]
            found[image, kept] = head_runs(a * masks, np.full(len(kept), image))
    return found.reshape(images, *spatial)


def _masks(
    places: NDArray[np.intp], spatial: list[int], weights: tuple[float, ...]
) -> NDArray[np.float32]:
    """Return what each place of the map is multiplied by, ``(M, *spatial)``, around M places."""
    factors = []
    for axis, centre in enumerate(np.unravel_index(places, spatial)):
        away = np.arange(spatial[axis]) - centre[:, None] + 1
        along = np.where((away >= 0) & (away <= 2), np.take(weights, away, mode="clip"), 0)
        shape = [len(places), *[1] * len(spatial)]
        shape[axis + 1] = spatial[axis]
        factors.append(along.reshape(shape))
    return reduce(np.multiply, factors).astype(np.float32)
