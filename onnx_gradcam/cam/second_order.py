"""The method that knows how the gradient changes: G and curvature H A in, raw map out."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.cam.components import Combine, Maps, channel_sum, spatial_mean
from onnx_gradcam.cam.registry import Need, register


@register(
    "shapleycam",
    title="CAMs as Shapley Value-based Explainers",
    paper="arXiv:2501.06261",
    needs=(Need.GRADIENTS, Need.CURVATURE),
    smooths=True,
)
def shapleycam(
    activations: Maps, gradients: Maps, curvature: Maps, combine: Combine = channel_sum
) -> Maps:
    """Return sum_k w_k A^k with w_k = mean_ij (G^k_ij - (H A)^k_ij / 2).

    `curvature` is H A, of the shape of A: the second derivatives of y^c times the activations, or
    d(G . A)/dA with the A beside G held fixed. Where y^c is linear in A it is zero, and the map is
    that of Grad-CAM.

    Source: Cai, arXiv:2501.06261, the second-order Taylor expansion of the Shapley value; averaged
    over positions as in pytorch-grad-cam.
    """
    second = gradients - np.float32(0.5) * curvature
    return combine(activations, spatial_mean(second))
