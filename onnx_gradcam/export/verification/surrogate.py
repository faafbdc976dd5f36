"""A float function whose true gradient is the straight-through gradient of a quantized tail.

Rounding has no derivative to measure, so a straight-through gradient cannot be compared with
differences of the model itself. The surrogate takes the roundings out and keeps the point: each
QuantizeLinear becomes ``clip(x / s + z) + offset`` in floats, where the offset, fixed at the
point, makes up for the rounding there. So all values are those of the quantized model, and the
slopes are one inside of the range and zero outside. The range ends half a step inside of that of
the integers where these decide on clipping (`gradients.clipping`): q on its bound is clipped.
MaxPool selects what is the largest at the point: on a grid there are ties.

In: the nodes of a tail. Out: nodes without integers, and what they are fed beside A. Which bounds
are tested is asked of `gradients.clipping`; apart from that no code is shared with the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.quantized.flow import QUANTIZERS
from onnx_gradcam.gradients.clipping import RANGES, bounds
from onnx_gradcam.gradients.registry import attribute_of

Array = np.ndarray[Any, Any]

_PREFIX = "score_function/"
_FLOAT_FORM = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}
_MIXING = frozenset({"Add", "Concat", "Div", "Max", "Min", "Mul", "Pad", "Sub", "Where"})
"""Operators on integers whose other operands have to become floats, too."""

_FETCHED = frozenset({TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16})
_FOUR_BITS = frozenset({TensorProto.INT4, TensorProto.UINT4})


@dataclass
class Surrogate:
    """Nodes of a tail without integers.

    Attributes:
        nodes: what takes the place of the nodes of the tail.
        initializers: constants that they read.
        needed: tensors of the model whose values at the point `feeds` takes.
        fed: what the nodes read beside A: how it follows from these values.
    """

    nodes: list[NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    needed: list[str] = field(default_factory=list)
    fed: dict[str, Callable[[Mapping[str, Array]], Array]] = field(default_factory=dict)

    def feeds(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Return what the nodes read beside A, from the values of the model at a point."""
        return {name: value(values) for name, value in self.fed.items()}


