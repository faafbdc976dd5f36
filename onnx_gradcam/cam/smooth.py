"""Methods that average gradients over noisy versions of the image."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.cam.blocks import BLOCK, blocks, random_state
from onnx_gradcam.cam.components import Combine, Maps, channel_sum
from onnx_gradcam.cam.registry import Need, register
from onnx_gradcam.cam.runs import ModelRuns

EPSILON = 1e-8
"""Added to the denominator of a; that of torchcam."""


@register(
    "smoothgradcam++",
    title=(
        "Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for Deep"
        " Convolutional Neural Network Models"
    ),
    paper="arXiv:1908.01224",
    needs=(Need.MODEL_RUNS, Need.SEED),
    smooths=True,
)
def smooth_gradcam_plus_plus(
    activations: Maps,
    model_runs: ModelRuns,
    seed: int = 0,
    combine: Combine = channel_sum,
    *,
    samples: int = 4,
    deviation: float = 0.3,
    block: int = BLOCK,
) -> Maps:
    """Return sum_k w_k A^k with w_k = sum_ij a^k_ij relu(D1^k_ij).

    a = D2 / (2 D2 + (sum A^k) D3 + 1e-8) with D1, D2 and D3 the means of G, G^2 and G^3 over
    `samples` images with Gaussian noise: Grad-CAM++ with its derivatives averaged. A is that of the
    image without noise. The noise has `deviation` times the standard deviation of the image, which
    is about 1 for images prepared as torchcam's examples are.

    torchcam 0.5.0 departs from this in three ways: relu takes G of the last noisy image, not D1;
    the map sums A of the last noisy image; and D3 stands inside the sum over A. By its own account
    the paper prints D1 for the numerator of a, which Grad-CAM++ and torchcam have as D2.

    Source: Omeiza et al., arXiv:1908.01224; Chattopadhyay et al., arXiv:1710.11063, equation 19.

    Raises:
        UsageError: the seed is negative or has more than 32 bits.
    """
    axes = tuple(range(2, activations.ndim))
    powers = np.zeros((3, *activations.shape))
    for row, image in enumerate(model_runs.images):
        random, spread = random_state(seed), deviation * image.std(dtype=np.float64)
        for numbers in blocks(samples, block):
            noise = spread * random.standard_normal((len(numbers), *image.shape))
            noisy = image + noise.astype(np.float32)
            _, gradients = model_runs.explain(noisy, np.full(len(numbers), row, np.intp))
            wide = gradients.astype(np.float64)
            powers[:, row] += [(wide**power).sum(axis=0) for power in (1, 2, 3)]
    first, second, third = powers / samples
    total = activations.sum(axis=axes, keepdims=True)
    a = second / (2 * second + total * third + EPSILON)
    weights = (a * np.maximum(first, 0)).sum(axis=axes, keepdims=True)
    return combine(activations, weights.astype(activations.dtype))
