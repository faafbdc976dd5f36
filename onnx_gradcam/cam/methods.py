"""The CAM methods, one function each: activations A and gradients G = dy^c/dA in, raw map out.

All arrays are float32. A and G are ``(N, C, *spatial)``, a raw map is ``(N, *spatial)``. In the
formulas k is a channel, (i, j) a position, and sums without an index run over positions. P(X) is
the first principal component of X (`components.first_component`). The small constants are those
of pytorch-grad-cam, so that maps agree with it to rounding.

Methods that end in a sum over channels take what else may `combine` the summands: P instead of the
sum is the ``eigen_smooth`` of pytorch-grad-cam. The summands w_k A^k are handed over as A and w.
"""

from __future__ import annotations

from math import prod

import numpy as np

from onnx_gradcam.cam.blocks import random_state
from onnx_gradcam.cam.components import (
    Combine,
    Maps,
    channel_sum,
    first_component,
    kernel_component,
    spatial_mean,
)
from onnx_gradcam.cam.registry import Need, register
from onnx_gradcam.errors import UnsupportedModelError


def _spatial_axes(maps: Maps) -> tuple[int, ...]:
    return tuple(range(2, maps.ndim))


@register(
    "gradcam",
    title="Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    paper="arXiv:1610.02391",
    smooths=True,
    shows_overflow=True,
)
def gradcam(activations: Maps, gradients: Maps, combine: Combine = channel_sum) -> Maps:
    """Return sum_k alpha_k A^k with alpha_k = mean_ij G^k_ij.

    Source: Selvaraju et al., arXiv:1610.02391, equations 1 and 2.
    """
    return combine(activations, spatial_mean(gradients))


@register(
    "gradcam++",
    title="Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks",
    paper="arXiv:1710.11063",
    smooths=True,
)
def gradcam_plus_plus(activations: Maps, gradients: Maps, combine: Combine = channel_sum) -> Maps:
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
    weights = (np.maximum(gradients, 0) * a).sum(axis=axes, keepdims=True)
    return combine(activations, weights)


@register(
    "hirescam",
    title="Use HiResCAM instead of Grad-CAM for faithful explanations of CNNs",
    paper="arXiv:2011.08891",
    smooths=True,
    shows_overflow=True,
)
def hirescam(activations: Maps, gradients: Maps, combine: Combine = channel_sum) -> Maps:
    """Return sum_k G^k * A^k, position by position.

    Source: Draelos and Carin, arXiv:2011.08891, equation 4.
    """
    return combine(activations, gradients)


@register(
    "gradcamelementwise",
    title="Explainable Models with Consistent Interpretations",
    paper="hdl:11603/21053",
    smooths=True,
)
def gradcam_elementwise(activations: Maps, gradients: Maps, combine: Combine = channel_sum) -> Maps:
    """Return sum_k relu(G^k * A^k), position by position.

    Source: Pillai and Pirsiavash, AAAI 2021, hdl:11603/21053; as in pytorch-grad-cam.
    """
    return combine(np.maximum(gradients * activations, 0))


@register(
    "layercam",
    title="LayerCAM: Exploring Hierarchical Class Activation Maps for Localization",
    paper="doi:10.1109/TIP.2021.3089943",
    smooths=True,
)
def layercam(activations: Maps, gradients: Maps, combine: Combine = channel_sum) -> Maps:
    """Return sum_k relu(G^k) * A^k, position by position.

    Source: Jiang et al., IEEE TIP 2021, doi:10.1109/TIP.2021.3089943 (no arXiv version).
    """
    return combine(activations, np.maximum(gradients, 0))


@register(
    "xgradcam",
    title="Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs",
    paper="arXiv:2008.02312",
    smooths=True,
    shows_overflow=True,
)
def xgradcam(activations: Maps, gradients: Maps, combine: Combine = channel_sum) -> Maps:
    """Return sum_k w_k A^k with w_k = sum_ij G^k_ij A^k_ij / (sum A^k + 1e-7).

    Source: Fu et al., arXiv:2008.02312, equation 8.
    """
    axes = _spatial_axes(gradients)
    total = activations.sum(axis=axes, keepdims=True)
    weights = (gradients * activations / (total + np.float32(1e-7))).sum(axis=axes, keepdims=True)
    return combine(activations, weights)


@register(
    "cam",
    title="Learning Deep Features for Discriminative Localization",
    paper="arXiv:1512.04150",
)
def cam(activations: Maps, gradients: Maps) -> Maps:
    """Return sum_k w_k A^k with w the weights of the class behind a global average pooling.

    Of y = sum_k w_k mean_ij A^k_ij + b, the gradient is w_k / Z at each of the Z positions, so w is
    its sum over them, and the mean of the map is y - b: unlike Grad-CAM, which is this map divided
    by Z, it is in the units of the score. Behind the pooling there may be more than one linear
    layer; then w is their derivative at this image.

    Source: Zhou et al., arXiv:1512.04150, equations 1 and 2.

    Raises:
        UnsupportedModelError: the gradient differs between positions, so that the head is no
            global average pooling.
    """
    axes = _spatial_axes(gradients)
    spread = (gradients.max(axis=axes) - gradients.min(axis=axes)).max(axis=1)
    if (spread > 1e-4 * np.abs(gradients).max(axis=(1, *axes))).any():
        raise UnsupportedModelError(
            "CAM method 'cam' needs a head of global average pooling right behind the target"
            " layer, and here the gradient differs between positions; use gradcam or hirescam"
        )
    weights = spatial_mean(gradients) * prod(gradients.shape[2:])
    return channel_sum(activations, weights)


