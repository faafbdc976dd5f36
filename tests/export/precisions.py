"""Models in another floating-point type, made from float32 ones."""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

FLOAT, HALF, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
BRAIN = TensorProto.BFLOAT16


def converted(
    model: ModelProto, dtype: int, *, keep_inputs: bool = False, keep_outputs: bool = False
) -> ModelProto:
    """Return a copy whose float32 weights, constants, casts, inputs and outputs are of `dtype`.

    Args:
        model: a float32 model.
        dtype: an element type, as a number of onnx.TensorProto.
        keep_inputs: leave the inputs float32 and cast behind them.
        keep_outputs: leave the outputs float32 and cast before them.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    _convert_constants(graph, dtype)
    if keep_inputs:
        _cast_inputs(graph, dtype)
    if keep_outputs:
        _cast_outputs(graph)
    kept = [*([*graph.input] if keep_inputs else []), *([*graph.output] if keep_outputs else [])]
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == FLOAT and value not in kept:
            value.type.tensor_type.elem_type = dtype
    return copy


def cast_around(model: ModelProto, tensor: str, dtype: int) -> ModelProto:
    """Return a copy in which the readers of a tensor get it through `dtype` and back to float32."""
    copy = ModelProto()
    copy.CopyFrom(model)
    nodes = list(copy.graph.node)
    narrow, wide = f"{tensor}_narrow", f"{tensor}_wide"
    for node in nodes:
        node.input[:] = [wide if name == tensor else name for name in node.input]
    (place,) = (i for i, node in enumerate(nodes) if tensor in node.output)
    casts = [
        helper.make_node("Cast", [tensor], [narrow], to=dtype),
        helper.make_node("Cast", [narrow], [wide], to=FLOAT),
    ]
    del copy.graph.node[:]
    copy.graph.node.extend([*nodes[: place + 1], *casts, *nodes[place + 1 :]])
    return copy


def stored_in(model: ModelProto, dtype: int) -> ModelProto:
    """Return a copy that stores its float32 weights in `dtype` and casts them before use."""
    copy = ModelProto()
    copy.CopyFrom(model)
    casts = []
    for tensor in copy.graph.initializer:
        if tensor.data_type == FLOAT:
            name, tensor.name = tensor.name, f"{tensor.name}_stored"
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=FLOAT))
            _convert(tensor, dtype)
    nodes = list(copy.graph.node)
    del copy.graph.node[:]
    copy.graph.node.extend([*casts, *nodes])
    return copy


def _convert_constants(graph: GraphProto, dtype: int) -> None:
    for tensor in graph.initializer:
        _convert(tensor, dtype)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _convert(attribute.t, dtype)
            if attribute.name == "to" and attribute.i == FLOAT:
                attribute.i = dtype


def _convert(tensor: TensorProto, dtype: int) -> None:
    if tensor.data_type == FLOAT:
        values = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(dtype))
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(values), tensor.name))


def _cast_inputs(graph: GraphProto, dtype: int) -> None:
    nodes = list(graph.node)
    casts = []
    for value in _floats(graph.input):
        narrow = f"{value.name}_narrow"
        for node in nodes:
            node.input[:] = [narrow if name == value.name else name for name in node.input]
        casts.append(helper.make_node("Cast", [value.name], [narrow], to=dtype))
    del graph.node[:]
    graph.node.extend([*casts, *nodes])


def _cast_outputs(graph: GraphProto) -> None:
    for value in _floats(graph.output):
        narrow = f"{value.name}_narrow"
        for node in graph.node:
            node.input[:] = [narrow if name == value.name else name for name in node.input]
            node.output[:] = [narrow if name == value.name else name for name in node.output]
        graph.node.append(helper.make_node("Cast", [narrow], [value.name], to=FLOAT))


def _floats(values: list[ValueInfoProto]) -> list[ValueInfoProto]:
    return [value for value in values if value.type.tensor_type.elem_type == FLOAT]
