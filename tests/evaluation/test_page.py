"""docs/evaluation.md is of the metrics that there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onnx_gradcam.evaluation import METRICS, Evaluation
from tools.evaluate_models import METHODS, definitions, turned
from tools.evaluation_notes import AGREEMENT

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_the_page_defines_each_metric() -> None:
    assert set(AGREEMENT) == set(METRICS)
    assert definitions() in PAGE


def test_the_page_has_results_of_four_models() -> None:
    results = PAGE.split("## Results")[1].split("## How to read it")[0].split("### ")[1:]
    assert len(results) == 4
    for table in results:
        for method in METHODS:
            assert f"| {method} " in table
        for name in set(METRICS) - {"pointing", "energy"}:
            assert f"| {name} " in table


def test_a_table_has_a_row_per_metric() -> None:
    metrics = [METRICS["deletion"], METRICS["road"]]
    values = {
        "gradcam": {"deletion": np.array([0.25, np.nan]), "road": np.array([0.5, 0.5])},
        "noise": {"deletion": np.array([np.nan, np.nan]), "road": np.array([0.0, 0.5])},
    }
    found = turned(Evaluation(["a", "b"], [0, 1], "raw", metrics, values))
    assert found.splitlines() == [
        "| metric | gradcam | noise |",
        "| --- | ---: | ---: |",
        "| deletion ↓ | 0.250 (1) | - |",
        "| road ↑ | 0.500 | 0.250 |",
    ]
