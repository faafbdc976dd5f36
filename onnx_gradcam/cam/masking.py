"""Methods that show the model the image through each channel of A: Score-CAM and its kin.

The weight of a channel is a softmax over channels of the score y^c that the image gets behind that
channel's mask. No gradient is needed; each channel costs a run of the whole model, or several. The
activations flow in ``(N, C, *spatial)``, raw maps flow out ``(N, *spatial)``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam.blocks import BLOCK, blocks, random_state, score_images, softmax
from onnx_gradcam.cam.components import Combine, Maps, channel_sum
from onnx_gradcam.cam.registry import Need, register
from onnx_gradcam.cam.resize import resize_linear, sample_linear
from onnx_gradcam.cam.runs import ModelRuns

EPSILON = np.float32(1e-8)
"""Added to the range of a mask before dividing by it; that of pytorch-grad-cam and torchcam."""

Masks = Callable[[Maps, NDArray[np.intp]], Maps]
"""Channels of A ``(M, *spatial)``, and for each which sample, to masks ``(M, *size)``."""


@register(
    "scorecam",
    title="Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks",
    paper="arXiv:1910.01279",
    needs=(Need.MODEL_RUNS,),
    smooths=True,
)
def scorecam(
    activations: Maps,
    model_runs: ModelRuns,
    combine: Combine = channel_sum,
    *,
    block: int = BLOCK,
) -> Maps:
    """Return sum_k w_k A^k with w the softmax over channels of y^c(X * s(U(A^k))).

    U enlarges bilinearly to the image's size, corner pixels on corner pixels; s stretches to
    [0, 1]. One run per channel. The paper subtracts the score of a baseline image from each y^c,
    which changes no softmax.

    torchcam stretches before it enlarges, and lays half-pixel centres on one another: its masks
    differ from these, and with them the weights.

    Source: Wang et al., arXiv:1910.01279, algorithm 1; enlarging and constants as in
    pytorch-grad-cam.
    """

    def masks(channels: Maps, _samples: NDArray[np.intp]) -> Maps:
        return _stretch(_enlarge_by_corners(channels, model_runs.images.shape[2:]))

    return _weighted(activations, model_runs, combine, lambda: masks, 1, block)


@register(
    "sscam",
    title="SS-CAM: Smoothed Score-CAM for Sharper Visual Feature Localization",
    paper="arXiv:2006.14255",
    needs=(Need.MODEL_RUNS, Need.SEED),
    smooths=True,
)
def sscam(
    activations: Maps,
    model_runs: ModelRuns,
    seed: int = 0,
    combine: Combine = channel_sum,
    *,
    samples: int = 35,
    deviation: float = 2.0,
    block: int = BLOCK,
) -> Maps:
    """Return Score-CAM with y^c averaged over `samples` masks with Gaussian noise on each.

    The mask of a sample is U(s(A^k)) + noise, at the image's size and not stretched again: with the
    default `deviation`, twice the range of the mask, it is mostly noise, of both signs. Each
    channel costs `samples` runs.

    Source: Wang et al., arXiv:2006.14255, the variant that smooths the activation maps; where the
    noise enters, and how masks are enlarged (half-pixel centres), as in torchcam 0.5.0.

    Raises:
        UsageError: the seed is negative or has more than 32 bits.
    """

    def noisy() -> Masks:
        random = random_state(seed)

        def masks(channels: Maps, _samples: NDArray[np.intp]) -> Maps:
            clean = resize_linear(_stretch(channels), model_runs.images.shape[2:])
            return clean + (deviation * random.standard_normal(clean.shape)).astype(np.float32)

        return masks

    return _weighted(activations, model_runs, combine, noisy, samples, block)


@register(
    "iscam",
    title="IS-CAM: Integrated Score-CAM for axiomatic-based explanations",
    paper="arXiv:2010.03023",
    needs=(Need.MODEL_RUNS,),
    smooths=True,
)
def iscam(
    activations: Maps,
    model_runs: ModelRuns,
    combine: Combine = channel_sum,
    *,
    samples: int = 10,
    block: int = BLOCK,
) -> Maps:
    """Return Score-CAM with y^c averaged over `samples` multiples of each mask U(s(A^k)).

    With N samples the i-th multiple is the sum of j / N over j = 1 to i, that is i (i + 1) / 2N: a
    sum that goes on growing, to 5.5 times the mask for ten samples, and no path from nothing to the
    image. The formula in torchcam's documentation ends one earlier, at j = i - 1, which spends its
    first sample on a black image; its code is what is done here. Each channel costs `samples` runs.

    Source: Naidu et al., arXiv:2010.03023; multiples, and how masks are enlarged (half-pixel
    centres), as in torchcam 0.5.0.
    """

    def masks(channels: Maps, sample: NDArray[np.intp]) -> Maps:
        clean = resize_linear(_stretch(channels), model_runs.images.shape[2:])
        multiple = (sample + 1) * (sample + 2) / (2 * samples)
        return clean * multiple.astype(np.float32).reshape(-1, *[1] * (clean.ndim - 1))

    return _weighted(activations, model_runs, combine, lambda: masks, samples, block)


def _weighted(
    activations: Maps,
    model_runs: ModelRuns,
    combine: Combine,
    new_masks: Callable[[], Masks],
    samples: int,
    block: int,
) -> Maps:
    """Return sum_k w_k A^k, w the softmax over channels of the mean y^c over samples.

    `new_masks` is called for each image, so that noise starts anew. All channels of the first
    sample come before those of the second, whatever the blocks.
    """
    count, channels = activations.shape[:2]
    scores = np.empty((count, samples * channels))
    for image in range(count):
        masks = new_masks()
        for numbers in blocks(samples * channels, block):
            sample, channel = np.divmod(numbers, channels)
            mask = masks(activations[image, channel], sample)
            y = score_images(model_runs, model_runs.images[image] * mask[:, None], image)
            scores[image, numbers] = y[:, model_runs.classes[image]]
    weights = softmax(scores.reshape(count, samples, channels).mean(axis=1))
    shape = (count, channels, *[1] * (activations.ndim - 2))
    return combine(activations, weights.reshape(shape).astype(activations.dtype))


def _stretch(maps: Maps) -> Maps:
    """Return each map ``(M, *spatial)`` shifted to minimum 0 and divided by its range."""
    axes = tuple(range(1, maps.ndim))
    low = maps.min(axis=axes, keepdims=True)
    stretched: Maps = (maps - low) / (maps.max(axis=axes, keepdims=True) - low + EPSILON)
    return stretched


def _enlarge_by_corners(maps: Maps, size: tuple[int, ...]) -> Maps:
    """Return maps interpolated to another size, corner elements laid on corner elements.

    ``align_corners=True`` of PyTorch.
    """
    for axis, extent in enumerate(size, start=1):
        if maps.shape[axis] != extent:
            maps = sample_linear(maps, np.linspace(0, maps.shape[axis] - 1, extent), axis)
    return maps
