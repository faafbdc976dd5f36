"""The check of a GPU: what it says without one, and that it works, with the CPU in its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_gradcam.runtime.device_maps import DeviceMaps
from tests.end_to_end.small_model import small_model
from tools import gpu_check
from tools.gpu_check import DIFFERS, DOCUMENT, MARK, NO_GPU, Report, half, main
from tools.gpu_engines import CUDA, EXACT, STAND_IN, Equality, placement, time_model

Run = Callable[..., int]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(small_model(), path)
    return path


@pytest.fixture
def run(small: Path, tmp_path: Path) -> Run:
    def invoke(*more: str) -> int:
        files = ["--json", str(tmp_path / "gpu.json"), "--document", str(tmp_path / "gpu.md")]
        speed = ["--repetitions", "1", "--batch", "2", "--layers", "auto"]
        return main([str(small), *files, *speed, *more])

    return invoke


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="there is CUDA")
def test_without_a_gpu_nothing_is_measured(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.iterdir())
    assert run() == NO_GPU == 5
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("no GPU here: nothing was measured (this onnxruntime has ")
    assert sorted(tmp_path.iterdir()) == before


def test_a_gpu_that_does_not_come_up_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    assert gpu_check.why_no_gpu()  # CUDA is listed, and no session can be made on it


def test_the_check_passes_where_the_cpu_stands_in(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--stand-in") == 0
    text = capsys.readouterr().out
    assert text.startswith("No GPU was used: the CPU stood in its place")
    for precision in ("float32", "float16"):
        for how in ("the CPU in its place", "the CPU in its place, CUDA graph"):
            for value in ("scores", "raw_maps", "activations", "gradients"):
                assert f"| small, {precision}, layer auto | {how} | {value} |" in text
    assert "differs" not in text.partition("### Equal")[2]
    assert "- TensorRT: not part of this onnxruntime" in text
    assert "refused" not in text
    assert "Error" not in text
    assert not (tmp_path / "gpu.json").exists()


def test_a_map_that_is_off_by_a_hundredth_fails(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = DeviceMaps.raw

    def off(self: DeviceMaps, *arguments: Any) -> Any:
        raw = own(self, *arguments)
        return None if raw is None else raw * np.float32(1.01)

    monkeypatch.setattr(DeviceMaps, "raw", off)
    assert run("--stand-in") == DIFFERS == 4
    assert "raw_maps | 1.0e-02 | 1e-03 | **differs** |" in capsys.readouterr().out


def test_results_go_into_a_file_and_behind_the_mark(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "gpu.md"
    page.write_text(f"# On a GPU\n\n{MARK}\nold\n", encoding="utf-8")
    monkeypatch.setattr(gpu_check, "why_no_gpu", lambda: "")
    monkeypatch.setattr(gpu_check, "ENGINES", (STAND_IN,))
    assert run() == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# On a GPU\n\n{MARK}\n## Measured\n")
    assert "old" not in text
    stored = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert {one["engine"] for one in stored["placements"]} == {STAND_IN.name}
    (timed,) = {one["batch"] for one in stored["timings"]}
    assert timed == 2
    assert all(time["median"] > 0 for one in stored["timings"] for time in one["times"].values())


def test_what_fails_is_reported_and_does_not_end_the_check(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(gpu_check, "compare_graphs", fail)
    assert run("--stand-in") == 0
    text = capsys.readouterr().out
    assert "the CPU in its place, CUDA graph: RuntimeError: no kernel for this" in text
    assert "| the CPU in its place | raw_maps |" in text


def test_not_a_number_is_never_equal() -> None:
    def equality(error: float) -> Equality:
        return Equality("m", "e", "scores", error, EXACT)

    assert not equality(float("nan")).holds
    assert not equality(float("inf")).holds
    assert not equality(2e-3).holds
    assert equality(1e-4).holds
    report = Report({}, [equality(float("nan"))])
    assert "| m | e | scores | nan | 1e-03 | **differs** |" in report.markdown()


def test_nodes_and_times(small: Path, tmp_path: Path) -> None:
    files = gpu_check.prepared(small, tmp_path, "float32", ["auto"])["auto"]
    where = placement("m", files["exported"], STAND_IN)
    assert where.on_host["of the model"]["Conv"] == 2
    assert where.on_host["added"]["TopK"] == 1
    assert sum(sum(group.values()) for group in where.on_host.values()) == sum(
        where.counts.values()
    )
    timed = time_model("m", files, STAND_IN, 2, 2)
    assert list(timed.times) == list(gpu_check.CONTESTANTS)


def test_half_precision_is_a_valid_model(small: Path, tmp_path: Path) -> None:
    half(small, tmp_path / "half.onnx")
    model = onnx.load(tmp_path / "half.onnx")
    onnx.checker.check_model(model, full_check=True)
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)} == {1}


def test_the_page_has_the_mark() -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    assert page.count(MARK) == 1
    assert "## Measured" in page.partition(MARK)[2]