def _rounded(units: Array, dtype: int) -> Array:
    """Return x / s + z in a type that onnxruntime hands out to nobody."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    whole = np.rint(units) if dtype in _FOUR_BITS else units.astype(np.float32)
    return np.asarray(np.clip(whole, *RANGES[dtype]).astype(kind).astype(np.float64))


def _places(pool: NodeProto, x: Array) -> Array:
    """Return where the maxima of a MaxPool are, in x as one row."""
    from onnx_gradcam.export.reference.operators import evaluator  # slow, rarely needed

    name = pool.input[0]
    given = helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape)
    places = helper.make_tensor_value_info(pool.output[1], TensorProto.INT64, [None] * x.ndim)
    graph = helper.make_graph([pool], "places", [given], [places])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)])
    (found,) = evaluator(model).run(None, {name: x.astype(np.float32)})
    return np.asarray(found, np.int64)


def surrogate(graph: Graph, nodes: Iterable[NodeProto], target: str) -> Surrogate:
    """Return the surrogate of the nodes between A and the score."""
    nodes = list(nodes)
    made = graph.producer_of(target)
    on_a_grid = made is not None and made.op_type == "DequantizeLinear"
    if not on_a_grid and not any(node.op_type in QUANTIZERS for node in nodes):
        return Surrogate(nodes)
    return _Builder(graph, target).build(nodes)


class _Builder:
    def __init__(self, graph: Graph, target: str) -> None:
        self._graph = graph
        self._moved = {target}  # depends on A
        self._floats: set[str] = set()  # integers of the model, floats here
        self._out = Surrogate()

    def build(self, nodes: Iterable[NodeProto]) -> Surrogate:
        for node in nodes:
            moved = [name for name in self._graph.reads(node) if name in self._moved]
            if not moved:
                self._out.nodes.append(node)
                continue
            self._moved.update(name for name in node.output if name)
            self._write(node, moved)
        return self._out

    def _write(self, node: NodeProto, moved: list[str]) -> None:
        if node.op_type == "QuantizeLinear":
            self._quantize(node)
        elif node.op_type == "DynamicQuantizeLinear":
            self._dynamic_quantize(node)
        elif node.op_type == "MaxPool" and moved == [node.input[0]] and len(node.output) == 1:
            self._max_pool(node)
        elif not any(name in self._floats for name in moved):
            self._out.nodes.append(node)
        elif node.op_type == "DequantizeLinear":
            self._dequantize(node)
        elif node.op_type in _FLOAT_FORM:
            self._product(node)
        else:
            self._move(node)

    # -- quantization ----------------------------------------------------------------------------

    def _quantize(self, node: NodeProto) -> None:
        x, q = node.input[0], node.output[0]
        scale = self._aligned(node, 1, x)
        zero = self._aligned(node, 2, x) if len(node.input) > 2 and node.input[2] else np.zeros(1)
        low, high = bounds(self._graph.flow, node).of_input
        steps = self._node("Div", [x, self._constant(scale)])
        units = self._node("Add", [steps, self._constant(zero)])
        for op_type, limit in (("Max", low), ("Min", high)):
            if np.isfinite(limit):
                units = self._node(op_type, [units, self._constant(np.asarray(limit))])

        dtype = self._graph.flow.dtype(q)
        fetched = dtype in _FETCHED

        def offset(values: Mapping[str, Array]) -> Array:
            units = values[x].astype(np.float64) / scale + zero
            rounded = values[q].astype(np.float64) if fetched else _rounded(units, dtype)
            return np.asarray(rounded - np.clip(units, low, high))

        self._finish(node, units, offset, [x, q] if fetched else [x])

    def _dynamic_quantize(self, node: NodeProto) -> None:
        x, (q, scale, zero) = node.input[0], node.output
        steps = self._node("Div", [x, scale])

        def offset(values: Mapping[str, Array]) -> Array:
            return np.asarray(values[q].astype(np.float64) - values[x] / values[scale])

        self._finish(node, steps, offset, [x, q, scale, zero])
        self._out.fed[scale] = lambda values: values[scale]
        self._out.fed[zero] = lambda values: values[zero]
        self._moved -= {scale, zero}

    def _finish(
        self,
        node: NodeProto,
        value: str,
        offset: Callable[[Mapping[str, Array]], Array],
        needed: list[str],
    ) -> None:
        name = f"{_PREFIX}offset/{node.output[0]}"
        self._out.nodes.append(helper.make_node("Add", [value, name], [node.output[0]]))
        self._out.fed[name] = lambda values: offset(values).astype(np.float32)
        self._out.needed += needed
        self._floats.add(node.output[0])

    def _dequantize(self, node: NodeProto) -> None:
        value = node.input[0]
        for position, op_type in ((2, "Sub"), (1, "Mul")):
            if len(node.input) <= position or not node.input[position]:
                continue
            if self._graph.constant(node.input[position]) is not None:
                operand = self._constant(self._aligned(node, position, node.output[0]))
            else:
                operand = self._float(node.input[position])
            value = self._node(op_type, [value, operand])
        self._out.nodes.append(helper.make_node("Identity", [value], list(node.output)))

    def _max_pool(self, node: NodeProto) -> None:
        """Select what is the largest at the point, of equal ones the first.

        On a coarse grid many are equal, and differences would take the mean of their slopes.
        """
        x, y = node.input[0], node.output[0]
        places = f"{_PREFIX}places/{y}"
        pool = NodeProto()
        pool.CopyFrom(node)
        pool.output.append(places)
        self._out.fed[places] = lambda values: _places(pool, values[x])
        self._out.needed.append(x)
        row = self._node("Reshape", [x, self._initializer(np.array([-1], np.int64))])
        self._out.nodes.append(helper.make_node("Gather", [row, places], [y]))
        if x in self._floats:
            self._floats.add(y)

    # -- integers --------------------------------------------------------------------------------

    def _product(self, node: NodeProto) -> None:
        operands = []
        for index in (0, 1):
            operand = self._float(node.input[index])
            if len(node.input) > 2 + index and node.input[2 + index]:
                zero = self._float(node.input[2 + index])
                if index or node.op_type == "MatMulInteger":
                    rank = len(self._graph.shape(node.input[index]) or ())
                    along = [1] * rank
                    along[0 if node.op_type == "ConvInteger" else index - 2] = -1
                    shape = self._initializer(np.array(along, np.int64))
                    zero = self._node("Reshape", [zero, shape])
                operand = self._node("Sub", [operand, zero])
            operands.append(operand)
        made = helper.make_node(_FLOAT_FORM[node.op_type], operands, list(node.output))
        made.attribute.extend(node.attribute)
        self._out.nodes.append(made)
        self._floats.update(node.output)

    def _move(self, node: NodeProto) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        results = [name for name in node.output if name and not self._graph.is_float(name)]
        if node.op_type == "Cast" and results:
            copy.op_type = "Identity"
            del copy.attribute[:]
        if node.op_type in _MIXING:
            copy.input[:] = [
                self._float(name) if name and self._is_number(node, i) else name
                for i, name in enumerate(node.input)
            ]
        self._out.nodes.append(copy)
        self._floats.update(results)

    @staticmethod
    def _is_number(node: NodeProto, index: int) -> bool:
        skipped = {"Pad": {1, 3}, "Where": {0}}.get(node.op_type, set())
        return index not in skipped

    def _float(self, name: str) -> str:
        """Return a tensor as float32."""
        if name in self._floats or self._graph.is_float(name):
            return name
        return self._node("Cast", [name], to=TensorProto.FLOAT)

    # -- writing ---------------------------------------------------------------------------------

    def _aligned(self, node: NodeProto, position: int, x: str) -> Array:
        """Return a constant scale or zero point so that it broadcasts to x.

        Raises:
            ValueError: it is not constant.
        """
        value = self._graph.constant(node.input[position])
        if value is None:
            raise ValueError(f"{node.input[position]!r} is not constant")
        value = value.astype(np.float64)
        if value.size == 1:
            return np.asarray(value.reshape(-1)[0])
        shape = self._graph.shape(x) or ()
        axis = attribute_of(node, "axis", 1) % len(shape)
        if value.ndim == 1:
            return value.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        length = shape[axis]
        assert isinstance(length, int), "the formula demands it"
        return np.repeat(value, attribute_of(node, "block_size"), axis).take(range(length), axis)

    def _node(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{_PREFIX}{len(self._out.nodes)}"
        self._out.nodes.append(helper.make_node(op_type, inputs, [name], **attributes))
        return name

    def _constant(self, value: Array) -> str:
        return self._initializer(np.asarray(value, np.float32))

    def _initializer(self, value: Array) -> str:
        name = f"{_PREFIX}constant/{len(self._out.initializers)}"
        self._out.initializers.append(numpy_helper.from_array(value, name))
        return name
