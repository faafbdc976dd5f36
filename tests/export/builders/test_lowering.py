"""The gradient graph of onnxruntime-training in standard operators.

Gradient graphs are written by hand here, as onnxruntime-training 1.19 builds them; that the real
ones are lowered rightly is shown case by case in `tests/gradients`.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper, parser

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.builders.lowering import lower
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.tail import cut_tail
from onnx_gradcam.gradients.emitter import Emitter

FORWARD = """a = Relu(x)
    b = Sigmoid(a)
    y = Mul(a, b)"""


def parsed(body: str, signature: str, opset: int = 17) -> ModelProto:
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>
        net {signature} {{ {body} }}"""
    )


def forward_model(body: str = FORWARD) -> ModelProto:
    model = parsed(body, "(float[N, 4] x, float[N, 4] seed) => (float[] y)")
    del model.opset_import[1:]
    return model


def lowered(gradient: str, prepared: str = "", forward: str = FORWARD) -> tuple[str, Emitter]:
    graph = Graph(forward_model(forward))
    tail = cut_tail(graph, "x", "y")
    emit = Emitter(17, graph.types, graph.constant, "cam/", list(graph.names))
    inner = prepared or forward
    signature = "(float[N, 4] x) => (float[] y)"
    built = parsed(f"{inner}\n {gradient}", "(float[N, 4] x, float[] y_grad) => (float[] x_grad)")
    return lower(graph, tail, parsed(inner, signature), built, emit, "seed")[0], emit


def run(result: str, emit: Emitter, x: np.ndarray, forward: str = FORWARD) -> np.ndarray:
    model = forward_model(forward)
    model.graph.node.extend(emit.nodes)
    model.graph.initializer.extend(emit.initializers)
    model.graph.output[0].name = result
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x, "seed": np.ones_like(x)})[0])


BACKWARD = """a_grad_1 = Mul(y_grad, b)
    b_grad = Mul(y_grad, a)
    a_grad_0 = com.microsoft.SigmoidGrad(b_grad, b)
    a_grad = Sum(a_grad_0, a_grad_1)
    x_grad = com.microsoft.ReluGrad(a_grad, x)"""


def test_the_result_is_the_gradient() -> None:
    x = np.array([[-1.0, 0.5, 2.0, -3.0]], np.float32)
    s = 1 / (1 + np.exp(-x))
    result, emit = lowered(BACKWARD)
    assert {node.domain for node in emit.nodes} == {""}
    np.testing.assert_allclose(run(result, emit, x), (x > 0) * (s + x * s * (1 - s)), rtol=1e-5)


def test_tensors_of_the_model_are_used_where_they_are() -> None:
    _, emit = lowered(BACKWARD)
    made = {name for node in emit.nodes for name in node.output}
    read = {name for node in emit.nodes for name in node.input}
    assert {"a", "b"} <= read
    assert all(name.startswith("cam/") for name in made)
    assert [node.op_type for node in emit.nodes].count("Sigmoid") == 0


def test_tensors_that_only_the_prepared_tail_has_are_computed_again() -> None:
    prepared = """a = Relu(x)
        half = Constant<value=float {0.5}>()
        product = Mul(a, half)
        b = Sigmoid(a)
        y = Mul(a, b)"""
    gradient = """doubled = Mul(product, y_grad)
        x_grad = com.microsoft.ReluGrad(doubled, x)"""
    result, emit = lowered(gradient, prepared)
    x = np.array([[-1.0, 0.5, 2.0, -3.0]], np.float32)
    np.testing.assert_allclose(run(result, emit, x), np.maximum(x, 0) * 0.5, rtol=1e-6)
    again = [node.output[0] for node in emit.nodes if "/forward/" in node.output[0]]
    assert again
    assert all("product" in name or "half" in name for name in again)


def test_what_the_gradient_does_not_need_is_not_written() -> None:
    _, emit = lowered(f"{BACKWARD}\n other = com.microsoft.Unheard(b_grad)")
    assert len(emit.nodes) == len(lowered(BACKWARD)[1].nodes)


def test_constants_of_the_gradient_graph_are_taken_over() -> None:
    graph = Graph(forward_model())
    tail = cut_tail(graph, "x", "y")
    emit = Emitter(17, graph.types, graph.constant, "cam/", list(graph.names))
    built = parsed(
        f"{FORWARD}\n scaled = com.microsoft.Scale(y_grad, two)\n x_grad = Mul(scaled, three)",
        "(float[N, 4] x, float[] y_grad) => (float[] x_grad)",
    )
    for name, value in (("two", 2.0), ("three", 3.0)):
        built.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    prepared = parsed(FORWARD, "(float[N, 4] x) => (float[] y)")
    (result,) = lower(graph, tail, prepared, built, emit, "seed")
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(run(result, emit, x), np.full_like(x, 6.0))


def test_everything_that_nothing_lowers_is_named() -> None:
    gradient = """a_grad = com.microsoft.Unheard(y_grad, b)
        c_grad = com.microsoft.OfThis(a_grad)
        x_grad = com.microsoft.ReluGrad(c_grad, x)"""
    with pytest.raises(UnsupportedModelError) as caught:
        lowered(gradient)
    assert str(caught.value) == (
        "onnxruntime-training's gradient cannot be lowered: com.microsoft::Unheard-1 (node"
        " 'a_grad'): nothing lowers this operator to standard ones; com.microsoft::OfThis-1 (node"
        " 'c_grad'): nothing lowers this operator to standard ones"
    )


def test_a_graph_without_the_gradient_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="built no gradient of 'y' by 'x'"):
        lowered("b_grad = Mul(y_grad, a)")


def test_the_gradient_of_a_tensor_has_its_type() -> None:
    _, emit = lowered(BACKWARD)
    shapes = {emit.shape(node.output[0]) for node in emit.nodes}
    assert ("N", 4) in shapes
