"""Turn a float32 ONNX model into a float64 one, to look at formulas without rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_conv_transpose import ConvTranspose as _ReferenceConvTranspose
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


class ConvTranspose(_ReferenceConvTranspose):
    """ConvTranspose in groups of several channels, which the reference implementation refuses."""

    def _run(self, x: Any, weight: Any, bias: Any = None, **attributes: Any) -> Any:
        if attributes.get("group") in {None, 1}:
            return super()._run(x, weight, bias, **attributes)
        full = torch.nn.functional.conv_transpose2d(
            torch.from_numpy(np.array(x)),
            torch.from_numpy(np.array(weight)),
            None if bias is None else torch.from_numpy(np.array(bias)),
            attributes.get("strides") or 1,
            groups=attributes["group"],
            dilation=attributes.get("dilations") or 1,
        ).numpy()
        top, left, bottom, right = attributes.get("pads") or [0, 0, 0, 0]
        height, width = full.shape[2:]
        return (full[:, :, top : height - bottom, left : width - right],)


class LRN(OpRun):
    """LRN whose windows end at the last channel; the reference implementation ends them earlier."""

    op_domain = ""

    def _run(self, x: Any, **attributes: Any) -> Any:
        size, channels = attributes["size"], x.shape[1]
        padded = np.zeros((x.shape[0], channels + size - 1, *x.shape[2:]), x.dtype)
        padded[:, (size - 1) // 2 : (size - 1) // 2 + channels] = x**2
        sums = sum(padded[:, i : i + channels] for i in range(size))
        scale = attributes["bias"] + attributes["alpha"] / size * sums
        return (x / scale ** attributes["beta"],)


def float64_evaluator(model: onnx.ModelProto) -> ReferenceEvaluator:
    """Return ONNX's reference implementation of the float64 version of a model."""
    return ReferenceEvaluator(to_float64(model), new_ops=[MaxPool, ConvTranspose, LRN])


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
