"""Maximum sensitivity: how far can a little noise on the image move the map?"""

from __future__ import annotations

import numpy as np

from onnx_gradcam.evaluation.prediction import Classes, Explain, Images, Maps, Values

SAMPLES = 10
RADIUS = 0.02


def max_sensitivity(
    explain: Explain,
    images: Images,
    classes: Classes,
    maps: Maps,
    *,
    radius: float = RADIUS,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Values:
    """Return the largest relative change of the map under small noise; lower is better.

    max over y of ||Phi(y) - Phi(x)|| / ||Phi(x)||, y = x + uniform noise within `radius` times the
    image's range (maximum - minimum) per value, estimated from `samples` draws, the same for all
    images. The norms are Euclidean; the paper does not divide, captum and Quantus do.

    Args:
        explain: makes maps of images.
        images: float ``(N, C, *spatial)``.
        classes: int ``(N,)``, explained in all.
        maps: float ``(N, *spatial)``, `explain` of the images.
        radius: of the noise, as a share of each image's range.
        samples: how many noisy images.
        seed: of the noise.

    Returns:
        float64 ``(N,)``, from 0; NaN for a map of zeros.

    Source: Yeh et al., arXiv:1901.09392 (SENS_MAX), by sampling.
    """
    axes = tuple(range(1, images.ndim))
    reach = radius * np.ptp(images, axis=axes, keepdims=True)
    random = np.random.default_rng(seed)
    largest = np.zeros(len(maps))
    for _ in range(samples):
        noise = reach * random.uniform(-1, 1, images.shape[1:])
        moved = explain((images + noise).astype(np.float32), classes)
        largest = np.maximum(largest, _norm(moved.astype(np.float64) - maps))
    norm = _norm(maps.astype(np.float64))
    result: Values = np.where(norm > 0, largest / np.where(norm > 0, norm, 1), np.nan)
    return result


def _norm(values: Values) -> Values:
    result: Values = np.linalg.norm(values.reshape(len(values), -1), axis=1)
    return result
