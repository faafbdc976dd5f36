"""Classifiers of scikit-learn behind convolutions: the domain ai.onnx.ml, in standard operators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper, parser

import onnx_gradcam
from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.expansion import expand
from onnx_gradcam.export.inspection import inspect_model
from onnx_gradcam.export.pipeline import export_model

CLASSES, CHANNELS, SIZE = 4, 6, 5
RNG = np.random.default_rng(3)
WEIGHTS = RNG.normal(size=(CLASSES, CHANNELS)).astype(np.float32)
BIAS = np.zeros(CLASSES, np.float32)
FILTERS = RNG.normal(size=(CHANNELS, 3, 3, 3)).astype(np.float32)
COLOURS = RNG.normal(size=(30, 3, 1, 1)) * 4
MANY = (RNG.normal(size=(30, 3, SIZE, SIZE)) + COLOURS).astype(np.float32)
IMAGES = MANY[:3]

FEATURES = """
<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
features (float[N,3,5,5] image) => (int64[N] label)
<float[6,3,3,3] filters> {
  convolved = Conv<pads=[1,1,1,1]>(image, filters)
  map = Relu(convolved)
  pooled = GlobalAveragePool(map)
  features = Flatten(pooled)
}"""


def linear(transform: str = "NONE", **attributes: object) -> onnx.NodeProto:
    given = {
        "classlabels_ints": [3, 1, 4, 15],
        "coefficients": WEIGHTS.reshape(-1).tolist(),
        "intercepts": BIAS.tolist(),
        "multi_class": 1,
        **attributes,
    }
    return helper.make_node(
        "LinearClassifier",
        ["features"],
        ["label", "scores"],
        "head",
        domain="ai.onnx.ml",
        post_transform=transform,
        **{name: value for name, value in given.items() if value is not None},
    )


def ml(op_type: str, source: str, result: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, [source], [result], domain="ai.onnx.ml", **attributes)


def model_of(*nodes: onnx.NodeProto, output: str = "scores", strings: bool = False):
    """Return features and head; the outputs are the label and `output`."""
    model = parser.parse_model(FEATURES)
    del model.graph.value_info[:]
    model.graph.initializer.append(numpy_helper.from_array(FILTERS, "filters"))
    model.graph.node.extend(nodes)
    if strings:
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    last = next(node for node in model.graph.node if output in node.output)
    if last.op_type == "ZipMap":
        names = [a.name for a in last.attribute]
        key = onnx.TensorProto.STRING if "classlabels_strings" in names else onnx.TensorProto.INT64
        kind = helper.make_map_type_proto(key, helper.make_tensor_type_proto(1, []))
        value = helper.make_value_info(output, helper.make_sequence_type_proto(kind))
    else:
        value = helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, ["N", CLASSES])
    model.graph.output.append(value)
    return model


def run(model: onnx.ModelProto, images: np.ndarray = IMAGES) -> list:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"image": images})


NORMALIZED = {
    norm: (linear(), ml("Normalizer", "scores", "normalized", norm=norm)) for norm in ("L1", "L2")
}
STRINGS = {"classlabels_ints": None, "classlabels_strings": ["d", "a", "c", "b"]}
SCALED = ml("Scaler", "features", "scaled", offset=[0.5] * 6, scale=[1.0, 2.0, 3.0, 0.5, -1.0, 4.0])
SCALED_ALIKE = ml("Scaler", "features", "scaled", offset=[0.5], scale=[2.0])
HEADS = {
    "raw": (model_of(linear()), "scores"),
    "softmax": (model_of(linear("SOFTMAX")), "scores"),
    "logistic": (model_of(linear("LOGISTIC")), "scores"),
    "strings": (model_of(linear("SOFTMAX", **STRINGS), strings=True), "scores"),
    "normalized softmax": (
        model_of(linear("SOFTMAX"), ml("Normalizer", "scores", "p", norm="L1"), output="p"),
        "p",
    ),
    "L1": (model_of(*NORMALIZED["L1"], output="normalized"), "normalized"),
    "L2": (model_of(*NORMALIZED["L2"], output="normalized"), "normalized"),
}


def scaled(scaler: onnx.NodeProto) -> onnx.ModelProto:
    head = linear("SOFTMAX")
    head.input[0] = "scaled"
    return model_of(scaler, head)


HEADS["scaled"] = (scaled(SCALED), "scores")
HEADS["scaled alike"] = (scaled(SCALED_ALIKE), "scores")


@pytest.mark.parametrize(("model", "output"), HEADS.values(), ids=HEADS)
def test_values(model: onnx.ModelProto, output: str) -> None:
    graph = expand(model)
    assert graph.unexpanded == {}
    assert {node.domain for node in graph.nodes} == {""}
    (label, scores), (expected_label, expected) = run(graph.model, MANY), run(model, MANY)
    np.testing.assert_array_equal(label, expected_label)
    assert len(set(expected_label.tolist())) > 1
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize(("model", "output"), HEADS.values(), ids=HEADS)
def test_exports_and_verifies(model: onnx.ModelProto, output: str, tmp_path: Path) -> None:
    report = export_model(model, tmp_path / "cam.onnx", gradient_builder="reverse")
    assert report.target == "map"
    assert report.verification is not None
    assert report.verification.passed
    assert report.verification.warnings == ()


@pytest.mark.parametrize("name", ["raw", "softmax", "logistic", "strings", "normalized softmax"])
def test_y_is_the_linear_score(name: str, tmp_path: Path) -> None:
    """Behind an average over space dy^c/dA = W_c / (H W), whatever follows the linear score."""
    export_model(HEADS[name][0], tmp_path / "cam.onnx", gradient_builder="reverse")
    explanation = onnx_gradcam.load(tmp_path / "cam.onnx", device="cpu").explain(IMAGES, [0, 2, 3])
    expected = WEIGHTS[[0, 2, 3]] / SIZE**2
    gradients = explanation.gradients
    assert gradients.shape == (3, CHANNELS, SIZE, SIZE)
    np.testing.assert_allclose(
        gradients, np.broadcast_to(expected[..., None, None], gradients.shape), rtol=1e-5
    )


@pytest.mark.parametrize(
    "labels", [{"classlabels_int64s": [1, 3, 4, 15]}, {"classlabels_strings": ["a", "b", "c", "d"]}]
)
def test_scores_in_maps(labels: dict[str, list], tmp_path: Path) -> None:
    probabilities = (linear("SOFTMAX"), ml("Normalizer", "scores", "p", norm="L1"))
    model = model_of(*probabilities, ml("ZipMap", "p", "maps", **labels), output="maps")
    report = export_model(model, tmp_path / "cam.onnx", gradient_builder="reverse")
    assert report.num_classes == CLASSES
    assert [score.output for score in inspect_model(model).scores] == ["maps"]
    explainer = onnx_gradcam.load(tmp_path / "cam.onnx", device="cpu")
    expected = run(HEADS["normalized softmax"][0])[1]
    explanation = explainer.explain(IMAGES)
    np.testing.assert_allclose(explanation.scores, expected, atol=1e-6)
    np.testing.assert_array_equal(explanation.classes, expected.argmax(1))
    assert explainer.explain(IMAGES[:1]).scores.shape == (1, CLASSES)
    assert explainer.predict(IMAGES[:0]).shape == (0, CLASSES)


def test_maps_of_another_order_are_refused(tmp_path: Path) -> None:
    nodes = (linear("SOFTMAX"), ml("ZipMap", "scores", "maps", classlabels_int64s=[3, 1, 4, 15]))
    with pytest.raises(UnsupportedModelError, match=r"'maps' are not in ascending order; .*zipmap"):
        export_model(model_of(*nodes, output="maps"), tmp_path / "cam.onnx")


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ((linear("PROBIT"),), "its post_transform PROBIT is not covered"),
        ((linear(intercepts=[0.5], classlabels_ints=[0, 1]),), "1 scores for 2 classes"),
        (
            (linear(), ml("Normalizer", "scores", "normalized", norm="MAX")),
            "the norm MAX is not covered",
        ),
        (
            (
                helper.make_node(
                    "TreeEnsembleClassifier",
                    ["features"],
                    ["label", "scores"],
                    domain="ai.onnx.ml",
                    classlabels_int64s=list(range(CLASSES)),
                    class_ids=list(range(CLASSES)),
                    class_nodeids=[1, 1, 2, 2],
                    class_treeids=[0] * 4,
                    class_weights=[0.1, 0.2, 0.3, 0.4],
                    nodes_falsenodeids=[2, 0, 0],
                    nodes_featureids=[0, 0, 0],
                    nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
                    nodes_nodeids=[0, 1, 2],
                    nodes_treeids=[0, 0, 0],
                    nodes_truenodeids=[1, 0, 0],
                    nodes_values=[0.5, 0.0, 0.0],
                    post_transform="NONE",
                ),
            ),
            "trees have no gradient: their scores are constant between thresholds",
        ),
    ],
)
def test_refusals(nodes: tuple[onnx.NodeProto, ...], reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        export_model(model_of(*nodes, output=nodes[-1].output[-1]), tmp_path / "cam.onnx")
