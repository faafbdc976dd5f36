"""`onnx-gradcam methods`, and how `explain` hands on method and smoothing."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from onnx_gradcam import load
from onnx_gradcam.cam import method_names
from onnx_gradcam.cli.main import main
from onnx_gradcam.preprocessing import Preprocessing
from tests.contract_models import contract_model, images

RECIPE = Preprocessing(scale=1 / 255, mean=(0.5,), std=(0.25,)).to_dict()


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_a_line_for_each_method() -> None:
    *lines, legend = run("methods").stdout.splitlines()
    assert [line.split()[0].rstrip("*") for line in lines] == list(method_names())
    assert lines[0].startswith("gradcam*  ")
    assert lines[0].endswith(", arXiv:1610.02391")
    needs = {line.split()[0]: line.split()[1] for line in lines}
    assert (needs["hirescam*"], needs["fem"], needs["randomcam*"]) == ("gradients", "-", "seed")
    assert legend == "* goes with --eigen-smooth"


def test_the_same_as_json() -> None:
    listed = json.loads(run("methods", "--json").stdout)["methods"]
    assert [method["name"] for method in listed] == list(method_names())
    assert listed[0] == {
        "name": "gradcam",
        "title": (
            "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization"
        ),
        "paper": "arXiv:1610.02391",
        "needs": ["gradients"],
        "eigen_smooth": True,
        "settings": {},
    }
    (rise,) = (method for method in listed if method["name"] == "rise")
    assert rise["settings"]["masks"] == 1000


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Return an exported file and a photo."""
    model, photo = tmp_path / "model.cam.onnx", tmp_path / "cat.png"
    model.write_bytes(contract_model(preprocessing=RECIPE))
    cv2.imwrite(str(photo), np.random.default_rng(5).integers(0, 256, (8, 10, 3), dtype=np.uint8))
    return model, photo


def test_explain_hands_on_method_and_smoothing(files: tuple[Path, Path], tmp_path: Path) -> None:
    model, photo = files
    explainer = load(model, device="cpu")
    options = {
        "plain": ([], {}),
        "eigen": (["--eigen-smooth"], {"eigen_smooth": True}),
        "aug": (["--aug-smooth"], {"aug_smooth": True}),
        "random": (["--method", "randomcam", "--seed", "3"], {"method": "randomcam", "seed": 3}),
    }
    found = []
    for name, (arguments, keywords) in options.items():
        result = run("explain", model, photo, "-o", tmp_path / name, "--class", "3", *arguments)
        assert result.exit_code == 0, result.stderr
        found.append(np.load(tmp_path / name / "cat.cam-3.npy"))
        expected = explainer.explain_image(photo, 3, **keywords).raw_maps[0]
        np.testing.assert_allclose(found[-1], expected, atol=1e-6)
        assert all(np.abs(found[-1] - other).max() > 0.01 for other in found[:-1])


def test_explain_says_which_map_is_empty(files: tuple[Path, Path], tmp_path: Path) -> None:
    x = images(2)
    x[1] = 0
    np.save(tmp_path / "x.npy", x)
    result = run("explain", files[0], tmp_path / "x.npy", "-o", tmp_path / "out", "--class", "3")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 5
    assert lines[-1].strip() == "empty: the raw map is 0 everywhere, to rounding"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--method", "gradcan"], 2, "no CAM method 'gradcan'; did you mean 'gradcam'"),
        (["--method", "fem", "--eigen-smooth"], 2, "'fem' is no sum over channels"),
        (["--seed", "-1"], 2, "-1 is not in the range"),
    ],
)
def test_choices_that_cannot_be_met(
    files: tuple[Path, Path], tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    model, photo = files
    result = run("explain", model, photo, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert not list(tmp_path.glob("out/*"))
