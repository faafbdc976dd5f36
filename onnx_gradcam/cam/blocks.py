"""How methods run a model many times: in blocks of images, with seeded noise, to probabilities.

A method makes changed images and hands over one block at a time, so that memory does not grow with
the number of channels, samples or masks. Results do not depend on the size of the blocks, nor on
which images share a batch: noise starts anew from the seed for each image.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam.runs import ModelRuns
from onnx_gradcam.errors import UsageError

BLOCK = 32
"""Changed images that are handed over at once: 19 MB for three channels of 224 x 224."""


def blocks(count: int, size: int) -> Iterator[NDArray[np.intp]]:
    """Yield the numbers 0 to count - 1, up to `size` at a time."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def score_images(
    model_runs: ModelRuns, changed: NDArray[np.float32], image: int
) -> NDArray[np.float32]:
    """Return y of all classes, float32 ``(M, K)``, of M changed versions of one image."""
    rows = np.full(len(changed), image, np.intp)
    return model_runs(np.asarray(changed, np.float32), rows)


def probabilities(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the softmax of y ``(M, K)`` over the classes; of a single score, its sigmoid."""
    wide = scores.astype(np.float64)
    if wide.shape[1] == 1:
        wide = np.concatenate([wide, np.zeros_like(wide)], axis=1)
    return softmax(wide)[:, : scores.shape[1]]


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the softmax over the last axis."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def random_state(seed: int) -> np.random.RandomState:
    """Return a generator whose stream of numbers is the same in all releases of NumPy.

    Raises:
        UsageError: the seed is negative or has more than 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed {seed} is not between 0 and {2**32 - 1}")
    return np.random.RandomState(seed)
