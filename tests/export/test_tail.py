from __future__ import annotations

import pytest
from onnx import parser

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.tail import cut_tail, missing_formulas, refuse_missing_formulas
from tests.export.networks import NETWORKS


def graph_of(body: str, opset: int = 17) -> Graph:
    text = f"""<ir_version: 8, opset_import: ["" : {opset}, "custom" : 1]>
        net (float[N, 3, 8, 8] x) => (float[] y) {{ {body} }}"""
    return Graph(parser.parse_model(text))


def test_the_tail_lies_between_the_layer_and_the_score() -> None:
    graph = Graph(NETWORKS["VGG"].model())
    tail = cut_tail(graph, "relu5", "logits")
    assert [node.op_type for node in tail.nodes] == [
        "MaxPool", "Flatten", "Gemm", "Relu", "Dropout", "Gemm",
    ]  # fmt: skip
    assert tail.tensors == {"relu5", "pool5", "flat", "fc6", "relu6", "drop6", "logits"}


def test_what_by_passes_the_layer_is_not_in_it() -> None:
    graph = Graph(NETWORKS["ResNet"].model())
    tail = cut_tail(graph, "relu2", "logits")
    assert [node.output[0] for node in tail.nodes] == [
        "conv3", "sum", "relu3", "pooled", "flat", "logits",
    ]  # fmt: skip
    assert "relu1" not in tail.tensors


def test_what_the_score_does_not_need_is_not_in_it() -> None:
    graph = graph_of("a = Relu(x)\n side = Neg(a)\n s = Shape(a)\n b = Reshape(a, s)\n y = Exp(b)")
    tail = cut_tail(graph, "a", "y")
    assert [node.op_type for node in tail.nodes] == ["Reshape", "Exp"]
    assert tail.tensors == {"a", "b", "y"}


def test_a_node_with_several_outputs_is_in_it_once() -> None:
    graph = graph_of("a, b = Split<axis=2>(x)\n c = Mul(a, b)\n y = Exp(c)")
    assert [node.op_type for node in cut_tail(graph, "x", "y").nodes] == ["Split", "Mul", "Exp"]


def test_a_layer_that_is_one_output_of_its_node() -> None:
    graph = graph_of("r = Relu(x)\n a, b = Split<axis=2>(r)\n c = Mul(a, b)\n y = Exp(c)")
    tail = cut_tail(graph, "a", "y")
    assert [node.op_type for node in tail.nodes] == ["Mul", "Exp"]


def test_operators_without_a_formula_are_all_named() -> None:
    graph = graph_of(
        "a = Relu(x)\n b = Bernoulli(a)\n c = custom.Mystery(b)\n d = Relu(c)\n"
        " y = RandomNormalLike(d)"
    )
    tail = cut_tail(graph, "a", "y")
    assert [n.op_type for n in missing_formulas(graph, tail)] == [
        "Bernoulli",
        "Mystery",
        "RandomNormalLike",
    ]
    with pytest.raises(UnsupportedModelError) as caught:
        refuse_missing_formulas(graph, tail)
    assert str(caught.value) == (
        "no gradient formula for ai.onnx::Bernoulli-17 (node 'b'), custom::Mystery-1 (node 'c'),"
        " ai.onnx::RandomNormalLike-17 (node 'y'), between 'a' and 'y'; choose a later layer"
        " with --layer, or add a formula: docs/add-an-operator.md"
    )


def test_at_most_five_are_shown() -> None:
    steps = "\n".join(f"x{i + 1} = RandomNormalLike(x{i})" for i in range(7))
    graph = graph_of(f"x0 = Relu(x)\n {steps}\n y = RandomNormalLike(x7)")
    with pytest.raises(UnsupportedModelError, match=r"\(node 'x5'\) and 3 more, between 'x0' and"):
        refuse_missing_formulas(graph, cut_tail(graph, "x0", "y"))


def test_a_formula_counts_in_its_range_of_opsets() -> None:
    body = "a = Relu(x)\n y = Clip<min=0.0>(a)"
    graph = graph_of(body, opset=9)
    assert missing_formulas(graph, cut_tail(graph, "a", "y")) == []
    graph.model.opset_import[0].version = 27
    assert [n.op_type for n in missing_formulas(graph, cut_tail(graph, "a", "y"))] == ["Clip"]
