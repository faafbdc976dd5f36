from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, ValueInfoProto, parser

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.builders.reverse import build_reverse, reverse_gradients
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.tail import cut_tail
from onnx_gradcam.gradients.emitter import Emitter


def built(body: str, target: str = "A", others: str = "") -> tuple[ModelProto, Emitter]:
    """Return a model of dL/dA, L = sum(y * seed), and the emitter that holds the nodes."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 2, 4] A, float[] seed {others}) => (float[] dA) {{ {body} }}"""
    )
    graph = Graph(model)
    emit = Emitter(17, graph.types, graph.constant, "cam/", list(graph.names))
    gradient = build_reverse(graph, cut_tail(graph, target, "y"), emit, "seed")
    emit.node("Identity", [gradient], output="dA")
    model.graph.node.extend(emit.nodes)
    model.graph.initializer.extend(emit.initializers)
    return model, emit


def gradient(body: str, a: np.ndarray, target: str = "A", **others: np.ndarray) -> np.ndarray:
    declared = "".join(f", float[{','.join(map(str, v.shape))}] {n}" for n, v in others.items())
    model, _ = built(body, target, declared)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    seed = others.pop("seed", np.ones_like(a))
    return np.asarray(session.run(["dA"], {"A": a, "seed": seed, **others})[0])


A = np.random.default_rng(2).standard_normal((3, 2, 4)).astype(np.float32)


def test_the_gradients_of_all_paths_are_added_up() -> None:
    body = "b = Mul(A, A)\n c = Mul(b, A)\n d = Add(b, c)\n y = Sub(d, A)"
    np.testing.assert_allclose(gradient(body, A), 2 * A + 3 * A**2 - 1, rtol=1e-5, atol=1e-5)


def test_a_layer_that_does_not_dominate_the_score() -> None:
    # b by-passes the layer c: d(b c)/dc = b
    body = "b = Sigmoid(A)\n c = Tanh(A)\n y = Mul(b, c)"
    np.testing.assert_allclose(gradient(body, A, target="c"), 1 / (1 + np.exp(-A)), rtol=1e-5)


def test_the_score_itself_as_the_layer() -> None:
    _, emit = built("y = Relu(A)", target="y")
    assert [node.op_type for node in emit.nodes] == ["Identity"]
    assert emit.nodes[0].input[0] == "seed"


def test_a_read_after_the_layer_that_leads_nowhere_adds_nothing() -> None:
    body = "s = Shape(A)\n side = Neg(A)\n r = Reshape(A, s)\n y = Exp(r)"
    np.testing.assert_allclose(gradient(body, A), np.exp(A), rtol=1e-5)


def test_outputs_that_the_score_does_not_depend_on_carry_no_gradient() -> None:
    body = "p, q = Split<axis=2>(A)\n e = Exp(p)\n z = Mul(q, q)\n y = Concat<axis=2>(e, e)"
    wanted = np.concatenate([2 * np.exp(A[..., :2]), np.zeros_like(A[..., 2:])], axis=2)
    np.testing.assert_allclose(gradient(body, A), wanted, rtol=1e-5)


def test_added_nodes_say_which_node_they_differentiate() -> None:
    _, emit = built("b = Sigmoid(A)\n y = Mul(b, A)")
    names = [node.output[0] for node in emit.nodes]
    assert all(name.startswith("cam/gradient/") for name in names[:-1])
    assert any(name.startswith("cam/gradient/b/") for name in names)
    assert any(name.startswith("cam/gradient/accumulate/") for name in names)


def test_no_differentiable_path() -> None:
    body = "i = Cast<to=7>(A)\n f = Cast<to=1>(i)\n y = Exp(f)"
    with pytest.raises(UnsupportedModelError) as caught:
        built(body)
    assert str(caught.value) == (
        "the gradient of 'y' with respect to 'A' is zero everywhere: no differentiable path joins"
        " them; choose another layer with --layer"
    )


def test_all_uses_that_are_not_covered_are_named_at_once() -> None:
    body = """k = Constant<value_ints=[0, 0, 0, 0, 0, 4]>()
        b = Pad<mode="reflect">(A, k)
        c = Relu(b)
        d = ScatterND<reduction="mul">(c, i, v)
        y = Exp(d)"""
    with pytest.raises(UnsupportedModelError) as caught:
        built(body, others=", int64[1, 1] i, float[1, 2, 8] v")
    assert str(caught.value) == (
        "no gradient for ai.onnx::ScatterND-17 (node 'd'): reduction=mul is not covered;"
        " ai.onnx::Pad-17 (node 'b'): a padding of 4 repeats more than there is, between 'A' and"
        " 'y'; choose a later layer with --layer"
    )


