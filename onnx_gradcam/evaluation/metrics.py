"""The table of metrics: what each column means, which way is better, and how to fill it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_gradcam.errors import UsageError, nearest_names
from onnx_gradcam.evaluation.adcc import adcc, coherency, complexity
from onnx_gradcam.evaluation.confidence import masked_confidence
from onnx_gradcam.evaluation.curves import STEPS, deletion, insertion
from onnx_gradcam.evaluation.localisation import energy_in_mask, pointing_game
from onnx_gradcam.evaluation.prediction import (
    BATCH_SIZE,
    Classes,
    Explain,
    Images,
    Maps,
    Masks,
    Predict,
    Values,
)
from onnx_gradcam.evaluation.randomisation import model_randomisation
from onnx_gradcam.evaluation.road import PERCENTILES, road
from onnx_gradcam.evaluation.sensitivity import RADIUS, SAMPLES, max_sensitivity
from onnx_gradcam.evaluation.sparseness import sparseness


@dataclass(frozen=True)
class Settings:
    """What may be set; the defaults are those of the functions.

    Attributes:
        steps: of deletion and insertion.
        percentiles: of ROAD.
        radius: of maximum sensitivity.
        samples: of maximum sensitivity.
        seed: of all noise.
        batch_size: images per run of the model.
    """

    steps: int = STEPS
    percentiles: Sequence[float] = PERCENTILES
    radius: float = RADIUS
    samples: int = SAMPLES
    seed: int = 0
    batch_size: int = BATCH_SIZE


@dataclass(frozen=True, eq=False)
class Trial:
    """One method's maps of some images, and what may be asked about them.

    Attributes:
        predict: images -> confidences.
        explain: images, classes -> maps by the method.
        randomised: `explain` of each randomised model, the last with all layers randomised.
        images: float32 ``(N, C, *spatial)``.
        classes: int64 ``(N,)``.
        maps: float32 ``(N, *spatial)`` in [0, 1].
        masks: bool ``(N, *spatial)``, true on the object; None where there are no annotations.
        settings: see there.
    """

    predict: Predict
    explain: Explain
    randomised: Sequence[Explain]
    images: Images
    classes: Classes
    maps: Maps
    masks: Masks | None
    settings: Settings


@dataclass(frozen=True)
class Metric:
    """One column.

    Attributes:
        name: how users call it.
        better: ``higher``, ``lower``, or ``zero`` where closeness to 0 is good.
        meaning: one line.
        paper: ``arXiv:...``.
        needs: ``masks`` or ``randomised`` where those must be given, else empty.
    """

    name: str
    better: str
    meaning: str
    paper: str
    needs: str = ""


Columns = Mapping[str, Values]
GROUPS: dict[Callable[[Trial], Columns], tuple[Metric, ...]] = {}
"""Function -> the columns that it fills; those that share runs of the model come together."""


def _fills(*metrics: Metric) -> Callable[[Callable[[Trial], Columns]], Callable[[Trial], Columns]]:
    def enter(function: Callable[[Trial], Columns]) -> Callable[[Trial], Columns]:
        GROUPS[function] = metrics
        return function

    return enter


@_fills(
    Metric("deletion", "lower", "area under the score as pixels go", "arXiv:1806.07421"),
)
def _deletion(trial: Trial) -> Columns:
    settings = trial.settings
    curves = deletion(
        trial.predict,
        trial.images,
        trial.classes,
        trial.maps,
        steps=settings.steps,
        batch_size=settings.batch_size,
    )
    return {"deletion": curves.areas}


@_fills(
    Metric("insertion", "higher", "area under the score as pixels come", "arXiv:1806.07421"),
)
def _insertion(trial: Trial) -> Columns:
    settings = trial.settings
    curves = insertion(
        trial.predict,
        trial.images,
        trial.classes,
        trial.maps,
        steps=settings.steps,
        batch_size=settings.batch_size,
    )
    return {"insertion": curves.areas}


@_fills(
    Metric("average-drop", "lower", "score lost under the map, as a share", "arXiv:1710.11063"),
    Metric("increase", "higher", "how often the score rises under the map", "arXiv:1710.11063"),
    Metric("coherency", "higher", "map alike when the image is masked by it", "arXiv:2104.10252"),
    Metric("complexity", "lower", "mean of the map", "arXiv:2104.10252"),
    Metric("adcc", "higher", "average drop, coherency, complexity in one", "arXiv:2104.10252"),
)
def _masking(trial: Trial) -> Columns:
    confidence = masked_confidence(
        trial.predict,
        trial.images,
        trial.classes,
        trial.maps,
        batch_size=trial.settings.batch_size,
    )
    alike = coherency(trial.explain, trial.images, trial.classes, trial.maps)
    size = complexity(trial.maps)
    return {
        "average-drop": confidence.drop,
        "increase": confidence.increase,
        "coherency": alike,
        "complexity": size,
        "adcc": adcc(confidence.drop, alike, size),
    }


@_fills(
    Metric("road", "higher", "(LeRF - MoRF) / 2 with imputed pixels", "arXiv:2202.00449"),
    Metric("road-morf", "lower", "score change, most relevant imputed first", "arXiv:2202.00449"),
    Metric("road-lerf", "higher", "score change, least relevant first", "arXiv:2202.00449"),
)
def _road(trial: Trial) -> Columns:
    settings = trial.settings
    found = road(
        trial.predict,
        trial.images,
        trial.classes,
        trial.maps,
        percentiles=settings.percentiles,
        seed=settings.seed,
        batch_size=settings.batch_size,
    )
    return {"road": found.combined, "road-morf": found.most, "road-lerf": found.least}


@_fills(Metric("sparseness", "higher", "Gini index of the map", "arXiv:1810.06583"))
def _sparseness(trial: Trial) -> Columns:
    return {"sparseness": sparseness(trial.maps)}


@_fills(
    Metric("max-sensitivity", "lower", "largest change of the map by noise", "arXiv:1901.09392"),
)
def _sensitivity(trial: Trial) -> Columns:
    settings = trial.settings
    found = max_sensitivity(
        trial.explain,
        trial.images,
        trial.classes,
        trial.maps,
        radius=settings.radius,
        samples=settings.samples,
        seed=settings.seed,
    )
    return {"max-sensitivity": found}


@_fills(
    Metric("pointing", "higher", "maximum on the object", "arXiv:1608.00507", "masks"),
    Metric("energy", "higher", "share of the heat on the object", "arXiv:1910.01279", "masks"),
)
def _localisation(trial: Trial) -> Columns:
    if trial.masks is None:
        raise UsageError("pointing and energy need the objects' boxes or masks")
    return {
        "pointing": pointing_game(trial.maps, trial.masks),
        "energy": energy_in_mask(trial.maps, trial.masks),
    }


@_fills(
    Metric(
        "randomisation",
        "zero",
        "rank correlation with the map of the randomised model",
        "arXiv:1810.03292",
        "randomised",
    ),
)
def _randomisation(trial: Trial) -> Columns:
    if not trial.randomised:
        raise UsageError("randomisation needs exported files of randomised models")
    found = model_randomisation(trial.maps, trial.images, trial.classes, [trial.randomised[-1]])
    return {"randomisation": found[-1]}


METRICS: dict[str, Metric] = {
    metric.name: metric for metrics in GROUPS.values() for metric in metrics
}


def choose_metrics(names: Sequence[str], given: Iterable[str] = ()) -> tuple[Metric, ...]:
    """Return the metrics of these names, in the order of the table.

    Args:
        names: which; none for all that can be had.
        given: what is at hand of ``masks`` and ``randomised``.

    Raises:
        UsageError: no metric of that name, or one that needs what is not at hand.
    """
    at_hand = {"", *given}
    if not names:
        return tuple(metric for metric in METRICS.values() if metric.needs in at_hand)
    for name in names:
        if name not in METRICS:
            raise UsageError(
                f"no metric {name!r}{nearest_names(name, METRICS)} (metrics: {', '.join(METRICS)})"
            )
        if METRICS[name].needs not in at_hand:
            raise UsageError(f"metric {name} needs {_REMEDIES[METRICS[name].needs]}")
    return tuple(metric for metric in METRICS.values() if metric.name in set(names))


_REMEDIES = {
    "masks": "annotations: --boxes FILE.json or a folder of Pascal VOC files",
    "randomised": "randomised models: --randomise MODEL.onnx, the model before its export",
}


def measure(trial: Trial, metrics: Sequence[Metric]) -> dict[str, Values]:
    """Return the values of the metrics, float64 ``(N,)`` each, by name."""
    names = {metric.name for metric in metrics}
    found: dict[str, Values] = {}
    for function, filled in GROUPS.items():
        if names.intersection(metric.name for metric in filled):
            found |= function(trial)
    return {metric.name: np.asarray(found[metric.name], np.float64) for metric in metrics}
