"""Models with int8 weights give by way of uint8 what their operators mean, on every CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from onnx_gradcam.export.verification.exact_products import with_exact_products
from tests.export.expansion.integer_products import (
    EIGHT_BITS,
    SEVEN_BITS,
    Row,
    by_definition,
    products,
    scale,
    zero,
)

Array = np.ndarray[Any, np.dtype[Any]]

EVERY = range(len(products(EIGHT_BITS)))


def run(model: ModelProto, feeds: Mapping[str, Array], *, optimise: bool) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(["y"], dict(feeds))[0])


def assert_exact(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    assert len(np.unique(expected)) > 5
    if found.dtype == np.float32:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    else:
        assert np.abs(found - expected).max() <= 1
        assert np.mean(found != expected) < 0.02


@pytest.mark.parametrize("optimise", [False, True])
@pytest.mark.parametrize("place", EVERY)
def test_integer_operators(place: int, optimise: bool) -> None:
    row = products(EIGHT_BITS)[place]
    exact = with_exact_products(row.model())
    (node,) = (n for n in exact.graph.node if n.name == "fused")
    assert node.op_type == row.op_type
    assert_exact(run(exact, row.feeds(), optimise=optimise), by_definition(row))


@pytest.mark.parametrize("place", EVERY)
def test_weights_of_seven_bits_stay(place: int) -> None:
    model = products(SEVEN_BITS)[place].model()
    assert with_exact_products(model) is model


def test_an_operand_that_is_no_constant() -> None:
    row = Row("", "QLinearMatMul",
        [np.full((2, 8), 255, np.uint8), scale(0.1), zero(0),
         np.full((8, 3), 127, np.int8), scale(0.1), zero(0, np.int8), scale(16), zero(0)],
        domain="", fed=3)  # fmt: skip
    found = run(with_exact_products(row.model()), row.feeds(), optimise=False)
    assert found.tolist() == [[162] * 3] * 2, "8 times 255 times 127 times 0.01, in steps of 16"


@pytest.mark.parametrize("left", [np.int8, np.uint16])
def test_products_that_are_exact_anyway_stay(left: type) -> None:
    numbers = np.arange(8, dtype=left).reshape(1, 8)
    right = np.full((8, 3), 127, np.int8)
    row = Row("", "QLinearMatMul",
        [numbers, scale(0.1), zero(0, left), right, scale(0.1), zero(0, np.int8), scale(1),
         zero(0, left)], domain="")  # fmt: skip
    model = row.model()
    assert with_exact_products(model) is model


# -- what onnxruntime fuses --------------------------------------------------------------------

FUSED = """
<ir_version: 8, opset_import: ["" : 13]>
fused (float[4,6,4,4] x) => (float[4,5] y)
<float s = {0.01}, KIND z = {ZERO}, float[4] sw = {0.01, 0.02, 0.03, 0.01}, float so = {0.5},
 int64[2] shape = {4, -1}> {
  q = QuantizeLinear(x, s, z)
  a = DequantizeLinear(q, s, z)
  w = DequantizeLinear<axis=0>(k, sw)
  c = Conv(a, w)
  qc = QuantizeLinear(c, so, z)
  ac = DequantizeLinear(qc, so, z)
  flat = Reshape(ac, shape)
  qf = QuantizeLinear(flat, so, z)
  af = DequantizeLinear(qf, so, z)
  v = DequantizeLinear(m, s)
  t = Transpose<perm=[1, 0]>(v)
  y = MatMul(af, t)
}"""


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_dequantized_operands_of_float_operators(kind: str) -> None:
    zero_point = {"uint8": "128", "int8": "0"}[kind]
    model = parser.parse_model(FUSED.replace("KIND", kind).replace("ZERO", zero_point))
    rng = np.random.default_rng(4)
    weights = {
        "k": rng.integers(-127, 128, (4, 6, 2, 2)).astype(np.int8),
        "m": rng.integers(-127, 128, (5, 36)).astype(np.int8),
    }
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    x = rng.uniform(-1.28, 1.27, (4, 6, 4, 4)).astype(np.float32)
    expected = run(model, {"x": x}, optimise=False)  # in floats
    found = run(with_exact_products(model), {"x": x}, optimise=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1.3, err_msg="one step of ac")
    assert np.abs(found - expected).mean() < 1e-2 * np.abs(expected).mean()


@pytest.mark.parametrize("kind", ["float", "uint16"])
def test_operands_that_are_not_fused_stay(kind: str) -> None:
    left = {"float": "Identity(x)", "uint16": "DequantizeLinear(q, s, z)"}[kind]
    model = parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        plain (float[2,8] x) => (float[2,3] y)
        <float s = {{0.01}}, uint16 z = {{9}}> {{
          q = QuantizeLinear(x, s, z)
          a = {left}
          w = DequantizeLinear(k, s)
          y = MatMul(a, w)
        }}"""
    )
    weights = np.full((8, 3), 127, np.int8)
    model.graph.initializer.append(numpy_helper.from_array(weights, "k"))
    assert with_exact_products(model) is model


def test_weights_that_several_read() -> None:
    # k is shifted once; the float reader keeps the numbers themselves
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, [2, 8])]
    nodes = [
        helper.make_node("MatMulInteger", ["x", "k"], ["one"]),
        helper.make_node("MatMulInteger", ["x", "k"], ["two"]),
        helper.make_node("Cast", ["k"], ["wide"], to=TensorProto.INT32),
        helper.make_node("ReduceSum", ["wide"], ["sum"], keepdims=0),
        helper.make_node("Sum", ["one_f", "two_f", "sum_f"], ["y"]),
    ]
    casts = [
        helper.make_node("Cast", [name], [f"{name}_f"], to=TensorProto.FLOAT)
        for name in ("one", "two", "sum")
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])]
    weights = [numpy_helper.from_array(np.full((8, 3), 127, np.int8), "k")]
    graph = helper.make_graph([*nodes[:4], *casts, nodes[4]], "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    exact = with_exact_products(model)
    assert sum(node.op_type == "Add" for node in exact.graph.node) == 1
    found = run(exact, {"x": np.full((2, 8), 255, np.uint8)}, optimise=False)
    assert found.tolist() == [[2 * 8 * 255 * 127 + 24 * 127] * 3] * 2
