"""A gate: open, the file is what it is without; closed, the model's own outputs and no images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import NodeProto

from onnx_gradcam import check_export, export_model
from onnx_gradcam.contract import GATE_INPUT, ExportMetadata
from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.gate import NAME, without_gate
from tests.export.networks import NETWORKS, network
from tests.export.objective_models import objective_model
from tests.export.objective_seeds import IMAGES
from tests.export.precisions import HALF, converted
from tests.export.spatial.transformers import CLASS_TOKEN

BUILDERS = [
    "reverse",
    pytest.param("onnxruntime-training", marks=pytest.mark.needs_builder),
]
CHECKS = {"gate closed", "gate open"}
OPEN, CLOSED = {GATE_INPUT: np.array([True])}, {GATE_INPUT: np.array([False])}

BODY = """
a = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, w)
b = Relu(a)
c = Conv(b, v)
g = GlobalAveragePool(c)
f = Flatten(g)
scores = MatMul(f, fc)
"""
WEIGHTS = {"w": (4, 3, 3, 3), "v": (6, 4, 1, 1), "fc": (6, 5)}

Outputs = dict[str, np.ndarray[Any, Any]]


def small(batch: str = "N", opset: int = 17, ir_version: int = 8) -> onnx.ModelProto:
    image, scores = f"float[{batch}, 3, 9, 9] image", f"float[{batch}, 5] scores"
    return network(BODY, WEIGHTS, image=image, scores=scores, opset=opset, ir_version=ir_version)


def run(file: Path, feeds: Outputs) -> Outputs:
    """Return all outputs; without optimisations, which fuse either file in its own way."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def drawn(model: onnx.ModelProto) -> Outputs:
    """Return seeded values for the required inputs of a model; open sizes are 2."""
    defaults = {tensor.name for tensor in model.graph.initializer}
    random = np.random.default_rng(5)
    return {
        value.name: random.standard_normal(
            [d.dim_value or 2 for d in value.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for value in model.graph.input
        if value.name not in defaults
    }


def compared(
    folder: Path, model: onnx.ModelProto, feeds: Outputs, rounding: float = 0, **options: Any
) -> tuple[Outputs, Outputs]:
    """Export with and without a gate, verified; compare; return the outputs, closed and open."""
    options = {"gradient_builder": "reverse"} | options
    export_model(model, folder / "plain.onnx", verify=False, force=True, **options)
    report = export_model(model, folder / "gated.onnx", gate=True, force=True, **options)
    assert report.verification is not None
    assert {c.name for c in report.verification.checks if c.passed} >= CHECKS
    expected = run(folder / "plain.onnx", feeds)
    found = run(folder / "gated.onnx", feeds | OPEN)
    closed = run(folder / "gated.onnx", feeds | CLOSED)
    own = {output.name for output in model.graph.output}
    assert list(found) == list(expected) == list(closed)
    for name, value in expected.items():
        tolerance = rounding * np.abs(value).max()
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance)
        if name in own:
            np.testing.assert_allclose(closed[name], value, rtol=0, atol=tolerance)
        else:
            assert np.abs(value).max() > 0 or name in {"cam_classes", "cam_boxes"}
            assert len(closed[name]) == 0
            assert (closed[name].dtype, closed[name].ndim) == (value.dtype, value.ndim)
    return closed, found


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("name", ["VGG", "ResNet", "SqueezeNet", "channels last", "1-D"])
def test_both_positions(tmp_path: Path, name: str, builder: str) -> None:
    model = NETWORKS[name].model()
    compared(tmp_path, model, drawn(model), gradient_builder=builder)


@pytest.mark.parametrize("batch", ["N", "2"])
@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 13, 18, 21, 23, 26])
def test_each_form_of_if(tmp_path: Path, opset: int, batch: str) -> None:
    model = small(batch, opset)
    closed, found = compared(tmp_path, model, drawn(model), layer="b")
    assert closed["cam_gradients"].shape == (0, 4, 5, 5)
    assert closed["cam_classes"].shape == (0,)
    np.testing.assert_array_equal(found["cam_classes"], found["scores"].argmax(axis=1))


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(
    "options",
    [
        {"layer": ["relu3", "relu1", "conv2"]},
        {"several": True, "weights": True},
        {"second_order": True, "objective": "softmax"},
        {"full_gradient": True},
        {"fuse_cam": "gradcam", "cam_size": "input", "cam_normalise": True, "outputs": "cam"},
        {"fuse_cam": "layercam", "several": True},
        {"class_input": "fixed:3"},
    ],
    ids=str,
)
def test_all_that_a_file_can_give(tmp_path: Path, options: dict[str, Any], builder: str) -> None:
    model = NETWORKS["ResNet"].model()
    compared(tmp_path, model, drawn(model), gradient_builder=builder, **options)


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ("single logit", {"objective": "binary"}),
        ("segmenter", {"objective": "segmentation", "class_axis": 1}),
        ("detector", {"objective": "detection", "class_channels": "4:"}),
    ],
)
def test_objectives(tmp_path: Path, body: str, options: dict[str, Any]) -> None:
    compared(tmp_path, objective_model(body), {"image": IMAGES}, **options)


