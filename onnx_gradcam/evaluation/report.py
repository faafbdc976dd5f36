"""The result of an evaluation: methods x metrics, as numbers, text, Markdown or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_gradcam.evaluation.metrics import Metric
from onnx_gradcam.evaluation.prediction import Values

ARROWS = {"higher": "↑", "lower": "↓", "zero": "→ 0"}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured.

    Attributes:
        samples: the names of the N samples.
        classes: the class that was explained in each.
        confidence: how scores became confidences: ``raw``, ``softmax`` or ``sigmoid``.
        metrics: the columns.
        values: method -> metric -> float64 ``(N,)``; NaN where a metric is not defined.
    """

    samples: Sequence[str]
    classes: Sequence[int]
    confidence: str
    metrics: Sequence[Metric]
    values: Mapping[str, Mapping[str, Values]]

    def mean(self, method: str, metric: str) -> float:
        """Return the mean over the samples where the metric is defined; NaN where it never is."""
        values = self.values[method][metric]
        defined = values[~np.isnan(values)]
        return float(defined.mean()) if len(defined) else float("nan")

    def undefined(self, method: str, metric: str) -> int:
        """Return for how many samples the metric is not defined."""
        return int(np.isnan(self.values[method][metric]).sum())

    def markdown(self) -> str:
        """Return the table in Markdown."""
        header, *rows = self._cells()
        lines = [header, ["---"] * len(header), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def summary(self) -> str:
        """Return the table as text: a line per metric, a column per method."""
        columns = list(map(list, zip(*self._cells(), strict=True)))
        widths = [max(map(len, cells)) for cells in zip(*columns, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if place else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in columns
        ]
        lines[0] = lines[0].rstrip()
        note = f"mean over {len(self.samples)} images; confidence: {self.confidence}"
        if any(self.undefined(method, m.name) for method in self.values for m in self.metrics):
            note += "; (n): images for which it is not defined"
        return "\n".join([*lines, note])

    def to_dict(self) -> dict[str, Any]:
        """Return all values, JSON-ready; None where a metric is not defined."""
        return {
            "samples": list(self.samples),
            "classes": list(self.classes),
            "confidence": self.confidence,
            "metrics": {
                m.name: {"better": m.better, "meaning": m.meaning, "paper": m.paper}
                for m in self.metrics
            },
            "methods": {
                method: {
                    m.name: {
                        "mean": _or_none(self.mean(method, m.name)),
                        "undefined": self.undefined(method, m.name),
                        "values": [_or_none(float(value)) for value in values[m.name]],
                    }
                    for m in self.metrics
                }
                for method, values in self.values.items()
            },
        }

    def _cells(self) -> list[list[str]]:
        header = ["method", *(f"{m.name} {ARROWS[m.better]}" for m in self.metrics)]
        return [
            header,
            *(
                [method, *(self._cell(method, m.name) for m in self.metrics)]
                for method in self.values
            ),
        ]

    def _cell(self, method: str, metric: str) -> str:
        missing = self.undefined(method, metric)
        if missing == len(self.samples):
            return "-"
        return f"{self.mean(method, metric):.3f}" + (f" ({missing})" if missing else "")


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
