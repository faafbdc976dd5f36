"""Average drop and increase in confidence: what is left when the map dims the image."""

from __future__ import annotations

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
    spread,
)

EPSILON = 1e-7
"""Added to the score that is divided by, as torchcam does."""


@dataclass(frozen=True, eq=False)
class Confidence:
    """Scores of the class before and after the image was multiplied by its map.

    Attributes:
        before: float64 ``(N,)``.
        after: float64 ``(N,)``.
    """

    before: Values
    after: Values

    @property
    def drop(self) -> Values:
        """The share of the score that is lost, float64 ``(N,)`` in [0, 1]; lower is better.

        max(0, Y - O) / Y with Y the score before and O after; its mean over images is the average
        drop.

        Source: Chattopadhyay et al. (Grad-CAM++), arXiv:1710.11063, section 5.1.
        """
        result: Values = np.maximum(self.before - self.after, 0) / (self.before + EPSILON)
        return result

    @property
    def increase(self) -> Values:
        """1 where the score rose, else 0, float64 ``(N,)``; higher is better.

        [Y < O]; its mean over images is the increase in confidence.

        Source: Chattopadhyay et al. (Grad-CAM++), arXiv:1710.11063, section 5.1.
        """
        return (self.after > self.before).astype(np.float64)


def masked_confidence(
    predict: Predict,
    images: Images,
    classes: Classes,
    maps: Maps,
    *,
    batch_size: int = BATCH_SIZE,
) -> Confidence:
    """Return the scores of the images and of the images multiplied by their maps.

    Args:
        predict: the classifier; its scores must not be negative.
        images: float ``(N, C, *spatial)``, as the classifier takes them (normalised).
        classes: int ``(N,)``.
        maps: float ``(N, *spatial)`` in [0, 1].
        batch_size: images per run of the classifier.
    """
    wanted = np.asarray(classes).tolist()
    dimmed = images * spread(maps)
    return Confidence(
        class_scores(predict, images, wanted, batch_size),
        class_scores(predict, dimmed, wanted, batch_size),
    )
