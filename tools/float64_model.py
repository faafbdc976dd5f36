"""Turn a float32 ONNX model into a float64 one, to look at formulas without rounding."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_gradcam.export.reference.operators import evaluator


def float64_evaluator(model: onnx.ModelProto) -> ReferenceEvaluator:
    """Return ONNX's reference implementation, mended, of the float64 version of a model."""
    return evaluator(to_float64(model))


def to_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose float32 weights, types, constants and casts are float64."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for tensor in graph.initializer:
        _widen(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to":
                attribute.i = {TensorProto.FLOAT: TensorProto.DOUBLE}.get(attribute.i, attribute.i)
    return copy


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        values = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
