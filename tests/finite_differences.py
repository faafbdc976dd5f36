"""Check one gradient formula: a forward model and a claimed gradient in, an AssertionError out.

The model is evaluated in float64 by ONNX's reference implementation, which shares no code with
onnxruntime or with the formulas, and differentiated by central differences, element by element.
`tests/test_finite_differences.py` proves that wrong gradients are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = np.ndarray[Any, Any]

TOLERANCE = 1e-4
"""Default tolerance: gradients are computed in float32, differences in float64."""

STEP = 1e-5
"""Relative to the largest value of the input; float64 leaves an error of about 1e-10."""

MOST_ELEMENTS = 256
"""Larger inputs are checked at so many places, chosen at random."""


def assert_gradient(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    wrt: str,
    cotangents: Array | Mapping[str, Array],
    gradient: Array,
    *,
    tolerance: float = TOLERANCE,
    step: float = STEP,
) -> float:
    """Compare a gradient of ``sum(cotangent * output)`` with central differences.

    Args:
        model: the forward model.
        feeds: values of its inputs, away from kinks.
        wrt: the input that the gradient is taken with respect to.
        cotangents: dL/d(output): one array for the first output, or one per named output.
        gradient: the claimed dL/d(wrt), of its shape.
        tolerance: largest accepted error, relative to the largest derivative.
        step: size of the perturbation, relative to the largest value of the input.

    Returns:
        The largest relative error.

    Raises:
        AssertionError: naming the worst element; also when the shape is wrong, something is not
            finite, or all derivatives are zero, so that nothing would be tested.
    """
    base = np.asarray(feeds[wrt], np.float64)
    claimed = np.asarray(gradient, np.float64)
    if claimed.shape != base.shape:
        raise AssertionError(f"gradient of shape {claimed.shape} for an input of {base.shape}")
    evaluator = ReferenceEvaluator(_in_float64(model))
    fixed = {name: _widened(value) for name, value in feeds.items()}
    if not isinstance(cotangents, Mapping):
        cotangents = {model.graph.output[0].name: cotangents}
    weights = {name: np.asarray(value, np.float64) for name, value in cotangents.items()}

    def loss(value: Array) -> float:
        outputs = evaluator.run(list(weights), {**fixed, wrt: value})
        pairs = zip(weights.values(), outputs, strict=True)
        return float(sum(np.sum(weight * output) for weight, output in pairs))

    size = step * max(float(np.abs(base).max()), 1e-3)
    places = _places(base.size)
    measured = np.array([_slope(loss, base, place, size) for place in places])
    expected = claimed.reshape(-1)[places]
    if not (np.isfinite(measured).all() and np.isfinite(claimed).all()):
        raise AssertionError("the gradient or the differences hold NaN or infinite values")
    scale = float(np.abs(measured).max())
    if scale < 1e-9:
        raise AssertionError("all derivatives are zero at this input: nothing would be tested")
    errors = np.abs(expected - measured) / scale
    worst = int(errors.argmax())
    if errors[worst] > tolerance:
        where = tuple(map(int, np.unravel_index(places[worst], base.shape)))
        raise AssertionError(
            f"gradient at {where} is {expected[worst]:.6g}, central differences give"
            f" {measured[worst]:.6g}: relative error {errors[worst]:.2e} > {tolerance:.0e};"
            f" {int((errors > tolerance).sum())} of {len(places)} elements are wrong"
        )
    return float(errors[worst])


def _places(size: int) -> Array:
    if size <= MOST_ELEMENTS:
        return np.arange(size)
    return np.sort(np.random.default_rng(0).choice(size, MOST_ELEMENTS, replace=False))


def _slope(loss: Any, base: Array, place: int, size: float) -> float:
    moved = base.copy()
    moved.flat[place] = base.flat[place] + size
    upper = loss(moved)
    moved.flat[place] = base.flat[place] - size
    return float((upper - loss(moved)) / (2 * size))


def _widened(value: Array) -> Array:
    value = np.asarray(value)
    return value.astype(np.float64) if value.dtype.kind == "f" else value


def _in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with all float32 constants, casts and declared types as float64."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    _widen_graph(wide.graph)
    return wide


def _widen_graph(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
            if attribute.HasField("g"):
                _widen_graph(attribute.g)
            if node.op_type == "Constant" and attribute.name in {"value_float", "value_floats"}:
                values = np.array(attribute.floats or attribute.f, np.float64)
                attribute.Clear()
                attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
                attribute.t.CopyFrom(numpy_helper.from_array(values))


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        values = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