@register(
    "activationmap",
    title="Paying More Attention to Attention",
    paper="arXiv:1612.03928",
    needs=(),
    rectified=False,
)
def activationmap(activations: Maps) -> Maps:
    """Return mean_k A^k: how active the layer is at each place, for no class.

    Source: openvino_xai's ActivationMap; Zagoruyko and Komodakis, arXiv:1612.03928, section 3.1,
    sum absolute values, which are the same behind a ReLU.
    """
    mean: Maps = activations.mean(axis=1)
    return mean


@register(
    "eigencam",
    title="Eigen-CAM: Class Activation Map using Principal Components",
    paper="arXiv:2008.00299",
    needs=(),
)
def eigencam(activations: Maps) -> Maps:
    """Return P(A): the projection of A on its first principal component, for no class.

    The sign makes the map correlate positively with the mean activation over channels.

    Source: Muhammad and Yeasin, arXiv:2008.00299, section III; channels are centred first, as
    pytorch-grad-cam does.
    """
    return first_component(activations)


@register(
    "eigengradcam",
    title="Eigen-CAM: Class Activation Map using Principal Components",
    paper="arXiv:2008.00299",
)
def eigengradcam(activations: Maps, gradients: Maps) -> Maps:
    """Return P(G * A): Eigen-CAM for a class.

    The sign makes the map correlate positively with HiResCAM, the sum of G * A over channels.

    Source: pytorch-grad-cam, after arXiv:2008.00299.
    """
    return first_component(gradients * activations)


@register(
    "segeigencam",
    title="Seg-Eigen-CAM: Eigen-Value-Based Visual Explanations for Semantic Segmentation Models",
    paper="doi:10.3390/app15137562",
)
def segeigencam(activations: Maps, gradients: Maps) -> Maps:
    """Return P(abs(G) * A), with the sign that makes the position of largest magnitude positive.

    Source: Chung and Ying, Applied Sciences 2025, doi:10.3390/app15137562, equations 10 to 13.
    """
    projection = first_component(np.abs(gradients) * activations)
    axes = tuple(range(1, projection.ndim))
    low, high = (f(axis=axes, keepdims=True) for f in (projection.min, projection.max))
    return np.where(np.abs(low) > np.abs(high), -projection, projection)


@register(
    "kpcacam",
    title="KPCA-CAM: Visual Explainability of Deep Computer Vision Models using Kernel PCA",
    paper="arXiv:2410.00267",
    needs=(),
)
def kpcacam(activations: Maps) -> Maps:
    """Return the first principal component of A by a sigmoid kernel, for no class.

    The sign makes the position of largest magnitude positive. Time and memory grow with the square
    of the number of positions.

    Source: Karmani et al., arXiv:2410.00267; kernel, parameters and sign as pytorch-grad-cam takes
    them from scikit-learn.
    """
    return kernel_component(activations)


@register(
    "fem",
    title="Features Understanding in 3D CNNs for Actions Recognition in Video",
    paper="doi:10.1109/IPTA50016.2020.9286629",
    needs=(),
)
def fem(activations: Maps) -> Maps:
    """Return sum_k w_k A^k with w_k the share of positions where A^k is unusually large.

    That is A^k_ij > mean A^k + 2 std A^k (of the population), for no class.

    Source: Fuad et al., IPTA 2020, doi:10.1109/IPTA50016.2020.9286629; weights as in
    pytorch-grad-cam.
    """
    axes = _spatial_axes(activations)
    usual = activations.mean(axis=axes, keepdims=True)
    usual = usual + 2 * activations.std(axis=axes, keepdims=True)
    weights = (activations > usual).mean(axis=axes, keepdims=True, dtype=activations.dtype)
    return channel_sum(activations, weights)


@register(
    "randomcam",
    title="Sanity Checks for Saliency Maps",
    paper="arXiv:1810.03292",
    needs=(Need.SEED,),
    smooths=True,
)
def randomcam(activations: Maps, seed: int = 0, combine: Combine = channel_sum) -> Maps:
    """Return sum_k w_k A^k with random w_k, uniform in [-1, 1), the same for every image.

    It knows the activations and neither class nor score: a method that is no better explains
    nothing. The weights are those that pytorch-grad-cam draws for one image after
    ``numpy.random.seed(seed)``; that stream of numbers is the same in all releases of NumPy.

    Source: pytorch-grad-cam; why a floor is needed: Adebayo et al., arXiv:1810.03292.

    Raises:
        UsageError: the seed is negative or has more than 32 bits.
    """
    images, channels = activations.shape[:2]
    weights = np.asarray(random_state(seed).uniform(-1, 1, channels), activations.dtype)
    shape = (images, channels, *[1] * (activations.ndim - 2))
    return combine(activations, np.tile(weights, images).reshape(shape))
