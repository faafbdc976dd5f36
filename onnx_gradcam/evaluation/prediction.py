"""Confidence of a classifier in many images: batched runs, and scores as probabilities.

Everything here is channels first: images ``(N, C, *spatial)``, heat maps ``(N, *spatial)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import UsageError

Images = NDArray[np.float32]
Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]
Classes = NDArray[np.int64]
Values = NDArray[np.float64]
Predict = Callable[[Images], NDArray[Any]]
"""Images ``(N, C, *spatial)`` -> scores ``(N, K)``; a confidence in [0, 1] for most metrics."""

Explain = Callable[[Images, Classes], Maps]
"""Images and the class to explain in each -> heat maps ``(N, *spatial)`` in [0, 1]."""

BATCH_SIZE = 16


def softmax(scores: NDArray[Any]) -> Values:
    """Return exp(y_k) / sum_j exp(y_j) of scores ``(N, K)``."""
    shifted = np.asarray(scores, np.float64) - np.max(scores, axis=1, keepdims=True)
    powers = np.exp(shifted)
    result: Values = powers / powers.sum(axis=1, keepdims=True)
    return result


def sigmoid(scores: NDArray[Any]) -> Values:
    """Return 1 / (1 + exp(-y)) of each score."""
    result: Values = 0.5 * (1 + np.tanh(0.5 * np.asarray(scores, np.float64)))
    return result


def unchanged(scores: NDArray[Any]) -> Values:
    """Return the scores as they are."""
    return np.asarray(scores, np.float64)


CONFIDENCES: dict[str, Callable[[NDArray[Any]], Values]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "raw": unchanged,
}
"""Ways to make a confidence of a model's scores."""


def confidence_name(scores: NDArray[Any]) -> str:
    """Return the way that suits a model, a key of `CONFIDENCES`.

    Scores within [0, 1] are probabilities already: ``raw``. Others are logits: ``softmax``, or
    ``sigmoid`` where there is a single class.

    Args:
        scores: the model's own, ``(N, K)``, of ordinary images.
    """
    if scores.size and scores.min() >= 0 and scores.max() <= 1:
        return "raw"
    return "sigmoid" if scores.shape[1] == 1 else "softmax"


def class_scores(
    predict: Predict,
    images: Iterable[Images],
    classes: Iterable[int],
    batch_size: int = BATCH_SIZE,
) -> Values:
    """Return the score of one class per image, float64 ``(N,)``.

    Args:
        predict: the classifier.
        images: ``(C, *spatial)`` each; taken one by one, so that a generator may make them.
        classes: a class index per image.
        batch_size: how many the classifier is given at once.

    Raises:
        UsageError: the scores do not fit images and classes.
    """
    found = []
    paired = zip(images, classes, strict=True)
    while pairs := list(islice(paired, batch_size)):
        batch, wanted = zip(*pairs, strict=True)
        scores = np.asarray(predict(np.stack(batch)))
        if scores.ndim != 2 or len(scores) != len(batch) or max(wanted) >= scores.shape[1]:
            raise UsageError(
                f"scores of shape {scores.shape} are not (N, K) for {len(batch)} images and"
                f" class {max(wanted)}"
            )
        found.append(scores[np.arange(len(batch)), list(wanted)].astype(np.float64))
    return np.concatenate(found) if found else np.zeros(0)


def ranks_nothing(maps: Maps) -> Masks:
    """Return for each map whether it is constant, so that no pixel comes before another."""
    flat = maps.reshape(len(maps), -1)
    result: Masks = flat.max(axis=1) == flat.min(axis=1)
    return result


def spread(maps: Maps) -> Maps:
    """Return maps ``(N, *spatial)`` with a channel axis, to be laid on ``(N, C, *spatial)``."""
    return maps[:, None]
