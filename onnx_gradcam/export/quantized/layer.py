"""Feature maps of quantized models: A is what DequantizeLinear makes of the quantized map.

Of a feature map x there are three tensors: x, q = QuantizeLinear(x), and DequantizeLinear(q). The
last is what the rest of the model computes with, and reading it changes nothing: a reader of x
would keep onnxruntime from fusing the operators before it.
"""

from __future__ import annotations

from onnx import NodeProto

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.gradients.clipping import bounds, scalar_grid

_LINEAR = frozenset({"Add", "BatchNormalization"})
_AROUND = frozenset({"DequantizeLinear", "QuantizeLinear"})


def dequantized(graph: Graph, tensor: str) -> str:
    """Return the dequantized tensor that stands for a float or a quantized one, else itself."""
    readers = graph.readers_of(tensor)
    if tensor in graph.outputs or not readers:
        return tensor
    only = readers[0] if len(readers) == 1 else None
    quantize = only if _is_quantize(only) else graph.producer_of(tensor)
    if quantize is None or not _is_quantize(quantize):
        return tensor
    quantized = quantize.output[0]
    behind = [n for n in graph.readers_of(quantized) if n.op_type == "DequantizeLinear"]
    same = [node for node in behind if _same_grid(graph, quantize, node)]
    return str(same[0].output[0]) if len(same) == 1 else tensor


def _is_quantize(node: NodeProto | None) -> bool:
    return node is not None and node.op_type == "QuantizeLinear" and node.domain in {"", "ai.onnx"}


def _same_grid(graph: Graph, left: NodeProto, right: NodeProto) -> bool:
    grids = [scalar_grid(graph.flow, node) for node in (left, right)]
    if grids[0] is None:
        return list(left.input[1:]) == list(right.input[1:])
    return grids[0] == grids[1]


def operator(graph: Graph, tensor: str) -> str:
    """Return the operator of a feature map; ``Relu`` where clipping below zero takes its place.

    Quantization tools leave a ReLU out before a QuantizeLinear whose range begins at zero.
    """
    node = computing_node(graph, tensor)
    quantize = graph.producer_of(tensor)
    if quantize is not None and quantize.op_type == "DequantizeLinear":
        quantize = graph.producer_of(quantize.input[0])
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return str(node.op_type)
    grid, limits = scalar_grid(graph.flow, quantize), bounds(graph.flow, quantize)
    cut = grid is not None and limits.low is not None and limits.low == grid[1]
    return "Relu" if cut and node.op_type in _LINEAR else str(node.op_type)


def computing_node(graph: Graph, tensor: str) -> NodeProto:
    """Return the node that computes a tensor's values: not the quantization around them."""
    node = graph.nodes[graph.producer[tensor]]
    found: NodeProto | None = node
    while found is not None and found.op_type in _AROUND:
        node, found = found, graph.producer_of(found.input[0])
    return found or node
