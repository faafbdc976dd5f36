"""Straight-through gradients against central differences of functions that do not round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import NodeProto, parser

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.gradients.clipping import Bounds, bounds
from tests.gradients.case import Case
from tests.gradients.cases.quantization import CASES, QuantizedCase, number
from tests.gradients.checks import (
    FLOAT32_TOLERANCE,
    SEED,
    gradient_feeds,
    gradient_model,
    onnxruntime_errors,
    run_onnxruntime,
)

FAKE_QUANTIZE = Path(__file__).with_name("fake_quantize.npz")
"""What `tools/make_quantization_references.py` writes with PyTorch."""

TYPES: dict[str, Any] = {
    "uint8": np.uint8,
    "int8": np.int8,
    "uint4": ml_dtypes.uint4,
    "int4": ml_dtypes.int4,
}
LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradient_in_onnxruntime_in_every_opset(case: QuantizedCase) -> None:
    errors = onnxruntime_errors(case)
    assert {opset: e for opset, e in errors.items() if e >= FLOAT32_TOLERANCE} == {}


@pytest.mark.parametrize("name", TYPES)
def test_gradient_of_fake_quantize(name: str) -> None:
    # equal, but for eight bits and more a value on a bound counts as clipped
    with np.load(FAKE_QUANTIZE) as stored:
        x, weight, y, scale, zero, wanted = (
            stored[f"{name}_{part}"] for part in ("x", "weight", "y", "scale", "zero", "gradient")
        )
    case = Case(
        name,
        "q = QuantizeLinear(A, s, z) y = DequantizeLinear(q, s, z)",
        shape=x.shape,
        opsets=(21, 26),
        constants={"s": float(scale), "z": number(int(zero), TYPES[name])},
        images=False,
        symbolic=(),
    )
    model = gradient_model(case, np.float32, 21, symbolic=False)
    actual = run_onnxruntime(model, {"A": x, SEED: weight})
    integers = np.rint(y / scale + zero)
    on_a_bound = np.isin(integers, LIMITS.get(name, ()))
    assert np.array_equal(actual, np.where(on_a_bound, 0, wanted))
    assert 0.5 < np.mean(actual != 0) < 1
    assert np.any(wanted[on_a_bound]) == (name in LIMITS)


def test_a_scale_that_depends_on_the_data_is_constant() -> None:
    case = Case(
        "scale",
        "m = ReduceMax<keepdims=0>(A) s = Mul(m, k) q = QuantizeLinear(A, s)"
        " y = DequantizeLinear(q, s)",
        opsets=(21, 21),
        constants={"k": 0.002},
        images=False,
    )
    feeds = gradient_feeds(case, np.float32)
    actual = run_onnxruntime(gradient_model(case, np.float32, 21, symbolic=False), feeds)
    step = 0.002 * feeds["A"].max()
    units = feeds["A"] / step
    inside = (units > 0.5) & (units < 254.5)
    assert np.array_equal(actual, np.where(inside, feeds[SEED], 0))


def test_scales_that_cancel_are_not_written() -> None:
    pair = next(case for case in CASES if case.name == "QuantizeLinear, DequantizeLinear of uint8")
    model = gradient_model(pair, np.float32, 17)
    added = [
        n.op_type for n in model.graph.node if n.name.startswith("cam/") and _is_live(model, n)
    ]
    assert "Div" not in added
    masks = added.count("HardSigmoid")  # where numbers are clipped
    assert added.count("Mul") == masks + 1  # of the weights


def _is_live(model: Any, node: NodeProto) -> bool:
    needed = {output.name for output in model.graph.output}
    for other in reversed(model.graph.node):
        if needed & set(other.output):
            needed |= set(other.input)
    return bool(needed & set(node.output))


# -- which bounds are tested -------------------------------------------------------------------


def bounds_of(body: str, op_type: str = "QuantizeLinear") -> Bounds:
    """Return the bounds of the last QuantizeLinear in a model of zero point 0, uint8."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,2,4,4] x, uint8[1,2,4,4] i) => (float[] y)
        <float s = {{0.1}}, float half = {{0.05}}, uint8 z = {{0}}, uint8 m = {{100}},
         float six = {{6}}, float zero = {{0}}> {{ {body} y = DequantizeLinear(q, s, z) }}"""
    )
    graph = Graph(model)
    node = [node for node in graph.nodes if node.op_type == op_type][-1]
    return bounds(graph.flow, node)


@pytest.mark.parametrize(
    ("body", "low", "high"),
    [
        ("q = QuantizeLinear(x, s, z)", 0, 255),
        ("a = Relu(x) q = QuantizeLinear(a, s, z)", 0, 255),
        ("a = Relu(x) q = QuantizeLinear(a, s, m)", 100, 255),
        ("a = Clip(x, zero, six) q = QuantizeLinear(a, s, z)", 0, 60),
        ("a = Clip(x, zero, six) q = QuantizeLinear(a, s, m)", 100, 160),
        ("a = Relu(x) b = GlobalAveragePool(a) q = QuantizeLinear(b, s, z)", None, 255),
        ("a = Sigmoid(x) q = QuantizeLinear(a, s, z)", None, None),
        ("a = Tanh(x) q = QuantizeLinear(a, s, z)", 0, None),
        ("a = Softmax(x) q = QuantizeLinear(a, s, z)", None, None),
        ("d = DequantizeLinear(i, s, z) q = QuantizeLinear(d, s, z)", None, None),
        ("d = DequantizeLinear(i, s, z) q = QuantizeLinear(d, half, z)", None, 255),
        ("d = DequantizeLinear(i, s, m) q = QuantizeLinear(d, s, z)", 0, None),
        ("d = DequantizeLinear(i, s, z) e = Add(d, d) q = QuantizeLinear(e, s, z)", None, 255),
        (
            "d = DequantizeLinear(i, s, z) e = Concat<axis=1>(d, x) q = QuantizeLinear(e, s, z)",
            0,
            255,
        ),
        (
            "d = DequantizeLinear(i, half, z) e = Concat<axis=1>(d, d)"
            " f = MaxPool<kernel_shape=[2, 2]>(e) q = QuantizeLinear(f, s, z)",
            None,
            None,
        ),
        (
            "d = DequantizeLinear(i, s, m)"
            " e = AveragePool<kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1>(d)"
            " q = QuantizeLinear(e, s, m)",
            None,
            None,
        ),
    ],
)  # fmt: skip
def test_bounds_that_cannot_be_exceeded_are_not_tested(
    body: str, low: float | None, high: float | None
) -> None:
    assert bounds_of(body) == Bounds(low, high, of_result=True)


def test_bounds_of_the_input_are_half_a_step_inside() -> None:
    assert Bounds(0, 255, of_result=True).of_input == (0.5, 254.5)
    assert Bounds(None, 15.5, of_result=False).of_input == (-np.inf, 15.5)
