"""The figures of docs/export-cost.md: a slice is measured, and the page is that of the record."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tools import export_cost
from tools.export_cost_page import page

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "models" / "tiny_shapes.onnx"

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")


def measured(output: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, object]:
    monkeypatch.setattr(sys, "argv", ["export_cost.py", "--output", str(output), *arguments])
    export_cost.main()
    figures: dict[str, object] = json.loads(output.with_suffix(".json").read_text())
    return figures


def test_an_export_is_measured_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONNX_GRADCAM_BUILDER", raising=False)
    found = export_cost.measure_export(TINY, 1)
    assert found["bytes"] == TINY.stat().st_size
    assert list(found["steps"]) == ["read and write", "reverse"]
    for taken in found["steps"].values():
        assert 0 < taken["seconds"] < 60
        assert 20e6 < taken["imported"] <= taken["peak"] < 400e6
        assert taken["builder_peak"] == 0


@pytest.mark.needs_builder
def test_the_builder_counts_as_well(tmp_path: Path) -> None:
    taken = export_cost.run_step("onnxruntime-training", TINY, tmp_path / "o.onnx")
    assert 10e6 < taken["builder_peak"] < 200e6


def test_a_model_with_external_data_is_its_files_together(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(bytes(3))
    assert export_cost._size(tmp_path / "m.onnx") == 3
    (tmp_path / "m.data").write_bytes(bytes(1000))
    assert export_cost._size(tmp_path / "m.onnx") == 1003
    assert 0 < export_cost._copy(tmp_path / "m.data") < 60
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.data", "m.onnx"]


def test_parts_replace_their_own_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "page.md"
    starts = measured(output, monkeypatch, "start", "--repetitions", "2")
    assert list(starts) == ["machine", "start"]
    both = measured(output, monkeypatch, "load", str(TINY), "--repetitions", "2")
    assert both["start"] == starts["start"]
    again = measured(output, monkeypatch, "load", str(TINY), "--repetitions", "2")
    assert again["load"] != both["load"]
    assert output.read_text(encoding="utf-8") == page(again)
    assert "| `onnx-gradcam --help` |" in page(again)
    assert "| tiny_shapes |" in page(again)


def test_the_order_turns_round() -> None:
    calls: list[str] = []
    runs = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = export_cost.in_turn(runs, 3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(found) for name, found in seconds.items()} == {"a": 3, "b": 3}


def test_rows_hold_what_was_measured() -> None:
    taken = {"seconds": 1.5, "imported": 60e6, "peak": 150e6, "builder_peak": 50e6}
    plain = taken | {"seconds": 0.5, "builder_peak": 0}
    model = {"bytes": 100e6, "steps": {"read and write": plain, "reverse": taken}}
    spread = {"median": 0.02, "low": 0.01, "high": 0.03}
    figures = {
        "machine": "2 cores",
        "export": {"net": model},
        "large": {"2.5 GB": model | {"copy_seconds": 7.0}},
        "start": {"help": spread},
        "load": {"net": {"session": spread, "load": spread | {"median": 0.021}, "added": 0.001}},
    }
    lines = page(figures).splitlines()
    assert "| net | 100.0 | reverse | 1.50 | +1.00 | 150 | 50 | 2.00 |" in lines
    assert "| net | 100.0 | read and write | 0.50 | +0.00 | 150 |  | 1.50 |" in lines
    assert "| 2.5 GB | reverse | 1.5 | 150 | 50 | 2.00 |" in lines
    assert "| `help` | 0.020 (0.010 to 0.030) |" in lines
    assert "| net | 20.0 | 21.0 | 1.00 | +0.050 |" in lines
    assert "2 cores" in page(figures)


def test_the_committed_page_is_that_of_the_committed_record() -> None:
    record = json.loads(export_cost.PAGE.with_suffix(".json").read_text(encoding="utf-8"))
    assert export_cost.PAGE.read_text(encoding="utf-8") == page(record)
