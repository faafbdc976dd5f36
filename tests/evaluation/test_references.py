"""Agreement with other libraries, frozen by tools/make_evaluation_references.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnx_gradcam.evaluation import (
    coherency,
    complexity,
    deletion,
    energy_in_mask,
    insertion,
    masked_confidence,
    max_sensitivity,
    pointing_game,
    road,
    sparseness,
)
from onnx_gradcam.evaluation.imputation import impute
from onnx_gradcam.evaluation.randomisation import spearman
from tests.evaluation.tiny_network import (
    CLASSES,
    IMAGES,
    MAPS,
    MASKS,
    REFERENCES,
    explain,
    predict,
)

ZEROS = np.zeros_like(IMAGES)
SUBJECT = (predict, IMAGES, CLASSES, MAPS)


def absolute_drop() -> Any:
    """pytorch-grad-cam does not divide by the score."""
    return masked_confidence(*SUBJECT).drop * predict(IMAGES)[range(len(CLASSES)), CLASSES]


FOUND: dict[str, Callable[[], Any]] = {
    "pytorch-grad-cam/drop": absolute_drop,
    "pytorch-grad-cam/increase": lambda: masked_confidence(*SUBJECT).increase,
    "pytorch-grad-cam/road-morf": lambda: road(*SUBJECT, noise=0).most,
    "pytorch-grad-cam/road-lerf": lambda: road(*SUBJECT, noise=0).least,
    "pytorch-grad-cam/imputed": lambda: impute(
        IMAGES[0], MAPS[0] < np.percentile(MAPS[0], 40), noise=0
    ),
    "pytorch-grad-cam/coherency": lambda: coherency(explain, IMAGES, CLASSES, MAPS),
    "pytorch-grad-cam/complexity": lambda: complexity(MAPS),
    "torchcam/drop": lambda: masked_confidence(*SUBJECT).drop,
    "torchcam/increase": lambda: masked_confidence(*SUBJECT).increase,
    "torchcam/deletion": lambda: deletion(*SUBJECT, steps=20).areas,
    "torchcam/insertion": lambda: insertion(*SUBJECT, steps=20, baseline=ZEROS).areas,
    "quantus/sparseness": lambda: sparseness(MAPS),
    "quantus/pointing": lambda: pointing_game(MAPS, MASKS),
    "quantus/energy": lambda: energy_in_mask(MAPS, MASKS),
    "quantus/max-sensitivity": lambda: max_sensitivity(
        explain, IMAGES, CLASSES, MAPS, radius=0.1, samples=4
    ),
    "scipy/spearman": lambda: spearman(MAPS, np.roll(MAPS, 1, axis=0)),
}


def test_the_network_is_that_of_the_references() -> None:
    np.testing.assert_allclose(predict(IMAGES), REFERENCES["probabilities"], atol=1e-6)
    np.testing.assert_allclose(explain(IMAGES, CLASSES), MAPS, atol=1e-6)


@pytest.mark.parametrize("name", FOUND)
def test_metrics_agree_with_other_libraries(name: str) -> None:
    reference = REFERENCES[name]
    assert len(np.unique(reference)) > 1
    np.testing.assert_allclose(FOUND[name](), reference, rtol=0, atol=5e-6)


def test_each_reference_is_compared() -> None:
    assert {name for name in REFERENCES.files if "/" in name} == set(FOUND)