def test_operators_without_a_formula_come_first() -> None:
    body = """k = Constant<value_ints=[0, 0, 0, 0, 0, 1]>()
        b = Pad<mode="edge">(A, k)
        y = Det(b)"""
    with pytest.raises(UnsupportedModelError, match=r"no gradient formula for ai.onnx::Det-17"):
        built(body)


def test_an_input_without_a_formula_is_refused_rather_than_forgotten() -> None:
    # one gradient of A is known, that of the bound is not: a part of dA would be missing
    with pytest.raises(UnsupportedModelError, match=r"Clip-17 .* no formula for .* its input 1"):
        built("m = ReduceMean<keepdims=0>(A)\n y = Clip(A, m)")


def test_the_model_is_not_changed() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 2, 4] A) => (float[] y) { b = Sigmoid(A)  y = Mul(b, A) }"""
    )
    before = model.SerializeToString(deterministic=True)
    graph = Graph(model)
    emit = Emitter(17, graph.types, graph.constant, "cam/", list(graph.names))
    build_reverse(graph, cut_tail(graph, "A", "y"), emit, "seed")
    assert model.SerializeToString(deterministic=True) == before


def test_names_in_use_are_left_alone() -> None:
    body = "b = Sigmoid(A)\n y = Mul(b, A)"
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 2, 4] A, float[] seed) => (float[] dA) {{ {body} }}"""
    )
    graph = Graph(model)
    taken = ["cam/gradient/b/Mul", "cam/gradient/y/Mul"]
    emit = Emitter(17, graph.types, graph.constant, "cam/", [*graph.names, *taken])
    build_reverse(graph, cut_tail(graph, "A", "y"), emit, "seed")
    made = [node.output[0] for node in emit.nodes]
    assert not set(taken) & set(made)
    assert len(set(made)) == len(made)


def several(body: str, targets: list[str]) -> list[np.ndarray]:
    """Return dL/dT, L = sum(y), for each target T of a model of A."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 2, 4] A, float[N, 2, 4] seed) => () {{ {body} }}"""
    )
    graph = Graph(model)
    emit = Emitter(17, graph.types, graph.constant, "cam/", list(graph.names))
    found = reverse_gradients(graph, cut_tail(graph, targets, "y"), emit, "seed")
    model.graph.node.extend(emit.nodes)
    model.graph.initializer.extend(emit.initializers)
    model.graph.output.extend(ValueInfoProto(name=name) for name in dict.fromkeys(found))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    results = session.run(found, {"A": A, "seed": np.ones_like(A)})
    return [np.asarray(result) for result in results]


def test_nested_targets_have_the_whole_gradient_each() -> None:
    # b is read twice, once behind c; A by-passes both
    found = several(
        "b = Mul(A, A)\n c = Mul(b, A)\n d = Mul(b, c)\n y = Add(d, A)", ["c", "A", "b"]
    )
    np.testing.assert_allclose(found[0], A**2, rtol=1e-5)
    np.testing.assert_allclose(found[1], 5 * A**4 + 1, rtol=1e-5)
    np.testing.assert_allclose(found[2], 2 * A**3, rtol=1e-5)


def test_targets_side_by_side_and_the_score_itself() -> None:
    found = several("b = Sigmoid(A)\n c = Tanh(A)\n y = Mul(b, c)", ["c", "b", "y"])
    np.testing.assert_allclose(found[0], 1 / (1 + np.exp(-A)), rtol=1e-5)
    np.testing.assert_allclose(found[1], np.tanh(A), rtol=1e-5)
    np.testing.assert_array_equal(found[2], np.ones_like(A))


def test_one_of_several_targets_without_a_differentiable_path_is_named() -> None:
    body = "b = Exp(A)\n i = Cast<to=7>(b)\n f = Cast<to=1>(i)\n y = Add(f, A)"
    with pytest.raises(UnsupportedModelError, match="with respect to 'b' is zero everywhere"):
        several(body, ["A", "b"])
