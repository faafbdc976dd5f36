"""The MLflow recipe, run as it stands, and what docs/serving.md says of MLflow."""

from __future__ import annotations

import importlib.util
import logging
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import onnx
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema

from onnx_gradcam import load
from tests.serving.inside.serving import ROOT, encoded, images, write_model

RECIPE = ROOT / "examples" / "mlflow_recipe.py"
PAGE = ROOT / "docs" / "serving.md"

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred")
"""MLflow warns of a function of its own when it is imported."""


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mlflow_recipe", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a photo and a tracking store that MLflow is set to."""
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment(
        "recipe", artifact_location=(folder / "artifacts").as_uri()
    ))  # fmt: skip
    write_model(folder)
    (folder / "photo.png").write_bytes(encoded(3))
    return folder


@pytest.fixture(scope="module")
def address(folder: Path, recipe: ModuleType) -> str:
    address: str = recipe.log(folder / "model.cam.onnx")
    return address


def test_the_file_comes_back_byte_for_byte(folder: Path, address: str) -> None:
    local = Path(mlflow.artifacts.download_artifacts(address))
    assert (local / "model.onnx").read_bytes() == (folder / "model.cam.onnx").read_bytes()


def test_heat_maps_are_those_of_the_file(folder: Path, address: str, recipe: ModuleType) -> None:
    x = images(3)
    found = recipe.load(address).explain(x, [0, 4, -2])
    expected = load(folder / "model.cam.onnx", device="cpu").explain(x, [0, 4, -2])
    np.testing.assert_array_equal(found.cams, expected.cams)
    assert expected.cams.max() == pytest.approx(1)


def test_mlflow_s_own_wrapper_feeds_the_class(folder: Path, address: str) -> None:
    x = images(2)
    answer = mlflow.pyfunc.load_model(address).predict({"image": x, "cam_class": np.array([4, -1])})
    expected = load(folder / "model.cam.onnx", device="cpu").explain(x, [4, -1])
    np.testing.assert_array_equal(answer["cam_classes"], expected.classes)
    np.testing.assert_allclose(answer["cam_gradients"], expected.gradients, rtol=1e-6)
    assert np.abs(expected.gradients).max() > 1e-3


def test_with_the_class_in_the_signature_it_has_to_be_given(address: str) -> None:
    with pytest.raises(MlflowException, match="Failed to enforce schema"):
        mlflow.pyfunc.load_model(address).predict({"image": images(1)})


def test_without_it_in_the_signature_mlflow_drops_it_with_a_warning(
    folder: Path, recipe: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    whole = recipe.signature(folder / "model.cam.onnx")
    image = ModelSignature(Schema([whole.inputs.inputs[0]]), whole.outputs)
    with mlflow.start_run():
        logged = mlflow.onnx.log_model(
            onnx.load(folder / "model.cam.onnx"), name="m", signature=image,
            save_as_external_data=False, pip_requirements=["onnx", "onnxruntime"],
            onnx_execution_providers=["CPUExecutionProvider"],
        )  # fmt: skip
    model, x = mlflow.pyfunc.load_model(logged.model_uri), images(2)
    highest = model.predict(x)["cam_classes"]
    asked = (highest + 1) % 5
    logging.getLogger("mlflow").propagate = True
    with caplog.at_level(logging.WARNING, "mlflow"):
        given = model.predict({"image": x, "cam_class": asked})["cam_classes"]
    np.testing.assert_array_equal(given, highest)
    assert "cam_class" in caplog.text


def test_the_recipe_runs_as_a_script(folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(RECIPE), str(folder / "model.cam.onnx"), str(folder / "photo.png")],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db", "PYTHONPATH": str(ROOT),
             "HOME": str(tmp_path), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = load(folder / "model.cam.onnx", device="cpu").explain_image(encoded(3))
    assert f"predicted class {expected.classes[0]} with MLflow's own wrapper" in done.stdout
    assert f"{expected.class_names[0]}: hottest at" in done.stdout


def test_the_example_of_the_page_works(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = PAGE.read_text(encoding="utf-8").split("## MLflow\n")[1].split("\n## ")[0]
    (example,) = re.findall(r"^```python\n(.+?)^```", section, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    names: dict[str, Any] = {}
    exec(example.replace("photo.jpg", "photo.png"), names)
    expected = load("model.cam.onnx", device="cpu").explain_image("photo.png")
    np.testing.assert_array_equal(names["explanation"].cams, expected.cams)
    assert int(names["answer"]["cam_classes"][0]) == int(expected.classes[0])
