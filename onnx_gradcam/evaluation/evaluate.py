"""Measure methods on samples: an exported file and samples in, an `Evaluation` out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import UsageError
from onnx_gradcam.evaluation.metrics import Settings, Trial, choose_metrics, measure
from onnx_gradcam.evaluation.prediction import CONFIDENCES, Classes, Masks
from onnx_gradcam.evaluation.report import Evaluation
from onnx_gradcam.evaluation.samples import Sample
from onnx_gradcam.evaluation.subject import Subject, check_method
from onnx_gradcam.runtime import Explainer

METHODS = ("gradcam", "noise")
"""What is compared unless others are named: Grad-CAM, and a floor that knows nothing."""

Progress = Callable[[int, int], None]
"""Called with (done, total) after each piece of work."""


def evaluate(
    explainer: Explainer,
    samples: Sequence[Sample],
    *,
    methods: Sequence[str] = METHODS,
    metrics: Sequence[str] = (),
    randomised: Sequence[Explainer] = (),
    confidence: str | None = None,
    settings: Settings | None = None,
    extra_inputs: Mapping[str, NDArray[Any]] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Return how faithful the maps of each method are, by each metric.

    Args:
        explainer: a loaded exported file.
        samples: the images and their classes; those of one shape are run together.
        methods: CAM methods, and of `onnx_gradcam.evaluation.subject.BASELINES`.
        metrics: names of metrics; none for all that can be had from what is given.
        randomised: exported files of the model with its layers randomised, in order; the last is
            compared.
        confidence: ``raw``, ``softmax`` or ``sigmoid``: how the model's scores become confidences;
            None to let the scores decide.
        settings: of the metrics.
        extra_inputs: values for the model's other inputs, the same for all images.
        progress: told how much is done.

    Raises:
        UsageError: no samples, an unknown method, metric or confidence, or a metric whose
            annotations or randomised models are not given.
    """
    if not samples:
        raise UsageError("there are no images to evaluate on")
    if confidence is not None and confidence not in CONFIDENCES:
        raise UsageError(f"no confidence {confidence!r}: give one of {', '.join(CONFIDENCES)}")
    for method in methods:
        check_method(method)
    given = ["masks"] * all(sample.mask is not None for sample in samples)
    chosen = choose_metrics(metrics, given + ["randomised"] * bool(randomised))
    settings = settings or Settings()
    subject = Subject(explainer, extra_inputs)
    others = [Subject(other, extra_inputs) for other in randomised]
    groups = list(_alike(samples, settings.batch_size))
    first = np.stack([samples[row].image for row in groups[0]])
    subject.settle_confidence(first, confidence)
    values = {
        method: {metric.name: np.full(len(samples), np.nan) for metric in chosen}
        for method in methods
    }
    classes = np.zeros(len(samples), np.int64)
    done, total = 0, len(samples) * len(methods)
    for rows in groups:
        group = [samples[row] for row in rows]
        images = np.stack([sample.image for sample in group])
        wanted = [sample.wanted for sample in group]
        classes[rows] = subject.explained(images, wanted, "gradcam")[1]
        for method in values:
            trial = _trial(subject, others, method, group, classes[rows], settings)
            for name, found in measure(trial, chosen).items():
                values[method][name][rows] = found
            done += len(rows)
            if progress:
                progress(done, total)
    return Evaluation(
        [sample.name for sample in samples], classes.tolist(), subject.confidence, chosen, values
    )


def _trial(
    subject: Subject,
    others: Sequence[Subject],
    method: str,
    group: Sequence[Sample],
    classes: Classes,
    settings: Settings,
) -> Trial:
    images = np.stack([sample.image for sample in group])
    explain = subject.explaining(method)
    for other in others:
        other.grid = subject.grid
    return Trial(
        predict=subject.predict,
        explain=explain,
        randomised=[other.explaining(method) for other in others],
        images=images,
        classes=classes,
        maps=explain(images, classes),
        masks=_masks(group),
        settings=settings,
    )


def _masks(group: Sequence[Sample]) -> Masks | None:
    masks = [sample.mask for sample in group if sample.mask is not None]
    return np.stack(masks) if len(masks) == len(group) else None


def _alike(samples: Sequence[Sample], size: int) -> Iterator[list[int]]:
    """Yield the indices of samples of one shape, at most `size` at a time."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for row, sample in enumerate(samples):
        by_shape.setdefault(sample.image.shape, []).append(row)
    for rows in by_shape.values():
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
