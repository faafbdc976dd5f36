"""Gated files in the loader: one session explains and predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from onnx_gradcam import export_model, load
from onnx_gradcam.cam import Need
from onnx_gradcam.contract import GATE_INPUT
from onnx_gradcam.errors import NotExportedError, UsageError
from onnx_gradcam.runtime import Explainer
from tests.export.objective_models import objective_model

Array = NDArray[Any]
IMAGES = np.random.default_rng(5).normal(size=(3, 3, 8, 10)).astype(np.float32)
CLASSES = np.array([3, 0, 2])


def pair(folder: Path, body: str = "logits", batch: str = "N", **options: Any) -> list[Explainer]:
    """Return explainers of a file without and with a gate."""
    files = [folder / "plain.onnx", folder / "gated.onnx"]
    for file, gate in zip(files, (False, True), strict=True):
        export_model(
            objective_model(body, batch=batch),
            file,
            layer="A",
            gradient_builder="reverse",
            gate=gate,
            verify=False,
            **options,
        )
    return [load(file, device="cpu") for file in files]


class Recorded:
    """A session that keeps what it was fed, and what it was asked for."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.gates: list[bool] = []
        self.outputs: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run(self, outputs: list[str], feeds: dict[str, Array], options: Any) -> list[Array]:
        self.gates.append(bool(feeds[GATE_INPUT][0]))
        self.outputs.append(outputs)
        found: list[Array] = self.session.run(outputs, feeds, options)
        return found


@pytest.mark.parametrize("class_input", ["optional", "required", "fixed:3"])
@pytest.mark.parametrize("batch", ["N", "2"])
def test_explain_and_predict(tmp_path: Path, batch: str, class_input: str) -> None:
    plain, gated = pair(tmp_path, batch=batch, class_input=class_input)
    classes = np.array([3, 3, 3]) if class_input == "fixed:3" else CLASSES
    expected, found = (each.explain(IMAGES, classes) for each in (plain, gated))
    np.testing.assert_array_equal(found.cams, expected.cams)
    np.testing.assert_array_equal(found.gradients, expected.gradients)
    np.testing.assert_array_equal(found.classes, classes)
    assert np.abs(found.gradients).max() > 0.01
    np.testing.assert_array_equal(gated.predict(IMAGES), expected.scores)
    assert gated.predict(IMAGES[:0]).shape == (0, 5)


def test_one_session_serves_both(tmp_path: Path) -> None:
    file = tmp_path / "gated.onnx"
    pair(tmp_path, "classifier")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = Recorded(ort.InferenceSession(file, options))
    explainer = Explainer(session)
    expected = explainer.explain(IMAGES).scores
    np.testing.assert_array_equal(explainer.predict(IMAGES), expected)
    assert session.gates == [True, False]
    assert session.outputs[1] == ["y"]


@pytest.mark.parametrize("class_input", ["optional", "required"])
@pytest.mark.parametrize("objective", ["class", "softmax"])
def test_methods_that_run_the_head_or_the_model(
    tmp_path: Path, objective: str, class_input: str
) -> None:
    explainers = pair(tmp_path, "classifier", objective=objective, class_input=class_input)
    methods = ["ablationcam", "reciprocam", *(["scorecam"] if objective == "class" else [])]
    for method in methods:
        expected, found = (each.explain(IMAGES, CLASSES, method).raw_maps for each in explainers)
        assert np.ptp(expected) > 1e-3
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert all(each._offered >= {Need.HEAD_RUNS} for each in explainers)


@pytest.mark.parametrize(
    ("body", "options", "asked"),
    [
        ("logits", {"several": True, "weights": True}, {"classes": np.array([[0, 4]] * 3)}),
        ("segmenter", {"objective": "segmentation"}, {"classes": CLASSES}),
        ("embedder", {"objective": "similarity"}, {"embedding": np.arange(5.0)}),
    ],
)
def test_other_inputs_beside_the_gate(
    tmp_path: Path, body: str, options: dict[str, Any], asked: dict[str, Any]
) -> None:
    plain, gated = pair(tmp_path, body, **options)
    expected, found = (each.explain(IMAGES, **asked) for each in (plain, gated))
    np.testing.assert_array_equal(found.cams, expected.cams)
    assert expected.cams.max() > 0.9
    np.testing.assert_array_equal(gated.predict(IMAGES), plain.predict(IMAGES))


def test_a_fused_cam(tmp_path: Path) -> None:
    plain, gated = pair(tmp_path, fuse_cam="layercam", outputs="cam")
    expected, found = (each.explain(IMAGES, CLASSES) for each in (plain, gated))
    assert found.method == "layercam"
    np.testing.assert_array_equal(found.raw_maps, expected.raw_maps)
    np.testing.assert_array_equal(gated.predict(IMAGES), plain.predict(IMAGES))


def test_the_gate_is_no_extra_input(tmp_path: Path) -> None:
    gated = pair(tmp_path)[1]
    assert not gated.extra_inputs.required
    with pytest.raises(UsageError, match="no extra input 'cam_explain'"):
        gated.explain(IMAGES, extra_inputs={GATE_INPUT: np.array([False])})


def test_a_file_that_has_lost_its_gate(tmp_path: Path) -> None:
    pair(tmp_path)
    model = onnx.load(tmp_path / "gated.onnx")
    kept = [value for value in model.graph.input if value.name != GATE_INPUT]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    with pytest.raises(NotExportedError, match="offers no input 'cam_explain'"):
        load(model.SerializeToString(), device="cpu")
