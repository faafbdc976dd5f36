"""Quantized operators in floats give the integers that onnxruntime's kernels give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto

from onnx_gradcam.export.expansion import expand, packed_weights, quantized
from onnx_gradcam.export.expansion.registry import expansion_table
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

RNG = np.random.default_rng(17)
ROUNDED_OTHERWISE = 0.02
"""Share of the integers that may be one step off: halves that fall to the other side."""


def u8(*shape: int) -> Array:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def i8(*shape: int) -> Array:
    return RNG.integers(-127, 128, shape).astype(np.int8)


X, POINT = u8(2, 3, 6, 6), [scale(0.03), zero(120)]
OUT = [scale(0.05), zero(100)]
WIDE = [scale(0.2), zero(128)]
PACKED = [RNG.normal(size=(3, 64)).astype(np.float32), u8(10, 2, 16)]

ROWS = [
    *products(SEVEN_BITS),
    Row("QLinearMatMul of two tensors", "QLinearMatMul",
        [u8(2, 3, 4), *POINT, u8(2, 4, 5), scale(0.02), zero(99), *WIDE], domain=""),
    Row("QLinearAdd", "QLinearAdd", [X, *POINT, u8(1, 3, 1, 6), scale(0.02), zero(90), *OUT]),
    Row("QLinearMul", "QLinearMul", [X, *POINT, u8(1, 3, 1, 1), scale(0.02), zero(90), *OUT]),
    Row("QLinearSigmoid", "QLinearSigmoid", [X, *POINT, scale(1 / 256), zero(0)]),
    Row("QLinearSigmoid of int8", "QLinearSigmoid",
        [i8(2, 9), scale(0.03), zero(-3, np.int8), scale(1 / 256), zero(-128, np.int8)],
        TensorProto.INT8),
    Row("QLinearLeakyRelu", "QLinearLeakyRelu", [X, *POINT, *OUT], attributes={"alpha": 0.2}),
    Row("QLinearSoftmax", "QLinearSoftmax", [u8(3, 10), *POINT, scale(1 / 256), zero(0)],
        attributes={"axis": 1, "opset": 13}),
    Row("QLinearGlobalAveragePool", "QLinearGlobalAveragePool",
        [X, *POINT, scale(0.0117), zero(110)],
        attributes={"channels_last": 0}),
    Row("QLinearGlobalAveragePool, channels last", "QLinearGlobalAveragePool",
        [X, *POINT, scale(0.0117), zero(110)], attributes={"channels_last": 1}),
    Row("QLinearAveragePool", "QLinearAveragePool", [X, *POINT, scale(0.02), zero(110)],
        attributes={"kernel_shape": [2, 2], "strides": [2, 2]}),
    Row("QLinearConcat", "QLinearConcat",
        [*OUT, X, *POINT, u8(2, 2, 6, 6), scale(0.02), zero(90)], attributes={"axis": 1}, fed=2),
    Row("QLinearWhere", "QLinearWhere",
        [RNG.random((2, 3, 6, 6)) < 0.5, X, *POINT, u8(1, 3, 1, 1), scale(0.02), zero(90), *OUT],
        fed=1),
    Row("NhwcMaxPool", "NhwcMaxPool", [X], attributes={"kernel_shape": [2, 2]}),
    Row("QuantizeLinear", "QuantizeLinear",
        [RNG.normal(size=(2, 3, 4)).astype(np.float32), *POINT]),
    Row("DequantizeLinear", "DequantizeLinear", [X, *POINT], TensorProto.FLOAT),
    *(
        Row(f"MatMulNBits of {bits} bits", "MatMulNBits",
            [PACKED[0], u8(10, 64 // block, block * bits // 8),
             scale(RNG.uniform(0.01, 0.1, 640 // block).tolist()), points],
            TensorProto.FLOAT,
            {"K": 64, "N": 10, "bits": bits, "block_size": block})
        for bits, block, points in (
            (2, 16, u8(10)),
            (4, 32, None),
            (4, 16, u8(20)),
            (8, 32, u8(20)),
        )
    ),
    Row("MatMulNBits, a part of a block", "MatMulNBits",
        [RNG.normal(size=(3, 40)).astype(np.float32), u8(10, 2, 16),
         scale(RNG.uniform(0.01, 0.1, 20).tolist()), u8(10), None,
         RNG.normal(size=10).astype(np.float32)],
        TensorProto.FLOAT, {"K": 40, "N": 10, "bits": 4, "block_size": 32}),
    Row("MatMulNBits, zero points in floats", "MatMulNBits",
        [*PACKED, scale(RNG.uniform(0.01, 0.1, 20).tolist()),
         scale(RNG.uniform(5, 9, 20).tolist())],
        TensorProto.FLOAT, {"K": 64, "N": 10, "bits": 4, "block_size": 32}),
]  # fmt: skip


def run(model: ModelProto, feeds: Mapping[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(["y"], dict(feeds))[0])


def assert_equal(found: Array, expected: Array) -> None:
    """Floats apart from rounding, integers apart from halves."""
    assert found.shape == expected.shape
    assert len(np.unique(expected)) > 5
    if found.dtype == np.float32:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        return
    steps = np.abs(found.astype(int) - expected.astype(int))
    assert steps.max() <= 1
    assert steps.mean() <= ROUNDED_OTHERWISE


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_values(row: Row) -> None:
    graph = expand(row.model())
    assert graph.unexpanded == {}
    assert {node.domain for node in graph.nodes} == {""}
    expected, found = run(row.model(), row.feeds()), run(graph.model, row.feeds())
    assert found.dtype == expected.dtype
    assert_equal(found, expected)


@pytest.mark.parametrize("largest", [SEVEN_BITS, EIGHT_BITS])
@pytest.mark.parametrize("place", range(len(products(EIGHT_BITS))))
def test_products_by_definition(place: int, largest: int) -> None:
    # with weights of eight bits not all CPUs have kernels that compute them
    row = products(largest)[place]
    assert_equal(run(expand(row.model()).model, row.feeds()), by_definition(row))


def test_every_rule_has_a_row() -> None:
    modules = {quantized.__name__, packed_weights.__name__}
    rules = [row for row in expansion_table() if row.rule.__module__ in modules]
    tested = {(row.domain, row.op_type) for row in ROWS}
    assert {(rule.domain, rule.op_type) for rule in rules} == tested


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            Row("", "MatMulNBits", [PACKED[0], u8(10, 2, 24), scale([0.1] * 20)],
                TensorProto.FLOAT, {"K": 64, "N": 10, "bits": 6, "block_size": 32}),
            "weights of 6 bits are not covered",
        ),
        (
            Row("", "MatMulNBits",
                [*PACKED, scale([0.1] * 20), None, np.arange(64, dtype=np.int32)],
                TensorProto.FLOAT, {"K": 64, "N": 10, "bits": 4, "block_size": 32}),
            "reordered weights (g_idx) are not covered",
        ),
        (
            Row("", "QLinearSoftmax", [u8(2, 3, 4), *POINT, scale(1 / 256), zero(0)],
                attributes={"axis": 1, "opset": 11}),
            "it is a Softmax of opset 11 over axis 1 of 3",
        ),
        (
            Row("", "QuantizeLinear", [np.ones((2, 3), np.float32), scale(0.1), zero(9, np.uint16)],
                TensorProto.UINT16),
            "quantization to 16 bits needs opset 21; convert the model",
        ),
    ],
)  # fmt: skip
def test_what_is_not_covered_says_why(row: Row, reason: str) -> None:
    assert list(expand(row.model()).unexpanded.values()) == [reason]
