"""The CAM methods, one function each: activations A and gradients G = dy^c/dA in, raw map out.

All arrays are float32. A and G are ``(N, C, *spatial)``, a raw map is ``(N, *spatial)``. In the
formulas k is a channel, (i, j) a position, and sums without an index run over positions. The
small constants are those of pytorch-grad-cam, so that maps agree with it to rounding.
"""

from __future__ import annotations

import numpy as np

from onnx_gradcam.cam.registry import Maps, register


def _spatial_axes(maps: Maps) -> tuple[int, ...]:
    return tuple(range(2, maps.ndim))


def _weighted_sum(weights: Maps, activations: Maps) -> Maps:
    """Return sum_k w_k A^k; `weights` is ``(N, C)`` with or without singleton spatial axes."""
    shape = activations.shape[:2] + (1,) * (activations.ndim - 2)
    total: Maps = (weights.reshape(shape) * activations).sum(axis=1)
    return total


@register(
    "gradcam",
    title="Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    paper="arXiv:1610.02391",
)
def gradcam(activations: Maps, gradients: Maps) -> Maps:
    """Return sum_k alpha_k A^k with alpha_k = mean_ij G^k_ij.

    Source: Selvaraju et al., arXiv:1610.02391, equations 1 and 2.
    """
    alpha = gradients.mean(axis=_spatial_axes(gradients))
    return _weighted_sum(alpha, activations)


@register(
    "gradcam++",
    title="Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks",
    paper="arXiv:1710.11063",
)
def gradcam_plus_plus(activations: Maps, gradients: Maps) -> Maps:
    """Return sum_k w_k A^k with w_k = sum_ij a^k_ij relu(G^k_ij).

    a = G^2 / (2 G^2 + (sum A^k) G^3 + 1e-6), and 0 where G = 0; the second and third derivatives
    of the paper are powers of G because y enters through an exponential.

    Source: Chattopadhyay et al., arXiv:1710.11063, equations 7 and 19.
    """
    axes = _spatial_axes(gradients)
    squared = gradients**2
    cubed = squared * gradients
    total = activations.sum(axis=axes, keepdims=True)
    a = squared / (2 * squared + total * cubed + np.float32(1e-6))
    a = np.where(gradients != 0, a, np.float32(0))
    weights = (np.maximum(gradients, 0) * a).sum(axis=axes)
    return _weighted_sum(weights, activations)


@register(
    "hirescam",
    title="Use HiResCAM instead of Grad-CAM for faithful explanations of CNNs",
    paper="arXiv:2011.08891",
)
def hirescam(activations: Maps, gradients: Maps) -> Maps:
    """Return sum_k G^k * A^k, position by position.

    Source: Draelos and Carin, arXiv:2011.08891, equation 4.
    """
    raw: Maps = (gradients * activations).sum(axis=1)
    return raw


@register(
    "layercam",
    title="LayerCAM: Exploring Hierarchical Class Activation Maps for Localization",
    paper="doi:10.1109/TIP.2021.3089943",
)
def layercam(activations: Maps, gradients: Maps) -> Maps:
    """Return sum_k relu(G^k) * A^k, position by position.

    Source: Jiang et al., IEEE TIP 2021, doi:10.1109/TIP.2021.3089943 (no arXiv version).
    """
    raw: Maps = (np.maximum(gradients, 0) * activations).sum(axis=1)
    return raw


@register(
    "xgradcam",
    title="Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs",
    paper="arXiv:2008.02312",
)
def xgradcam(activations: Maps, gradients: Maps) -> Maps:
    """Return sum_k w_k A^k with w_k = sum_ij G^k_ij A^k_ij / (sum A^k + 1e-7).

    Source: Fu et al., arXiv:2008.02312, equation 8.
    """
    axes = _spatial_axes(gradients)
    total = activations.sum(axis=axes, keepdims=True)
    weights = (gradients * activations / (total + np.float32(1e-7))).sum(axis=axes)
    return _weighted_sum(weights, activations)


@register(
    "eigencam",
    title="Eigen-CAM: Class Activation Map using Principal Components",
    paper="arXiv:2008.00299",
    needs_gradients=False,
)
def eigencam(activations: Maps, gradients: Maps) -> Maps:
    """Return the projection of A, positions by channels, on its first principal component.

    A singular vector has no sign of its own. The sign here makes the map correlate positively
    with the mean activation over channels; where that correlation vanishes, it makes the
    position of largest magnitude positive. So the map does not depend on the LAPACK in use.

    Source: Muhammad and Yeasin, arXiv:2008.00299, section III; channels are centred first, as
    pytorch-grad-cam does.
    """
    return np.stack([_first_component(image) for image in activations])


def _first_component(activations: Maps) -> Maps:
    """Return the signed projection ``(*spatial)`` of one image's A ``(C, *spatial)``."""
    exponent = np.frexp(np.abs(activations).max())[1]  # a power of two costs no precision
    positions = np.ldexp(activations, -exponent).reshape(activations.shape[0], -1).T
    centred = positions - positions.mean(axis=0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    projection: Maps = centred @ direction
    evidence = float(projection @ centred.mean(axis=1))
    if abs(evidence) <= 1e-6 * float(np.abs(projection).max() * np.abs(centred).max()):
        evidence = float(projection[np.abs(projection).argmax()])
    if evidence < 0:
        projection = -projection
    return np.ldexp(projection, exponent).reshape(activations.shape[1:])
