"""Nodes that multiply quantized tensors, and their results by definition, in integers.

onnxruntime's kernels for uint8 times int8 saturate on x86 CPUs without VNNI; with weights of seven
bits they never do. So rows with such weights are compared with onnxruntime, those with weights of
eight bits with the definition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]

SEVEN_BITS, EIGHT_BITS = 64, 127
"""The largest weight."""


@dataclass(frozen=True, eq=False)
class Row:
    """One node whose first input (the first of integers) is fed.

    Attributes:
        name: what it shows.
        op_type: the operator.
        inputs: its inputs, None for absent ones.
        output: element type of its result.
        attributes: of the node.
        domain: of the operator.
        fed: index of the input that is fed.
    """

    name: str
    op_type: str
    inputs: list[Array | None]
    output: int = TensorProto.UINT8
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = "com.microsoft"
    fed: int = 0

    def model(self) -> ModelProto:
        """Return the model of the node, all other inputs constants."""
        names = [f"i{i}" if v is not None else "" for i, v in enumerate(self.inputs)]
        node = helper.make_node(
            self.op_type, names, ["y"], name="fused", domain=self.domain, **self.attributes
        )
        fed = self.inputs[self.fed]
        assert fed is not None
        dtype = helper.np_dtype_to_tensor_dtype(fed.dtype)
        inputs = [helper.make_tensor_value_info(names[self.fed], dtype, list(fed.shape))]
        weights = [
            numpy_helper.from_array(value, name)
            for i, (name, value) in enumerate(zip(names, self.inputs, strict=True))
            if value is not None and i != self.fed
        ]
        outputs = [helper.make_tensor_value_info("y", self.output, None)]
        graph = helper.make_graph([node], "row", inputs, outputs, weights)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def feeds(self) -> dict[str, Array]:
        """Return the value of the input that is fed."""
        fed = self.inputs[self.fed]
        assert fed is not None
        return {f"i{self.fed}": fed}


def scale(value: float | list[float]) -> Array:
    """Return a scale."""
    return np.asarray(value, np.float32)


def zero(value: int | list[int], dtype: Any = np.uint8) -> Array:
    """Return a zero point."""
    return np.asarray(value, dtype)


def products(largest: int) -> list[Row]:
    """Return nodes with int8 weights up to a size."""
    rng = np.random.default_rng(29)

    def u8(*shape: int) -> Array:
        return rng.integers(0, 256, shape).astype(np.uint8)

    def i8(*shape: int) -> Array:
        return rng.integers(-largest, largest + 1, shape).astype(np.int8)

    def i32(*shape: int) -> Array:
        return rng.integers(-3000, 3000, shape).astype(np.int32)

    def f32(*shape: int) -> Array:
        return rng.normal(size=shape).astype(np.float32)

    point, wide = [scale(0.03), zero(120)], [scale(0.2), zero(128)]
    weight, none = [scale(0.01), zero(0, np.int8)], zero(0, np.int8)
    per_column = [scale([0.01, 0.02, 0.03, 0.01, 0.02, 0.03]), zero([0] * 6, np.int8)]
    per_channel = [scale([0.01, 0.02, 0.005, 0.03]), zero([0] * 4, np.int8)]
    return [
        Row("QLinearConv", "QLinearConv",
            [u8(2, 3, 6, 6), *point, i8(4, 3, 3, 3), *weight, *wide, i32(4)],
            domain="", attributes={"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        Row("QLinearConv, weights per channel", "QLinearConv",
            [u8(2, 3, 6, 6), *point, i8(4, 3, 3, 3), *per_channel, *wide], domain=""),
        Row("QLinearConv, channels last", "QLinearConv",
            [u8(2, 6, 6, 3), *point, i8(4, 3, 3, 3), *weight, *wide, i32(4)],
            attributes={"channels_last": 1, "pads": [1, 1, 1, 1]}),
        Row("QLinearMatMul", "QLinearMatMul",
            [u8(5, 8), *point, i8(8, 6), scale(0.02), none, *wide], domain=""),
        Row("QLinearMatMul per column", "QLinearMatMul",
            [u8(5, 8), *point, i8(8, 6), *per_column, *wide], domain=""),
        Row("QGemm", "QGemm", [u8(5, 8), *point, i8(6, 8), scale(0.02), none, i32(6), *wide],
            attributes={"transB": 1}),
        Row("QGemm per column", "QGemm", [u8(5, 8), *point, i8(8, 6), *per_column, None, *wide]),
        Row("QGemm to floats", "QGemm", [u8(5, 8), *point, i8(8, 6), scale(0.02), none, i32(6)],
            TensorProto.FLOAT),
        Row("MatMulIntegerToFloat", "MatMulIntegerToFloat",
            [u8(5, 8), i8(8, 6), scale(0.03), scale(0.02), zero(120), zero(3, np.int8), f32(6)],
            TensorProto.FLOAT),
        Row("MatMulIntegerToFloat without zero points", "MatMulIntegerToFloat",
            [u8(5, 8), i8(8, 6), scale(0.03), scale(0.02)], TensorProto.FLOAT),
        Row("DynamicQuantizeMatMul", "DynamicQuantizeMatMul",
            [f32(5, 8), i8(8, 6), scale(0.02), zero(3, np.int8), f32(6)], TensorProto.FLOAT),
    ]  # fmt: skip


# -- definitions -----------------------------------------------------------------------------------


def _offset(row: Row, numbers: int, point: int) -> Array:
    """Return the integers of an input less its zero point."""
    values = row.inputs[numbers]
    offset = row.inputs[point] if point < len(row.inputs) else None
    assert values is not None
    return values.astype(np.int64) - (0 if offset is None else offset.astype(np.int64))


def _input(row: Row, index: int) -> Array:
    """Return an input in float64, 0 where it is absent."""
    value = row.inputs[index] if index < len(row.inputs) else None
    return np.asarray(0 if value is None else value, np.float64)


def _rounded(row: Row, y: Array, first: int) -> Array:
    """Return y as the node hands it out: quantized where a scale and a zero point say so."""
    if first >= len(row.inputs):
        return y
    quantized = np.rint(y / _input(row, first)) + _input(row, first + 1)
    return np.clip(quantized, 0, 255)


def _convolution(row: Row) -> Array:
    x, w = _offset(row, 0, 2), row.inputs[3]
    assert w is not None
    last = row.attributes.get("channels_last", 0)
    x = np.moveaxis(x, -1, 1) if last else x
    pads = row.attributes.get("pads", [0] * 4)
    x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))
    down, right = row.attributes.get("strides", [1, 1])
    windows = windows[:, :, ::down, ::right]
    sums = np.einsum("nchwij,ocij->nohw", windows, w.astype(np.int64))
    sums = sums + _input(row, 8).reshape(-1, 1, 1)
    y = sums * (_input(row, 1) * _input(row, 4)).reshape(-1, 1, 1)
    return _rounded(row, np.moveaxis(y, 1, -1) if last else y, 6)


def _matmul(row: Row) -> Array:
    y = _offset(row, 0, 2) @ _offset(row, 3, 5)
    return _rounded(row, y * _input(row, 1) * _input(row, 4), 6)


def _gemm(row: Row) -> Array:
    w = _offset(row, 3, 5)
    sums = _offset(row, 0, 2) @ (w.T if row.attributes.get("transB") else w) + _input(row, 6)
    return _rounded(row, sums * _input(row, 1) * _input(row, 4), 7)


def _to_floats(row: Row) -> Array:
    sums = _offset(row, 0, 4) @ _offset(row, 1, 5)
    return sums * _input(row, 2) * _input(row, 3) + _input(row, 6)


def _dynamic(row: Row) -> Array:
    """DynamicQuantizeLinear-11: the range of x with 0 in it, in 255 steps."""
    x = row.inputs[0]
    assert x is not None
    step = np.float32((max(x.max(), 0) - min(x.min(), 0)) / np.float32(255))
    point = np.rint(np.clip(-min(x.min(), 0) / step, 0, 255)).astype(np.int64)
    numbers = np.clip(np.rint(x / step) + point, 0, 255).astype(np.int64)
    sums = (numbers - point) @ _offset(row, 1, 3)
    return sums * np.float64(step) * _input(row, 2) + _input(row, 4)


_DEFINITIONS: dict[str, Callable[[Row], Array]] = {
    "DynamicQuantizeMatMul": _dynamic,
    "MatMulIntegerToFloat": _to_floats,
    "QGemm": _gemm,
    "QLinearConv": _convolution,
    "QLinearMatMul": _matmul,
}


def by_definition(row: Row) -> Array:
    """Return the result of a node, its sums in integers, as float64.

    Source: ONNX operator specifications QLinearConv-10, QLinearMatMul-10, DynamicQuantizeLinear-11;
    onnxruntime, ``docs/ContribOperators.md``.
    """
    return _DEFINITIONS[row.op_type](row)
