"""ROAD, remove and debias: the score when pixels are imputed, so that no hole shows its shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.evaluation.imputation import NOISE, impute
from onnx_gradcam.evaluation.prediction import (
    BATCH_SIZE,
    Classes,
    Images,
    Maps,
    Masks,
    Predict,
    Values,
    class_scores,
    ranks_nothing,
)

PERCENTILES = (10, 20, 30, 40, 50, 60, 70, 80, 90)


@dataclass(frozen=True, eq=False)
class Road:
    """Changes of the class score, float64 ``(N,)`` each; NaN for a map that ranks nothing.

    Attributes:
        most: most relevant pixels removed first (MoRF), in [-1, 1]; lower is better.
        least: least relevant pixels removed first (LeRF), in [-1, 1]; higher is better.
    """

    most: Values
    least: Values

    @property
    def combined(self) -> Values:
        """(LeRF - MoRF) / 2, in [-1, 1]; higher is better."""
        result: Values = (self.least - self.most) / 2
        return result


def road(
    predict: Predict,
    images: Images,
    classes: Classes,
    maps: Maps,
    *,
    percentiles: Sequence[float] = PERCENTILES,
    noise: float = NOISE,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> Road:
    """Return how the score changes when pixels are imputed in the order of their relevance.

    At percentile p the pixels below the p-th percentile of the map (of 1 - map for the least
    relevant first) stay and the rest is imputed; the change of the score is averaged over the
    percentiles.

    Args:
        predict: the classifier, with scores in [0, 1].
        images: float ``(N, C, H, W)``.
        classes: int ``(N,)``.
        maps: float ``(N, H, W)`` in [0, 1].
        percentiles: the shares of pixels that stay, in percent.
        noise: standard deviation of the noise on imputed pixels, in units of the image.
        seed: of the noise.
        batch_size: images per run of the classifier.

    Raises:
        UnsupportedModelError: the images are no pictures: sounds or volumes.

    Source: Rong et al., arXiv:2202.00449; percentiles and mean as in pytorch-grad-cam
    (ROADMostRelevantFirstAverage, ROADLeastRelevantFirstAverage, ROADCombined).
    """
    if images.ndim != 4:
        raise UnsupportedModelError(f"ROAD imputes pictures (N, C, H, W), not {images.shape}")
    usable = np.flatnonzero(~ranks_nothing(maps))

    def imputed() -> Iterator[Images]:
        for row in usable:
            random = np.random.default_rng(seed)
            yield images[row]
            for ranking in (maps[row], 1 - maps[row]):
                for percentile in percentiles:
                    yield impute(images[row], _kept(ranking, percentile), noise, random)

    runs = 1 + 2 * len(percentiles)
    wanted = np.repeat(np.asarray(classes)[usable], runs).tolist()
    scores = class_scores(predict, imputed(), wanted, batch_size).reshape(-1, runs)
    changes = (scores[:, 1:] - scores[:, :1]).reshape(-1, 2, len(percentiles)).mean(axis=2)
    result = np.full((2, len(maps)), np.nan)
    result[:, usable] = changes.T
    return Road(*result)


def _kept(ranking: Maps, percentile: float) -> Masks:
    """Return bool ``(H, W)``: the pixels below the percentile."""
    result: Masks = ranking < np.percentile(ranking, percentile).astype(ranking.dtype)
    return result