def test_attention(tmp_path: Path) -> None:
    model = CLASS_TOKEN.model()
    closed, found = compared(tmp_path, model, drawn(model), attention="both")
    assert closed["cam_attention"].shape == (0, *found["cam_attention"].shape[1:])
    assert found["cam_legrad"].max() > 0


def test_half_precision(tmp_path: Path) -> None:
    model = converted(NETWORKS["ResNet"].model(), HALF)
    feeds = {name: value.astype(np.float16) for name, value in drawn(model).items()}
    closed, found = compared(tmp_path, model, feeds, rounding=2e-3)
    assert found["logits"].dtype == closed["logits"].dtype == np.float16


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    model = small()
    source = tmp_path / "source.onnx"
    onnx.save(model, source, save_as_external_data=True, size_threshold=0, location="weights")
    report = export_model(source, tmp_path / "gated.onnx", gate=True, gradient_builder="reverse")
    assert report.verification is not None
    assert {check.name for check in report.verification.checks if check.passed} >= CHECKS
    found = run(tmp_path / "gated.onnx", drawn(model) | OPEN)
    assert found["cam_classes"].tolist() == found["scores"].argmax(axis=1).tolist()
    assert np.abs(found["cam_gradients"]).max() > 1e-3


def test_the_class_is_asked_for_as_ever(tmp_path: Path) -> None:
    model = small()
    feeds = drawn(model)
    highest = compared(tmp_path, model, feeds)[1]
    asked = run(tmp_path / "gated.onnx", feeds | OPEN | {"cam_class": np.array([4, -2])})
    assert asked["cam_classes"].tolist() == [4, highest["scores"][1].argsort()[-2]]
    expected = run(tmp_path / "plain.onnx", feeds | {"cam_class": asked["cam_classes"]})
    np.testing.assert_array_equal(asked["cam_gradients"], expected["cam_gradients"])
    assert np.abs(asked["cam_gradients"] - highest["cam_gradients"]).max() > 1e-3


def test_unless_it_is_closed_the_gate_is_open(tmp_path: Path) -> None:
    model = small()
    found = compared(tmp_path, model, drawn(model))[1]
    for name, value in run(tmp_path / "gated.onnx", drawn(model)).items():
        np.testing.assert_array_equal(value, found[name])


def test_it_is_required_where_the_class_is(tmp_path: Path) -> None:
    model = small()
    feeds = drawn(model) | {"cam_class": np.array([1, 3])}
    compared_open = export_model(
        model,
        tmp_path / "gated.onnx",
        gate=True,
        class_input="required",
        gradient_builder="reverse",
    )
    assert compared_open.verification is not None
    assert compared_open.verification.passed
    session = ort.InferenceSession(tmp_path / "gated.onnx", providers=["CPUExecutionProvider"])
    given = {node.name: (node.type, node.shape) for node in session.get_inputs()}
    assert given[GATE_INPUT] == ("tensor(bool)", [1])
    assert run(tmp_path / "gated.onnx", feeds | OPEN)["cam_classes"].tolist() == [1, 3]
    assert run(tmp_path / "gated.onnx", feeds | CLOSED)["cam_classes"].tolist() == []


@pytest.mark.parametrize(
    ("class_input", "version", "keeps"),
    [("required", 3, ""), ("fixed:1", 4, "--class-input required keeps the version")],
)
def test_models_of_ir_3(tmp_path: Path, class_input: str, version: int, keeps: str) -> None:
    model = small(opset=7, ir_version=3)
    file = tmp_path / "gated.onnx"
    report = export_model(
        model, file, gate=True, class_input=class_input, gradient_builder="reverse", layer="b"
    )
    assert onnx.load(file).ir_version == version
    assert keeps in " ".join(report.warnings)


