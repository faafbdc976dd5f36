"""A model with all of its floats in one type."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from onnx_gradcam.gradients.registry import FLOATS

_TYPE_ATTRIBUTES = frozenset({"to", "dtype"})
_NUMBERS = frozenset({"value_float", "value_floats"})


def retyped(model: ModelProto, dtype: int) -> ModelProto:
    """Return a copy in which every float tensor, constant and cast has the type `dtype`."""
    copy = ModelProto()
    copy.CopyFrom(model)
    _retype_graph(copy.graph, dtype)
    for function in copy.functions:
        _retype_nodes(function.node, dtype)
    return copy


def _retype_graph(graph: GraphProto, dtype: int) -> None:
    for tensor in graph.initializer:
        _retype_tensor(tensor, dtype)
    for info in (*graph.input, *graph.output, *graph.value_info):
        _retype_info(info, dtype)
    _retype_nodes(graph.node, dtype)


def _retype_info(info: ValueInfoProto, dtype: int) -> None:
    if info.type.HasField("tensor_type") and info.type.tensor_type.elem_type in FLOATS:
        info.type.tensor_type.elem_type = dtype


def _retype_nodes(nodes: Iterable[NodeProto], dtype: int) -> None:
    for node in nodes:
        for attribute in node.attribute:
            _retype_attribute(attribute, dtype)
        if node.op_type == "ConstantOfShape" and not node.attribute:
            zero = np.zeros(1, helper.tensor_dtype_to_np_dtype(dtype))
            node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(zero)))


def _retype_attribute(attribute: AttributeProto, dtype: int) -> None:
    if attribute.name in _TYPE_ATTRIBUTES and attribute.i in FLOATS:
        attribute.i = dtype
    elif attribute.name in _NUMBERS:
        value = helper.get_attribute_value(attribute)
        array = np.asarray(value, helper.tensor_dtype_to_np_dtype(dtype))
        attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(array)))
    elif attribute.HasField("t"):
        _retype_tensor(attribute.t, dtype)
    elif attribute.HasField("g"):
        _retype_graph(attribute.g, dtype)


def _retype_tensor(tensor: TensorProto, dtype: int) -> None:
    if tensor.data_type in FLOATS:
        values = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(dtype))
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
