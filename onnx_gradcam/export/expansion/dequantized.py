"""Quantized tensors of the analysis graph in floats: one DequantizeLinear each, moves behind it.

Between QuantizeLinear and DequantizeLinear, models move integers (MaxPool, Reshape, Concat, ...),
and each reader may have a DequantizeLinear of its own. In the analysis graph there is one per
quantized tensor, and the moves work on floats, which gives the same numbers:

    file        q ── DequantizeLinear ── a      q ── MaxPool ── p ── DequantizeLinear ── b
                q ── DequantizeLinear ── c
    analysis    q ── DequantizeLinear ── a (for c, too) ── MaxPool ── b

So a feature map is one float tensor that all paths pass through, whoever reads it. The integer
moves stay, for outputs of the model; what nothing needs is left out of the explanation anyway.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from onnx_gradcam.export.expansion.float_weights import emit_float_weight, is_weight
from onnx_gradcam.export.expansion.integer_products import float_product
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.quantized.flow import QUANTIZERS
from onnx_gradcam.gradients.clipping import scalar_grid
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import attribute_of


def _always(_graph: Graph, _node: NodeProto) -> bool:
    return True


def _takes_constant(graph: Graph, node: NodeProto) -> bool:
    """Pad with constants; from opset 11 on the value is an input, on the grid of the others."""
    mode = attribute_of(node, "mode", "constant")
    given = len(node.input) > 2 and node.input[2]
    known = not given or graph.constant(node.input[2]) is not None
    return graph.opset() >= 11 and (mode != "constant" or known)


def _nearest(_graph: Graph, node: NodeProto) -> bool:
    return bool(attribute_of(node, "mode", "nearest") == "nearest")


def _one_output(_graph: Graph, node: NodeProto) -> bool:
    return len(node.output) == 1


_MOVES: dict[str, Callable[[Graph, NodeProto], bool]] = {
    "Concat": _always,
    "DepthToSpace": _always,
    "Expand": _always,
    "Flatten": _always,
    "Gather": _always,
    "Identity": _always,
    "MaxPool": _one_output,
    "Pad": _takes_constant,
    "Reshape": _always,
    "Resize": _nearest,
    "Slice": _always,
    "SpaceToDepth": _always,
    "Split": _always,
    "Squeeze": _always,
    "Tile": _always,
    "Transpose": _always,
    "Unsqueeze": _always,
}
"""Operators that select among the numbers of their first input (Concat: of all), and when."""

Grid = tuple[float, float] | tuple[str, ...]


class _Rewriter:
    def __init__(self, graph: Graph, emit: Emitter) -> None:
        self.graph = graph
        self.emit = emit
        self.changed = False
        self._quantize: dict[str, NodeProto] = {}  # quantized tensor -> where its grid is from
        self._moves: dict[str, NodeProto] = {}  # moved quantized tensor -> the node
        self._floats: dict[str, str] = {}  # quantized tensor -> its value in floats
        self._instead: dict[str, str] = {}

    def take(self, node: NodeProto) -> None:
        """Write one node of the graph, in its turn."""
        product = float_product(self.graph, self.emit, node)
        if product is not None:
            self.changed = True
            self.emit.nodes.extend(product)
            return
        if is_weight(self.graph, node):
            weight = emit_float_weight(self.graph, self.emit, node)
            if weight is not None:
                self.changed = True
                self._instead[node.output[0]] = weight
                return
        source = self._quantize.get(node.input[0]) if node.input else None
        if node.op_type == "QuantizeLinear":
            self._quantize[node.output[0]] = node
        elif source is not None and node.op_type == "DequantizeLinear":
            if self._grid(node) == self._grid(source) and self._dequantize(node):
                return
        elif source is not None and self._is_move(node):
            for output in node.output:
                self._quantize[output] = source
                self._moves[output] = node
        self.emit.nodes.append(self._rewired(node))

    def _dequantize(self, node: NodeProto) -> bool:
        """Return whether something else was written for a DequantizeLinear, or nothing."""
        q, result = node.input[0], node.output[0]
        if result in self.graph.outputs:
            return False
        if q not in self._floats and q not in self._moves:
            self._floats[q] = result
            return False
        self.changed = True
        if q not in self._floats and len(self._moves[q].output) == 1:
            self._move(self._moves[q], result)
        else:
            self._instead[result] = self._value(q)
        return True

    def _value(self, q: str) -> str:
        """Return the floats that a quantized tensor stands for."""
        if q not in self._floats and q in self._moves:
            self._move(self._moves[q])
        elif q not in self._floats:
            quantize = self._quantize[q]
            name = self.emit.unique(q.lstrip("/"))
            inputs = [q, *quantize.input[1:3]]
            self.emit.nodes.append(_made("DequantizeLinear", inputs, [name]))
            self._floats[q] = name
        return self._floats[q]

    def _move(self, node: NodeProto, name: str | None = None) -> None:
        """Write the move in floats."""
        count = len(node.input) if node.op_type == "Concat" else 1
        inputs = [self._value(q) for q in node.input[:count]] + list(node.input[count:])
        if node.op_type == "Pad" and attribute_of(node, "mode", "constant") == "constant":
            inputs[2:3] = [self._pad_value(node)]
        outputs = [name or self.emit.unique(output.lstrip("/")) for output in node.output]
        made = _made(node.op_type, inputs, outputs)
        made.attribute.extend(node.attribute)
        self.emit.nodes.append(self._rewired(made))
        self._floats.update(zip(node.output, outputs, strict=True))

    def _pad_value(self, node: NodeProto) -> str:
        source = self._quantize[node.input[0]]
        grid = scalar_grid(self.graph.flow, source)
        assert grid is not None, "_is_move has looked"
        given = len(node.input) > 2 and node.input[2]
        value = self.graph.constant(node.input[2]) if given else np.zeros(1)
        assert value is not None, "_takes_constant has looked"
        number = (float(value.reshape(-1)[0]) - grid[1]) * grid[0]
        return self.emit.filled(number, source.input[1])

    def _is_move(self, node: NodeProto) -> bool:
        applies = _MOVES.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
        if applies is None or not applies(self.graph, node):
            return False
        sources = [self._quantize.get(name) for name in node.input]
        first = sources[0]
        if first is None or scalar_grid(self.graph.flow, first) is None:
            return False
        others = sources if node.op_type == "Concat" else [first]
        return all(other and self._grid(other) == self._grid(first) for other in others)

    def _grid(self, node: NodeProto) -> Grid:
        return scalar_grid(self.graph.flow, node) or tuple(node.input[1:])

    def _rewired(self, node: NodeProto) -> NodeProto:
        if not any(name in self._instead for name in node.input):
            return node
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self._instead.get(name, name) for name in node.input]
        return copy


def _made(op_type: str, inputs: list[str], outputs: list[str]) -> NodeProto:
    return NodeProto(op_type=op_type, name=outputs[0], input=inputs, output=outputs)


def in_floats(graph: Graph, emit: Emitter) -> bool:
    """Write all nodes of a graph anew; return whether any is another one.

    Args:
        graph: the analysis graph.
        emit: an empty emitter, for nodes and constants.
    """
    if not any(node.op_type in {*QUANTIZERS, "DequantizeLinear"} for node in graph.nodes):
        return False
    rewriter = _Rewriter(graph, emit)
    for node in graph.nodes:
        rewriter.take(node)
    return rewriter.changed
