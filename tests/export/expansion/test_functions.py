"""Branches with known conditions, function bodies, and model-local functions."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.expansion import expand
from onnx_gradcam.export.expansion.function_bodies import is_function
from onnx_gradcam.export.expansion.local_functions import inlined
from onnx_gradcam.export.pipeline import export_model
from onnx_gradcam.gradients.registry import find_gradient, takes
from tests.export.expansion.test_expand import picture, run
from tests.export.networks import network

SQUEEZED = """
a = Conv<pads=[1,1,1,1]>(image, w)
b = Relu(a)
c = GlobalAveragePool(b)
s = Shape(c)
size = Gather(s, three)
is_one = Equal(size, one)
d = If(is_one) <
    then_branch = yes () => (float[A,B,C] y) { y = Squeeze(c, three) },
    else_branch = no () => (float[A,B,C,D] n) { n = Identity(c) }
>
e = Flatten(d)
logits = Gemm(e, fc)
"""
WEIGHTS = {"w": (6, 3, 3, 3), "fc": (6, 5)}
INTEGERS = {"three": [3], "one": [1]}


def test_the_branch_of_a_known_condition_is_taken(tmp_path: Path) -> None:
    model = network(SQUEEZED, WEIGHTS, integers=INTEGERS)
    graph = expand(model)
    assert "If" not in {node.op_type for node in graph.nodes}
    assert graph.shape("d") == ("N", 6, 1)
    report = export_model(model, tmp_path / "out.onnx", layer="b", gradient_builder="reverse")
    assert report.verification is not None
    assert report.verification.passed
    nodes = list(onnx.load(tmp_path / "out.onnx").graph.node)
    assert sum(node.op_type == "If" for node in nodes) == 1, "the original one"


def test_a_branch_with_weights_and_names_that_occur_twice() -> None:
    branch = """{ t = Mul(c, two) u = Relu(t) }"""
    body = f"""c = GlobalAveragePool(image)
    x1 = If(true) <then_branch = yes () => (float[N,3,1,1] u) <float two = {{2.0}}> {branch},
        else_branch = no () => (float[N,3,1,1] u) <float two = {{3.0}}> {branch}>
    x2 = If(false) <then_branch = yes () => (float[N,3,1,1] u) <float two = {{2.0}}> {branch},
        else_branch = no () => (float[N,3,1,1] u) <float two = {{3.0}}> {branch}>
    logits = Sub(x1, x2)"""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,8,8] image)
        => (float[N,3,1,1] logits) <bool true = {{1}}, bool false = {{0}}> {{ {body} }}"""
    )
    graph = expand(model)
    assert len({o for n in graph.nodes for o in n.output}) == len(graph.nodes)
    image = np.abs(picture(2, 3, 8, 8))
    (found,) = run(graph.model, {"image": image}).values()
    np.testing.assert_allclose(found, -image.mean((2, 3), keepdims=True), rtol=1e-5)


def test_a_condition_of_run_time_is_refused_with_the_reason(tmp_path: Path) -> None:
    body = SQUEEZED.replace(
        "is_one = Equal(size, one)",
        "m = ReduceMax<keepdims=0>(image) zero = Constant<value_float=0.0>()"
        " is_one = Greater(m, zero)",
    )
    model = network(body, WEIGHTS, integers=INTEGERS)
    model.graph.value_info.append(helper.make_tensor_value_info("d", 1, ["N", 6, None]))
    with pytest.raises(UnsupportedModelError, match=r"If-17.*its condition must be constant"):
        export_model(model, tmp_path / "out.onnx", layer="b", gradient_builder="reverse")


def test_a_loop_is_refused_in_the_tail_and_no_obstacle_before_it(tmp_path: Path) -> None:
    body = """n = Constant<value_int=2>()
    go = Constant<value=bool {1}>()
    start = Loop(n, go, image) <body = step (int64 i, bool c, float[N,3,8,8] x)
        => (bool c2, float[N,3,8,8] x2) { c2 = Identity(c) x2 = Add(x, x) }>
    a = Conv<pads=[1,1,1,1]>(start, w)
    b = Relu(a)
    c = GlobalAveragePool(b)
    e = Flatten(c)
    logits = Gemm(e, fc)"""
    model = network(body, WEIGHTS)
    model.graph.value_info.append(helper.make_tensor_value_info("start", 1, ["N", 3, 8, 8]))
    report = export_model(model, tmp_path / "out.onnx", layer="b", gradient_builder="reverse")
    assert report.verification is not None
    assert report.verification.passed
    behind = body.replace("Loop(n, go, image)", "Loop(n, go, p)").replace(
        "n = Const", "p = Relu(image) n = Const"
    )
    model = network(behind, WEIGHTS)
    model.graph.value_info.append(helper.make_tensor_value_info("start", 1, ["N", 3, 8, 8]))
    with pytest.raises(UnsupportedModelError, match=r"ai\.onnx::Loop-17 \(node 'start'\)"):
        export_model(model, tmp_path / "two.onnx", layer="p", gradient_builder="reverse")


