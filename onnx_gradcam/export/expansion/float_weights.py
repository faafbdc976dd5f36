"""Quantized constants as floats, by Cast, Sub and Mul, which onnxruntime folds when it loads.

DequantizeLinear it leaves alone, for fusions of its own: a MatMul of floats with a dequantized
weight becomes a MatMulNBits that rounds the floats to eight bits (onnxruntime 1.32, the default
level). A gradient must not be rounded so; the weights that it reads are therefore not those that
the model's own DequantizeLinear writes.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import attribute_of


def is_weight(graph: Graph, node: NodeProto) -> bool:
    """Return whether a node dequantizes a constant, and its result is no output of the model."""
    if node.op_type != "DequantizeLinear" or node.output[0] in graph.outputs:
        return False
    made = graph.producer_of(node.input[0])
    constant = made is not None and made.op_type == "Constant"
    return constant or node.input[0] in graph.initializers


def emit_float_weight(graph: Graph, emit: Emitter, node: NodeProto) -> str | None:
    """Emit what a DequantizeLinear of a constant computes; None where a shape is not known."""
    weight, scale = node.input[:2]
    zero = node.input[2] if len(node.input) > 2 else ""
    shape, scale_shape = graph.shape(weight), graph.shape(scale)
    if shape is None or scale_shape is None:
        return None
    dtype = emit.dtype(scale)
    with emit.scope((node.name or node.output[0]).strip("/")):
        value = emit.cast(weight, dtype)
        if zero:
            value = emit.node("Sub", [value, _aligned(emit, emit.cast(zero, dtype), node, graph)])
        return emit.mul(value, _aligned(emit, scale, node, graph))


def _aligned(emit: Emitter, parameter: str, node: NodeProto, graph: Graph) -> str:
    """Return a scale or zero point so that it broadcasts to the weight."""
    shape, sizes = graph.shape(node.input[0]) or (), graph.shape(node.input[1]) or ()
    if not sizes or (len(sizes) == 1 and sizes[0] == 1):
        return parameter
    axis = attribute_of(node, "axis", 1) % len(shape)
    if len(sizes) == 1:
        return emit.reshape(parameter, [-1 if i == axis else 1 for i in range(len(shape))])
    index = np.arange(int(shape[axis] or 0)) // int(attribute_of(node, "block_size"))
    return emit.node("Gather", [parameter, emit.ints(index.tolist())], axis=axis)
