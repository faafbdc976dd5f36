"""Products of uint8 and int8 as products of uint8 and uint8: the same numbers, another kernel.

    before   a (uint8), w (int8), zero point z ── QLinearConv ── y
    after    a (uint8), w + 128 (uint8), zero point z + 128 ── QLinearConv ── y

The same for the other integer operators, and for the DequantizeLinear of the weights of a Conv,
Gemm or MatMul that onnxruntime fuses into one of them. On x86 CPUs without VNNI its kernels for
uint8 times int8 saturate, those for uint8 times uint8 are exact (`int8_kernels`).

In: a model. Out: a copy with other weights, the model itself where nothing can saturate.
Source: ONNX operator specifications; onnxruntime, ``docs/ContribOperators.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_gradcam.export.graph import Graph

Array = np.ndarray[Any, Any]

NEVER_SATURATES = 64
"""Weights up to this size: 255 times the sum of two of them fits into 16 bits."""

_PREFIX = "exact_products/"
_SHIFT = 128
_OLDEST_IR = 4  # from here on initializers need not be graph inputs
_CONTRIB = "com.microsoft"

_INTEGER_PRODUCTS = {
    ("", "MatMulInteger"): (0, 1, 3),
    ("", "QLinearConv"): (0, 3, 5),
    ("", "QLinearMatMul"): (0, 3, 5),
    (_CONTRIB, "DynamicQuantizeMatMul"): (0, 1, 3),
    (_CONTRIB, "MatMulIntegerToFloat"): (0, 1, 5),
    (_CONTRIB, "QGemm"): (0, 3, 5),
    (_CONTRIB, "QLinearConv"): (0, 3, 5),
}
"""Positions of the left operand, the right one and its zero point. ConvInteger is exact."""

_FLOAT_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators that become one of them, where both operands are dequantized."""

_MULTIPLIED = (TensorProto.UINT8, TensorProto.FLOAT)
"""Types of the left operand; floats become uint8. int8 times int8 is exact."""

_FUSED = (TensorProto.UINT8, TensorProto.INT8)
"""Types of what is dequantized to the left one; at the default level int8 becomes uint8, too."""


@dataclass(frozen=True)
class _Site:
    """A node, and where it reads int8 numbers and their zero point."""

    node: NodeProto
    numbers: int
    zero: int


def with_exact_products(
    model: ModelProto, tensor_values: Callable[[TensorProto], Array] = numpy_helper.to_array
) -> ModelProto:
    """Return a model without products of uint8 and int8 that can saturate.

    Sub-graphs of If, Loop and Scan stay as they are, and so do local functions.

    Args:
        model: the model; it is not changed.
        tensor_values: fetches the values of an initializer, from an external file if need be.
    """
    graph = Graph(model, tensor_values)
    sites = {id(site.node): site for site in _sites(graph) if _can_saturate(graph, site)}
    if not sites:
        return model
    writer = _Writer(graph)
    for node in graph.nodes:
        writer.write(node, sites.get(id(node)))
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = max(copy.ir_version, _OLDEST_IR)
    del copy.graph.node[:]
    copy.graph.node.extend(writer.nodes)
    copy.graph.initializer.extend(writer.initializers)
    return copy


def _sites(graph: Graph) -> Iterator[_Site]:
    for node in graph.nodes:
        domain = "" if node.domain == "ai.onnx" else node.domain
        positions = _INTEGER_PRODUCTS.get((domain, node.op_type))
        if positions is not None:
            left, right, zero = positions
            if _is(graph, node.input[left], *_MULTIPLIED):
                yield _Site(node, right, zero)
        elif not domain and node.op_type in _FLOAT_PRODUCTS:
            left_made, right_made = (_dequantized(graph, name) for name in node.input[:2])
            if left_made is None or right_made is None:
                continue
            if _is(graph, left_made.input[0], *_FUSED):
                yield _Site(right_made, 0, 2)


def _dequantized(graph: Graph, name: str) -> NodeProto | None:
    """Return the DequantizeLinear that a tensor comes from; weights may be transposed after it."""
    node = graph.producer_of(name)
    while node is not None and node.op_type == "Transpose":
        node = graph.producer_of(node.input[0])
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _can_saturate(graph: Graph, site: _Site) -> bool:
    name = site.node.input[site.numbers]
    if not _is(graph, name, TensorProto.INT8):
        return False
    numbers = graph.constant(name)
    if numbers is None:  # onnxruntime itself makes uint8 of what QuantizeLinear yields
        return site.node.op_type != "DequantizeLinear"
    return bool(np.abs(numbers.astype(np.int16)).max(initial=0) > NEVER_SATURATES)


def _is(graph: Graph, name: str, *dtypes: int) -> bool:
    known = graph.type_of(name)
    return known is not None and known.dtype in dtypes


class _Writer:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._shifted: dict[str, str] = {}

    def write(self, node: NodeProto, site: _Site | None) -> None:
        """Write one node of the graph in its turn, at a site with shifted numbers."""
        if site is not None:
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.input.extend([""] * (site.zero + 1 - len(copy.input)))
            copy.input[site.numbers] = self._plus_128(copy.input[site.numbers])
            zero = copy.input[site.zero]
            copy.input[site.zero] = self._plus_128(zero) if zero else self._only_128(node)
            node = copy
        self.nodes.append(node)

    def _plus_128(self, name: str) -> str:
        """Return int8 numbers plus 128, as uint8."""
        if name not in self._shifted:
            start = f"{_PREFIX}{name}"
            wide, sum_, result = f"{start}/int32", f"{start}/sum", f"{start}/uint8"
            shift = self._constant(np.array(_SHIFT, np.int32))
            self.nodes += [
                helper.make_node("Cast", [name], [wide], wide, to=TensorProto.INT32),
                helper.make_node("Add", [wide, shift], [sum_], sum_),
                helper.make_node("Cast", [sum_], [result], result, to=TensorProto.UINT8),
            ]
            self._shifted[name] = result
        return self._shifted[name]

    def _only_128(self, node: NodeProto) -> str:
        """Return the zero point for a node that has none: DequantizeLinear's is like its scale."""
        shape = self._graph.shape(node.input[1]) if node.op_type == "DequantizeLinear" else ()
        sizes = [size for size in shape or () if isinstance(size, int)]
        return self._constant(np.full(sizes, _SHIFT, np.uint8))

    def _constant(self, value: Array) -> str:
        name = f"{_PREFIX}constant/{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(value, name))
        return name
