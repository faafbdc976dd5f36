"""What the README tells to type works as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.end_to_end.conftest import Run
from tests.end_to_end.small_model import small_model

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def readers_folder(models_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files that the README assumes."""
    onnx.save(small_model(classes=1000, size=224), tmp_path / "model.onnx")
    shutil.copy(models_folder / "imagenet_classes.txt", tmp_path)
    shutil.copy(models_folder / "photos" / "cameraman.jpg", tmp_path / "photo.jpg")
    shutil.copytree(models_folder / "photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_lines_work(readers_folder: Path, run: Run) -> None:
    section = README.split("## Command line\n")[1].split("\n## ")[0]
    commands = re.findall(r"^    onnx-gradcam (.+)$", section, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["export", "explain", "batch", "report"]
    for command in commands:
        done = run(*shlex.split(command))
        assert done.code == 0, done.err
    assert {path.name for path in (readers_folder / "heatmaps").iterdir()} == {
        "photo.cam.png", "photo.cam-281.npy", "photo.cam-285.npy",
    }  # fmt: skip
    assert (readers_folder / "results" / "report.html").stat().st_size > 10_000


def test_the_library_example_works(
    readers_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = re.search(r"^```python\n(.+?)^```", README, re.MULTILINE | re.DOTALL)
    assert example is not None
    names: dict[str, Any] = {}
    exec(example[1], names)
    assert "model.cam.onnx" in capsys.readouterr().out
    explanation = names["explanation"]
    assert explanation.cams.shape == (1, 224, 224)
    assert explanation.cams.dtype == np.float32
    assert explanation.cams.max() == pytest.approx(1.0)
    assert explanation.classes.tolist() == [int(explanation.scores[0].argmax())]


def test_the_heat_map_is_what_the_readme_says(readers_folder: Path) -> None:
    import onnx_gradcam

    onnx_gradcam.export_model("model.onnx", "model.cam.onnx", preprocess="imagenet", verify=False)
    explanation = onnx_gradcam.load("model.cam.onnx").explain_image("photo.jpg")
    weights = explanation.gradients.mean(axis=(2, 3), keepdims=True)
    expected = (weights * explanation.activations).sum(axis=1)
    np.testing.assert_allclose(explanation.raw_maps, expected, rtol=1e-5, atol=1e-7)
    assert np.abs(expected).max() > 1e-3
