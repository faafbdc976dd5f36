"""docs/evaluation.md is of the metrics that there are."""

from __future__ import annotations

from pathlib import Path

from onnx_gradcam.evaluation import METRICS
from tools.evaluate_models import METHODS, definitions
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
        header = table.splitlines()[2]
        for name in set(METRICS) - {"pointing", "energy"}:
            assert f"| {name} " in header