def test_the_graph_stays_and_the_file_says_what_it_has(tmp_path: Path) -> None:
    model = small()
    reports = [
        export_model(model, tmp_path / name, gate=gate, gradient_builder="reverse", layer="b")
        for name, gate in (("plain", False), ("gated", True), ("again", True))
    ]
    plain, gated = (onnx.load(tmp_path / name) for name in ("plain", "gated"))
    assert (tmp_path / "gated").read_bytes() == (tmp_path / "again").read_bytes()
    assert list(gated.graph.node)[:-1] == list(model.graph.node)
    (switch,) = list(gated.graph.node)[-1:]
    assert (switch.op_type, switch.name, list(switch.input)) == ("If", NAME, [GATE_INPUT])
    assert reports[0].nodes_added == reports[1].nodes_added
    props = [{p.key: p.value for p in m.metadata_props} for m in (plain, gated)]
    assert [ExportMetadata.from_props(p).gate for p in props] == [False, True]
    assert "onnx_gradcam.gate" not in props[0]
    names = [[t.name for t in m.graph.initializer] for m in (model, gated)]
    assert names[1] == [*names[0], "cam_class", GATE_INPUT]


def test_the_way_back(tmp_path: Path) -> None:
    model = small()
    compared(tmp_path, model, drawn(model), layer="b")
    plain, gated = (onnx.load(tmp_path / name) for name in ("plain.onnx", "gated.onnx"))
    opened = without_gate(gated)
    assert without_gate(plain) is plain
    assert list(opened.graph.node) == list(plain.graph.node)
    assert [i.name for i in opened.graph.input] == [i.name for i in plain.graph.input]
    onnx.checker.check_model(opened, full_check=True)


def test_a_model_that_has_an_input_of_that_name(tmp_path: Path) -> None:
    model = small()
    for values in (model.graph.input[0].name, model.graph.node[0].input[0]):
        assert values == "image"
    model.graph.input[0].name = model.graph.node[0].input[0] = GATE_INPUT
    with pytest.raises(UnsupportedModelError, match="uses the name 'cam_explain'"):
        export_model(model, tmp_path / "gated.onnx", gate=True, gradient_builder="reverse")


# -- what verification refuses -----------------------------------------------------------------


def _branches(switch: NodeProto) -> dict[str, onnx.AttributeProto]:
    return {attribute.name: attribute for attribute in switch.attribute}


def _swapped(model: onnx.ModelProto, switch: NodeProto) -> None:
    branches = _branches(switch)
    branches["then_branch"].name, branches["else_branch"].name = "else_branch", "then_branch"


def _always_open(model: onnx.ModelProto, switch: NodeProto) -> None:
    branches = _branches(switch)
    branches["else_branch"].g.CopyFrom(branches["then_branch"].g)


def _closed_by_default(model: onnx.ModelProto, switch: NodeProto) -> None:
    (default,) = [t for t in model.graph.initializer if t.name == GATE_INPUT]
    default.CopyFrom(onnx.numpy_helper.from_array(np.array([False]), GATE_INPUT))


def _other_gradient(model: onnx.ModelProto, switch: NodeProto) -> None:
    then = _branches(switch)["then_branch"].g
    output = then.output[1].name
    (node,) = [node for node in then.node if output in node.output]
    node.output[0] = "onnx_gradcam/half"
    then.node.append(
        onnx.helper.make_node("Add", ["onnx_gradcam/half"] * 2, [output], "onnx_gradcam/twice")
    )


def _without_switch(model: onnx.ModelProto, switch: NodeProto) -> None:
    opened = without_gate(model)
    kept = [value for value in model.graph.input if value.name == GATE_INPUT]
    default = [t for t in model.graph.initializer if t.name == GATE_INPUT]
    opened.graph.input.extend(kept)
    opened.graph.initializer.extend(default)
    model.CopyFrom(opened)


def _without_input(model: onnx.ModelProto, switch: NodeProto) -> None:
    kept = [value for value in model.graph.input if value.name != GATE_INPUT]
    del model.graph.input[:]
    model.graph.input.extend(kept)


WRONG: dict[str, tuple[Callable[[onnx.ModelProto, NodeProto], None], str, str]] = {
    "swapped": (_swapped, "gate closed", "'cam_activations' holds images"),
    "always open": (_always_open, "gate closed", "'cam_gradients' holds images"),
    "closed by default": (_closed_by_default, "gate open", "differs where the gate is not fed"),
    "another gradient": (_other_gradient, "gradient", "central differences differ"),
    "no switch": (_without_switch, "gate closed", "'cam_activations' holds images"),
    "no input": (_without_input, "names and metadata", "cam_explain is not optional"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_gate_fails(tmp_path: Path, wrong: str) -> None:
    change, name, detail = WRONG[wrong]
    file = tmp_path / "gated.onnx"
    export_model(small(), file, gate=True, gradient_builder="reverse", layer="b")
    model = onnx.load(file)
    change(model, model.graph.node[-1])
    onnx.save(model, file)
    failures = {check.name: check.detail for check in check_export(file).failures}
    assert detail in failures[name], failures
