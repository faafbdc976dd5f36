"""Finer-CAM: what tells a class from those that score alike, as weights of a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam.blocks import softmax
from onnx_gradcam.cam.components import Combine, Maps, channel_sum, spatial_mean
from onnx_gradcam.cam.registry import Need, register
from onnx_gradcam.cam.runs import WeightedRuns
from onnx_gradcam.errors import UnsupportedModelError

EPSILON = 1e-9
"""Added to the sum of the probabilities before dividing by it; that of pytorch-grad-cam."""


@np.errstate(invalid="ignore")  # infinite scores show in the result
def finer_weights(
    scores: NDArray[Any],
    classes: NDArray[np.integer[Any]],
    alpha: float = 1.0,
    comparisons: int = 3,
) -> NDArray[np.float32]:
    """Return dT/dy of T = sum_d p_d (y_c - alpha y_d) / (sum_d p_d + 1e-9).

    d runs over the `comparisons` classes whose y is nearest to that of c, p is the softmax of y
    over all classes, and it is differentiated too. Grad-CAM of the sum of all y, weighted with
    these numbers, is Finer-CAM. With S = sum_d p_d, r = S / (S + 1e-9) and q_d = p_d / (S + 1e-9)
    for the compared classes, 0 for others:

        dT/dy_k = r [k = c] + q_k (y_c - alpha y_k - alpha - T) - p_k T (1 - r)

    Where the compared classes have next to no probability (S far under 1e-9) so does T, and its
    gradient fades, as in pytorch-grad-cam. torchcam leaves p out: it takes the plain mean of y_d,
    and alpha = 0.6.

    Source: Zhang et al., arXiv:2501.11309; p and the constants as in pytorch-grad-cam.

    Args:
        scores: y of all classes, float ``(N, K)``, before softmax.
        classes: int ``(N,)``, c of each image.
        alpha: how much of the compared scores to subtract.
        comparisons: how many classes to compare with, if there are as many others.

    Returns:
        float32 ``(N, K)``; NaN for an image with a score of NaN or infinity.

    Raises:
        UnsupportedModelError: there is no other class.
    """
    y = np.asarray(scores, np.float64)
    if y.shape[1] < 2:
        raise UnsupportedModelError("finercam compares classes, and the model has only one")
    chosen = np.asarray(classes, np.intp)[:, None]
    y_c = np.take_along_axis(y, chosen, axis=1)
    distance = np.abs(y - y_c)
    np.put_along_axis(distance, chosen, np.inf, axis=1)
    compared = np.argsort(distance, axis=1, kind="stable")[:, : min(comparisons, y.shape[1] - 1)]
    p = softmax(y)
    q = np.zeros_like(p)
    np.put_along_axis(q, compared, np.take_along_axis(p, compared, axis=1), axis=1)
    q /= q.sum(axis=1, keepdims=True) + EPSILON
    r = q.sum(axis=1, keepdims=True)
    target = (q * (y_c - alpha * y)).sum(axis=1, keepdims=True)
    gradient: NDArray[np.float64] = q * (y_c - alpha * y - alpha - target) - p * target * (1 - r)
    gradient += r * (np.arange(y.shape[1]) == chosen)
    return gradient.astype(np.float32)


@register(
    "finercam",
    title="Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation",
    paper="arXiv:2501.11309",
    needs=(Need.WEIGHTS,),
    smooths=True,
)
def finercam(
    activations: Maps,
    weights: WeightedRuns,
    combine: Combine = channel_sum,
    *,
    alpha: float = 1.0,
    comparisons: int = 3,
) -> Maps:
    """Return Grad-CAM of what tells the class from those that score most alike.

    sum_k alpha_k A^k with alpha_k = mean_ij of the gradient of the T of `finer_weights`.

    Source: Zhang et al., arXiv:2501.11309; as in pytorch-grad-cam.

    Raises:
        UnsupportedModelError: the model has a single class.
    """
    compared = finer_weights(weights.scores, weights.classes, alpha, comparisons)
    gradients = weights(compared)
    return combine(activations, spatial_mean(gradients))
