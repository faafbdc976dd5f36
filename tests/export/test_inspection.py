"""`inspect_model` reports; it refuses only what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, parser

from onnx_gradcam.errors import NotExportedError, ScoreNotFoundError
from onnx_gradcam.export.inspection import inspect_model
from onnx_gradcam.export.pipeline import export_model
from tests.export.networks import network

BODY = """
c = Conv<pads = [1, 1, 1, 1]>(image, w)
map = Relu(c)
pooled = GlobalAveragePool(map)
flat = Flatten(pooled)
logits = MatMul(flat, fc)
scores = Softmax(logits)
"""


def classifier() -> ModelProto:
    outputs = "float[N, 5] scores, float[N, 4, 8, 8] map"
    return network(BODY, {"w": (4, 3, 3, 3), "fc": (4, 5)}, scores=outputs)


def test_report_of_a_classifier() -> None:
    report = inspect_model(classifier().SerializeToString())
    assert (report.opset, report.ir_version, report.image_input) == (17, 8, "image")
    score, other = report.scores
    assert (score.output, score.tensor, score.num_classes) == ("scores", "logits", 5)
    assert score.activation == "Softmax"
    assert other.problem is not None
    assert [c.tensor for c in report.candidates] == ["c", "map"]
    assert report.recommended == 1
    assert "read by GlobalAveragePool" in report.reason
    assert {(o.operator, o.reverse, o.onnxruntime_training) for o in report.operators} == {
        ("ai.onnx::Flatten-17", True, True),
        ("ai.onnx::GlobalAveragePool-17", True, True),
        ("ai.onnx::MatMul-17", True, True),
    }
    values = json.loads(json.dumps(report.to_dict()))
    assert values["candidates"][1]["shape"] == ["N", 4, 8, 8]
    text = report.summary()
    assert "*   1  (N, 4, 8, 8)" in text
    assert "scores: 5 classes, score logits, before Softmax" in text


@pytest.mark.parametrize("gate", [True, False])
def test_an_exported_file(tmp_path: Path, gate: bool) -> None:
    assert inspect_model(classifier()).explanation is None
    assert "exported file" not in inspect_model(classifier()).summary()
    file = tmp_path / "exported.onnx"
    export_model(classifier(), file, gate=gate, gradient_builder="reverse", verify=False)
    report = inspect_model(file)
    assert [score.output for score in report.scores] == ["scores", "map"]
    assert report.explanation is not None
    assert report.explanation.outputs == ("cam_activations", "cam_gradients", "cam_classes")
    assert json.loads(json.dumps(report.to_dict()))["explanation"]["gate"] is gate
    text = report.summary()
    assert "an exported file: it explains class at map" in text
    assert ("cam_class, cam_explain, a gate" in text) is gate


def test_an_exported_file_with_damaged_metadata(tmp_path: Path) -> None:
    file = tmp_path / "exported.onnx"
    export_model(classifier(), file, gradient_builder="reverse", verify=False)
    model = onnx.load(file)
    next(p for p in model.metadata_props if p.key == "onnx_gradcam.num_classes").value = "{"
    with pytest.raises(NotExportedError, match="damaged"):
        inspect_model(model)


def test_operators_that_nobody_differentiates_are_marked() -> None:
    model = classifier()
    node = next(n for n in model.graph.node if n.op_type == "Flatten")
    node.op_type, node.domain = "Squash", "custom"
    model.opset_import.add(domain="custom", version=1)
    flat = helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["N", 4])
    model.graph.value_info.append(flat)
    report = inspect_model(model)
    rows = {o.operator: (o.reverse, o.onnxruntime_training) for o in report.operators}
    assert rows["custom::Squash-1"] == (False, False)


def test_a_model_without_a_score_is_reported() -> None:
    report = inspect_model(
        parser.parse_model(
            """<ir_version: 8, opset_import: ["" : 17]>
            net (float[N, 3, 8, 8] image) => (float[N, 3, 8, 8] y) { y = Relu(image) }"""
        )
    )
    assert report.recommended is None
    assert "more than a class axis" in report.reason
    assert report.candidates == ()
    assert "no recommendation" in report.summary()


def test_an_unknown_score_is_an_error() -> None:
    with pytest.raises(ScoreNotFoundError, match="did you mean 'scores'"):
        inspect_model(classifier(), score="score")