# -- function bodies -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "opset"),
    [
        ("y = MeanVarianceNormalization<axes=[0, 2, 3]>(x)", 13),
        ("y = MeanVarianceNormalization<axes=[1, 2, 3]>(x)", 18),
        ("y = Celu<alpha=0.7>(x)", 12),
        ("y = Shrink(x)", 18),
        ("y = Shrink<lambd=0.4, bias=0.2>(x)", 18),
        ("y = CenterCropPad<axes=[2, 3]>(x, size)", 18),
    ],
)
def test_a_body_computes_what_the_operator_does(
    text: str, opset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if there were no formulas: some of these have one."""
    op_type = text.split("<")[0].split("(")[0].split()[-1]
    monkeypatch.setattr(
        sys.modules["onnx_gradcam.export.expansion.expand"],
        "takes",
        lambda node, v: node.op_type != op_type and takes(node, v),
    )
    model = network(text, {}, image="float[N,3,8,8] x", scores="float[N,3,H,W] y",
                    integers={"size": [6, 10]}, opset=opset)  # fmt: skip
    assert is_function(op_type, opset)
    graph = expand(model)
    assert graph.unexpanded == {}
    assert op_type not in {node.op_type for node in graph.nodes}
    x = picture(2, 3, 8, 8)
    (expected,) = run(model, {"x": x}).values()
    (found,) = run(graph.model, {"x": x}).values()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_body_that_is_not_written_for_the_opset_is_not_used() -> None:
    assert not is_function("Mystery", 18)
    assert not is_function("GroupNormalization", 13)
    model = network("y = ThresholdedRelu(x)", {}, image="float[N,3] x", scores="float[N,3] y",
                    opset=13)  # fmt: skip
    if find_gradient("", "ThresholdedRelu", 13) is None:
        assert "not written for opset 13" in expand(model).unexpanded["y"]


def test_integers_are_left_alone() -> None:
    body = """s = Shape(image) n = Gather(s, zero) r = Range(zero, n, one)
    c = Cast<to=1>(r) d = Unsqueeze(c, axes) e = GlobalAveragePool(image) f = Flatten(e)
    logits = Add(f, d)"""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,8,8] image)
        => (float[N,3] logits) <int64 zero = {{0}}, int64 one = {{1}}, int64[1] axes = {{1}}>
        {{ {body} }}"""
    )
    graph = expand(model)
    assert [n.op_type for n in graph.nodes] == [n.op_type for n in model.graph.node]


# -- local functions -----------------------------------------------------------------------------

CALLS = """
<ir_version: 10, opset_import: ["" : 17, "local" : 1]>
network (float[N,3,8,8] image) => (float[N,5] logits) {
  a = local.Block<slope = 0.25>(image, w)
  b = local.Block<slope = 0.5>(a, v)
  logits = local.Head(b, fc)
}
<domain: "local", opset_import: ["" : 17, "local" : 1]>
Block <slope> (x, weight) => (y) {
  c = Conv<pads = [1,1,1,1]>(x, weight)
  y = local.Activation<alpha = @slope>(c)
}
<domain: "local", opset_import: ["" : 17]>
Activation <alpha> (x) => (y) {
  y = LeakyRelu<alpha: float = @alpha>(x)
}
<domain: "local", opset_import: ["" : HEAD, "com.microsoft" : 1]>
Head (x, weight) => (y) {
  c = com.microsoft.Gelu(x)
  p = GlobalAveragePool(c)
  f = Flatten(p)
  y = Gemm(f, weight)
}
"""


def called(head_opset: int = 17) -> onnx.ModelProto:
    text = CALLS.replace("HEAD", str(head_opset))
    model = parser.parse_model(text.replace("<alpha = @slope>", "<alpha: float = @slope>"))
    rng = np.random.default_rng(4)
    for name, shape in {"w": (4, 3, 3, 3), "v": (40, 4, 3, 3), "fc": (40, 5)}.items():
        values = rng.standard_normal(shape).astype(np.float32) / 4
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("head_opset", [17, 18])
def test_local_functions_are_inlined(tmp_path: Path, head_opset: int) -> None:
    model = called(head_opset)
    before = model.SerializeToString()
    flat = inlined(model)
    assert model.SerializeToString() == before
    assert not flat.functions
    assert [n.op_type for n in flat.graph.node] == [
        *("Conv", "LeakyRelu", "Conv", "LeakyRelu", "Gelu", "GlobalAveragePool"),
        *("Flatten", "Gemm"),
    ]
    image = picture(2, 3, 8, 8)
    np.testing.assert_array_equal(
        run(flat, {"image": image})["logits"], run(model, {"image": image})["logits"]
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    report = export_model(path, tmp_path / "out.onnx", layer="a", gradient_builder="reverse")
    assert report.verification is not None
    assert report.verification.passed
    exported = onnx.load(tmp_path / "out.onnx")
    assert not exported.functions
    assert report.nodes_added == len(exported.graph.node) - len(flat.graph.node)


def test_weights_in_files_stay_there(tmp_path: Path) -> None:
    model = called()
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, size_threshold=64, location="weights")
    flat = inlined(onnx.load(path, load_external_data=False))
    locations = [t.data_location for t in flat.graph.initializer]
    assert locations == [TensorProto.EXTERNAL] * 3
    report = export_model(path, tmp_path / "out.onnx", layer="b", gradient_builder="reverse")
    assert report.verification is not None
    assert report.verification.passed


def test_overloads_are_told_apart() -> None:
    model = called()
    second = onnx.FunctionProto()
    second.CopyFrom(next(f for f in model.functions if f.name == "Activation"))
    second.overload = "other"
    second.node[0].op_type = "Elu"
    model.functions.append(second)
    block = next(f for f in model.functions if f.name == "Block")
    block.node[1].overload = "other"
    assert [n.op_type for n in inlined(model).graph.node][:2] == ["Conv", "Elu"]
