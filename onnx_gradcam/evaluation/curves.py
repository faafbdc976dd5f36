"""Deletion and insertion: the score while pixels go, or come, in the order of their relevance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnx_gradcam.evaluation.prediction import (
    BATCH_SIZE,
    Classes,
    Images,
    Maps,
    Predict,
    Values,
    class_scores,
    ranks_nothing,
)

STEPS = 20
BLUR_TAPS, BLUR_SIGMA = 11, 5.0
"""Those of RISE's own evaluation."""


@dataclass(frozen=True, eq=False)
class Curves:
    """Scores along the way.

    Attributes:
        fractions: float64 ``(S + 1,)``, the share of the pixels changed, from 0 to 1.
        scores: float64 ``(N, S + 1)``, the class score at each; NaN for a map that ranks nothing.
    """

    fractions: Values
    scores: Values

    @property
    def areas(self) -> Values:
        """The area under each curve by the trapezoidal rule, float64 ``(N,)``."""
        means = (self.scores[:, 1:] + self.scores[:, :-1]) / 2
        result: Values = means @ np.diff(self.fractions)
        return result


def deletion(
    predict: Predict,
    images: Images,
    classes: Classes,
    maps: Maps,
    *,
    steps: int = STEPS,
    baseline: Images | None = None,
    batch_size: int = BATCH_SIZE,
) -> Curves:
    """Return the scores while the most relevant pixels are taken away first.

    The area under the curve is low where the map is faithful: lower is better, within the range
    of the score. All channels of a pixel go at once; equal values go row by row.

    Args:
        predict: the classifier.
        images: float ``(N, C, *spatial)``.
        classes: int ``(N,)``, whose score is followed.
        maps: float ``(N, *spatial)``, of any range: the order counts.
        steps: how many times pixels are taken; 224 for 224 x 224 pixels in the paper.
        baseline: what takes the place of the pixels, as `images`; None for zeros.
        batch_size: images per run of the classifier.

    Source: Petsiuk, Das and Saenko (RISE), arXiv:1806.07421.
    """
    gone = np.zeros_like(images) if baseline is None else baseline
    return _replace(predict, images, gone, classes, maps, steps, batch_size)


def insertion(
    predict: Predict,
    images: Images,
    classes: Classes,
    maps: Maps,
    *,
    steps: int = STEPS,
    baseline: Images | None = None,
    batch_size: int = BATCH_SIZE,
) -> Curves:
    """Return the scores while the most relevant pixels come first into an empty image.

    The area under the curve is high where the map is faithful: higher is better, within the range
    of the score. Arguments as for `deletion`; the image begins as `baseline`, None for the blurred
    image.

    Source: Petsiuk, Das and Saenko (RISE), arXiv:1806.07421.
    """
    empty = blurred(images) if baseline is None else baseline
    return _replace(predict, empty, images, classes, maps, steps, batch_size)


def blurred(images: Images, taps: int = BLUR_TAPS, sigma: float = BLUR_SIGMA) -> Images:
    """Return images ``(N, C, *spatial)`` under a Gaussian of so many taps, edges mirrored."""
    reach = taps // 2
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    result = images
    for axis in range(2, images.ndim):
        margins = [(reach, reach) if a == axis else (0, 0) for a in range(images.ndim)]
        padded = np.pad(result, margins, mode="symmetric")
        shifted = (
            np.float32(weight) * padded.take(np.arange(images.shape[axis]) + start, axis)
            for start, weight in enumerate(kernel)
        )
        result = np.sum(list(shifted), axis=0, dtype=np.float32)
    return result


def _replace(
    predict: Predict,
    first: Images,
    last: Images,
    classes: Classes,
    maps: Maps,
    steps: int,
    batch_size: int,
) -> Curves:
    """Follow the score from `first` to `last`, the most relevant pixels replaced first."""
    pixels = maps[0].size
    counts = [*range(0, pixels, -(-pixels // steps)), pixels]
    usable = np.flatnonzero(~ranks_nothing(maps))

    def stages() -> Iterator[Images]:
        for row in usable:
            order = np.argsort(-maps[row].ravel(), kind="stable")
            place = np.empty(pixels, np.int64)
            place[order] = np.arange(pixels)
            for count in counts:
                replaced = (place < count).reshape(maps.shape[1:])
                yield np.where(replaced, last[row], first[row])

    wanted = np.repeat(np.asarray(classes)[usable], len(counts)).tolist()
    scores = np.full((len(maps), len(counts)), np.nan)
    scores[usable] = class_scores(predict, stages(), wanted, batch_size).reshape(-1, len(counts))
    return Curves(np.array(counts) / pixels, scores)
