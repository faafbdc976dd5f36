"""`export_model` as a whole: both builders, what stays, what is added, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_gradcam.contract import ExportMetadata
from onnx_gradcam.errors import (
    ClassNotFoundError,
    LayerNotFoundError,
    OutputError,
    UnsupportedModelError,
    UsageError,
    VerificationError,
)
from onnx_gradcam.export import pipeline
from onnx_gradcam.export.pipeline import export_model
from onnx_gradcam.export.verification.report import Check, VerificationReport
from tests.export.networks import network

BODY = """
a = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, w)
b = Relu(a)
{pooled}
c = Conv(p, v)
d = Sigmoid(c)
e = Mul(c, d)
g = GlobalAveragePool(e)
f = Flatten(g)
scores = MatMul(f, fc)
"""
MAX_POOL = "p = MaxPool<kernel_shape = [2, 2]>(b)"
AVERAGE_POOL = "p = AveragePool<kernel_shape = [2, 2], pads = [0, 0, 0, 0], strides = [2, 2]>(q)"
WEIGHTS = {"w": (4, 3, 3, 3), "v": (6, 4, 1, 1), "fc": (6, 5)}


def model_of(
    pooled: str = MAX_POOL, opset: int = 17, integers: dict[str, list[int]] | None = None
) -> onnx.ModelProto:
    return network(
        BODY.format(pooled=pooled),
        WEIGHTS,
        image="float[N, 3, 9, 9] image",
        scores="float[N, 5] scores",
        integers=integers,
        opset=opset,
    )


def run(path: Path, image: np.ndarray, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image, **feeds}), strict=True))


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 21])
@pytest.mark.parametrize("layer", ["auto", "b", "a"])
def test_same_model_and_an_explanation(tmp_path: Path, opset: int, layer: str) -> None:
    model = model_of(opset=opset)
    report = export_model(model, tmp_path / "out.onnx", layer=layer, gradient_builder="reverse")
    exported = onnx.load(tmp_path / "out.onnx")
    assert report.verification is not None
    assert report.verification.passed
    assert exported.opset_import == model.opset_import
    assert exported.ir_version == model.ir_version
    assert list(exported.graph.node)[: len(model.graph.node)] == list(model.graph.node)
    added = list(exported.graph.node)[len(model.graph.node) :]
    assert len(added) == report.nodes_added
    assert all(node.name.startswith("onnx_gradcam/") for node in added)
    assert {node.domain for node in added} == {""}


def test_deterministic_to_the_byte(tmp_path: Path) -> None:
    for name in ("one", "two"):
        export_model(model_of(), tmp_path / name, gradient_builder="reverse", layer="a")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.needs_builder
@pytest.mark.parametrize("layer", ["auto", "b", "a"])
@pytest.mark.parametrize("opset", [7, 11, 17])
def test_builders_agree(tmp_path: Path, layer: str, opset: int) -> None:
    image = np.random.default_rng(1).standard_normal((2, 3, 9, 9)).astype(np.float32)
    gradients = []
    for builder in ("onnxruntime-training", "reverse"):
        report = export_model(
            model_of(opset=opset),
            tmp_path / builder,
            gradient_builder=builder,
            layer=layer,
            verify=False,
        )
        assert report.builder == builder
        found = run(tmp_path / builder, image, cam_class=np.array([2, -2]))
        assert found["cam_classes"][0] == 2
        gradients.append(found["cam_gradients"])
    assert np.abs(gradients[0]).max() > 1e-4
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("opset", [9, 17])
def test_a_layer_read_by_a_pad_that_onnxruntime_fuses(tmp_path: Path, opset: int) -> None:
    padding, integers = "q = Pad(b, zeros)", {"zeros": [0] * 8}
    if opset < 11:
        padding, integers = "q = Pad<pads = [0, 0, 0, 0, 0, 0, 0, 0], value = 0.0>(b)", {}
    model = model_of(f"{padding}\n{AVERAGE_POOL}", opset, integers)
    report = export_model(model, tmp_path / "out.onnx", layer="b", gradient_builder="reverse")
    assert report.verification is not None
    assert report.verification.passed


def test_failed_verification_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = VerificationReport((Check("gradient", False, "made up"),))
    monkeypatch.setattr(pipeline, "verify_export", lambda *_, **__: failed)
    with pytest.raises(VerificationError, match="gradient: made up; nothing was written"):
        export_model(model_of(), tmp_path / "out.onnx", gradient_builder="reverse")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs_builder
def test_auto_tries_the_other_builder_after_a_failed_verification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proven = pipeline.verify_export

    def refuse_training(
        exported: Path, source: object, metadata: ExportMetadata, inputs: object
    ) -> object:
        if metadata.gradient_builder == "reverse":
            return proven(exported, source, metadata)  # type: ignore[arg-type]
        return VerificationReport((Check("gradient", False, "made up"),))

    monkeypatch.setattr(pipeline, "verify_export", refuse_training)
    report = export_model(model_of(), tmp_path / "out.onnx")
    assert report.builder == "reverse"
    assert "onnxruntime-training" in report.builder_reason
    assert "made up" in report.builder_reason
    with pytest.raises(VerificationError, match="made up"):
        export_model(model_of(), tmp_path / "other.onnx", gradient_builder="onnxruntime-training")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layer": "bb"}, LayerNotFoundError, "no layer 'bb'; did you mean 'b'"),
        ({"layer": 99}, LayerNotFoundError, "no candidate layer 99"),
        ({"layer": "g"}, UnsupportedModelError, "is no feature map"),
        ({"score": "score"}, UsageError, "did you mean 'scores'"),
        ({"class_input": "fixed:5"}, ClassNotFoundError, "out of range: 0 to 4"),
        ({"class_input": "maybe"}, UsageError, "none of optional, required, fixed:K"),
        ({"gradient_builder": "magic"}, UsageError, "none of auto"),
        ({"labels": ["a", "b"]}, UsageError, "2 labels for 5 classes"),
        ({"labels": "nowhere.txt"}, UsageError, "cannot read labels"),
        ({"preprocess": "imagent"}, UsageError, "did you mean 'imagenet'"),
    ],
)
def test_refused_options(
    tmp_path: Path, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        export_model(model_of(), tmp_path / "out.onnx", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_exporting_twice_is_refused(tmp_path: Path) -> None:
    export_model(model_of(), tmp_path / "out.onnx", gradient_builder="reverse", verify=False)
    with pytest.raises(OutputError, match="--force"):
        export_model(model_of(), tmp_path / "out.onnx", gradient_builder="reverse")
    with pytest.raises(UnsupportedModelError, match="carries an explanation already"):
        export_model(tmp_path / "out.onnx", tmp_path / "again.onnx")


def test_an_old_opset_is_refused(tmp_path: Path) -> None:
    model = model_of()
    model.opset_import[0].version = 6
    with pytest.raises(UnsupportedModelError, match="opset 6 of the model is not covered"):
        export_model(model, tmp_path / "out.onnx")
