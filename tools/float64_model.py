"""Turn a float32 ONNX model into a float64 one, to look at formulas without rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_max_pool import MaxPool as _ReferenceMaxPool


class MaxPool(_ReferenceMaxPool):
    """MaxPool whose ceil_mode drops windows that start in the padding, as runtimes do.

    ONNX's reference implementation (1.23) keeps them, and its result has the wrong shape.
    """

    def _run(self, x: Any, **attributes: Any) -> Any:
        if not attributes.get("ceil_mode"):
            return super()._run(x, **attributes)
        pads = attributes.get("pads") or [0, 0, 0, 0]
        assert pads[:2] == pads[2:], "torch pads both sides alike"
        pooled = torch.nn.functional.max_pool2d(
            torch.from_numpy(np.array(x)),
            attributes["kernel_shape"],
            attributes.get("strides") or 1,
            pads[:2],
            ceil_mode=True,
        )
        return (pooled.numpy(),)


def float64_evaluator(model: onnx.ModelProto) -> ReferenceEvaluator:
    """Return ONNX's reference implementation of the float64 version of a model."""
    return ReferenceEvaluator(to_float64(model), new_ops=[MaxPool])


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
