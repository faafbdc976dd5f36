"""Methods that know the model by its scores alone: what happens when parts of the image are hidden.

They look at neither activations nor gradients, so that they are controls for those that do. Raw
maps are at the size of the image, ``(N, *size)``, in units of probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam.blocks import BLOCK, blocks, probabilities, random_state, score_images
from onnx_gradcam.cam.components import Maps
from onnx_gradcam.cam.registry import Need, register
from onnx_gradcam.cam.resize import sample_linear
from onnx_gradcam.cam.runs import ModelRuns


@register(
    "rise",
    title="RISE: Randomized Input Sampling for Explanation of Black-box Models",
    paper="arXiv:1806.07421",
    needs=(Need.MODEL_RUNS, Need.SEED),
    sees_activations=False,
)
def rise(
    model_runs: ModelRuns,
    seed: int = 0,
    *,
    masks: int = 1000,
    cells: int = 7,
    share: float = 0.5,
    block: int = BLOCK,
) -> Maps:
    """Return the mean of p^c(X * M) M / E[M] over random masks M, p the softmax of y.

    A mask is a grid of `cells` along each axis, each 1 with probability `share` and else 0, that is
    enlarged bilinearly by one cell more than the image needs and cut out at random. All images get
    the same masks, one run each. The paper takes 4000 to 8000 of them.

    Source: Petsiuk et al., arXiv:1806.07421, equation 6 and section 3.2; cells are rounded up to
    whole pixels as in the authors' code.

    Raises:
        UsageError: the seed is negative or has more than 32 bits.
    """
    images, random = model_runs.images, random_state(seed)
    size = images.shape[2:]
    total = np.zeros((len(images), *size))
    for numbers in blocks(masks, block):
        drawn = np.stack([_draw_mask(random, size, cells, share) for _ in numbers])
        for row, image in enumerate(images):
            y = score_images(model_runs, image * drawn[:, None], row)
            total[row] += np.tensordot(probabilities(y)[:, model_runs.classes[row]], drawn, axes=1)
    return (total / (masks * share)).astype(np.float32)


def _draw_mask(
    random: np.random.RandomState, size: tuple[int, ...], cells: int, share: float
) -> Maps:
    """Return one mask ``(*size)`` in [0, 1]."""
    mask = (random.random_sample((cells,) * len(size)) < share).astype(np.float32)
    for axis, extent in enumerate(size):
        cell = -(-extent // cells)
        pixels = np.arange(extent) + int(cell * random.random_sample())
        mask = sample_linear(mask, (pixels + 0.5) * cells / ((cells + 1) * cell) - 0.5, axis)
    return mask


@register(
    "occlusion",
    title="Visualizing and Understanding Convolutional Networks",
    paper="arXiv:1311.2901",
    needs=(Need.MODEL_RUNS,),
    sees_activations=False,
)
def occlusion(
    model_runs: ModelRuns,
    *,
    window: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    block: int = BLOCK,
) -> Maps:
    """Return for each pixel the mean drop of p^c when a patch over it hides it, p the softmax of y.

    The patch has the mean colour of the image. It is a seventh of the image along each axis, or
    `window`, and moves by half of that, or by `stride`, until it reaches the far edge; there it is
    cut off. One run per place of the patch: 169 for 224 x 224.

    Source: Zeiler and Fergus, arXiv:1311.2901, section 4.2; overlapping patches are averaged as in
    captum.
    """
    images = model_runs.images
    size = images.shape[2:]
    patch = window or [-(-extent // 7) for extent in size]
    step = stride or [-(-extent // 2) for extent in patch]
    places = list(product(*map(_along, size, patch, step)))
    total, covered = np.zeros((len(images), *size)), np.zeros(size)
    for place in places:
        covered[place] += 1
    grey = images.mean(axis=tuple(range(2, images.ndim)), keepdims=True)
    for row, image in enumerate(images):
        chosen = model_runs.classes[row]
        before = probabilities(model_runs.scores[row : row + 1])[0, chosen]
        for numbers in blocks(len(places), block):
            hidden = np.repeat(image[None], len(numbers), axis=0)
            for version, number in zip(hidden, numbers, strict=True):
                version[:, *places[number]] = grey[row]
            y = score_images(model_runs, hidden, row)
            for number, after in zip(numbers, probabilities(y)[:, chosen], strict=True):
                total[row][places[number]] += before - after
    return _share(total, covered)


def _along(extent: int, patch: int, step: int) -> list[slice]:
    """Return the places of a patch along one axis; the last one reaches the edge."""
    last = max(0, -(-(extent - patch) // step))
    return [slice(at * step, min(at * step + patch, extent)) for at in range(last + 1)]


def _share(total: NDArray[np.float64], covered: NDArray[np.float64]) -> Maps:
    """Return sums over patches divided by their number; 0 where a long stride leaves gaps."""
    return (total / np.maximum(covered, 1)).astype(np.float32)
