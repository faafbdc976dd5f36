"""Ablation-CAM: how much the score drops without a channel."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.cam.components import Combine, Maps, channel_sum
from onnx_gradcam.cam.registry import Need, register
from onnx_gradcam.cam.runs import HeadRuns

_FAR_BELOW = np.float32(1e7)
"""What pytorch-grad-cam ablates by where A has both signs: its lowest value less this."""

_PER_RUN = 32
"""Channels ablated in one go: bounds the memory for changed copies of A."""


@register(
    "ablationcam",
    title="Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free"
    " Localization",
    paper="doi:10.1109/WACV45572.2020.9093360",
    needs=(Need.HEAD_RUNS,),
    smooths=True,
)
def ablationcam(activations: Maps, head_runs: HeadRuns, combine: Combine = channel_sum) -> Maps:
    """Return sum_k w_k A^k with w_k = (y - y_k) / y, where y_k is the score without channel k.

    Without it: the channel is 0 everywhere, rows without a place included, where the lowest value
    of A in the image is 0, as behind a ReLU; else it is that value less 1e7.

    Source: Desai and Ramaswamy, WACV 2020, doi:10.1109/WACV45572.2020.9093360, equations 1 and 2,
    which ablate to 0 always; the value below that is pytorch-grad-cam's, for batches of one.
    """
    images, channels = activations.shape[:2]
    dropped = np.empty((images, channels), np.float32)
    for image, (a, others) in enumerate(zip(activations, head_runs.other_rows, strict=True)):
        lowest = min(a.min(), others.min(initial=np.inf))
        without = np.float32(0) if lowest == 0 else lowest - _FAR_BELOW
        for start in range(0, channels, _PER_RUN):
            ablated = np.arange(start, min(start + _PER_RUN, channels))
            changed, rest = (np.repeat(part[None], len(ablated), axis=0) for part in (a, others))
            changed[np.arange(len(ablated)), ablated] = without
            rest[np.arange(len(ablated)), :, ablated] = without
            rows = np.full(len(ablated), image)
            dropped[image, ablated] = head_runs(changed, rows, rest)
    scores = head_runs.scores[:, None]
    weights: Maps = (scores - dropped) / scores
    return combine(activations, weights.reshape(images, channels, *[1] * (activations.ndim - 2)))
