"""The place in the tail where a rule works: one node, what is known around it, what replaces it.

In: the tail's graph and one node. Out: the nodes and constants that replace it, every new tensor
named after the output of the node: ``<output>/prepared_<operator>_<number>``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.gradients.emitter import Array, Dim

Operand = str | float | Sequence[int] | Array
"""A tensor by name; or a constant: a float (a scalar of the node's own type), integers (int64)."""

_AXES_INPUT_SINCE = {"ReduceSum": 13, "Squeeze": 13, "Unsqueeze": 13}
"""First opset in which the axes are an input; of the other reductions it is 18."""


class Site:
    """One node of the tail, and what is to replace it.

    Args:
        graph: the tail.
        node: the node.
        carriers: the tensors that carry a gradient from the loss.
    """

    def __init__(self, graph: Graph, node: NodeProto, carriers: frozenset[str] = frozenset()):
        """Start with nothing emitted."""
        self.graph = graph
        self.node = node
        self.carriers = carriers
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []

    # -- what is known -------------------------------------------------------------------------

    @property
    def x(self) -> str:
        """The first input."""
        return str(self.node.input[0])

    @property
    def y(self) -> str:
        """The first output."""
        return str(self.node.output[0])

    @property
    def opset(self) -> int:
        """The opset of the tail."""
        return self.graph.opset()

    def input(self, index: int) -> str:
        """Return the name of an input, empty when it is absent."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def output(self, index: int) -> str:
        """Return the name of an output, empty when it is absent."""
        return self.node.output[index] if index < len(self.node.output) else ""

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return the value of an attribute; strings as str, integers as a list."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def constant(self, name: str) -> Array | None:
        """Return the value of a constant tensor, None for others and for an absent one."""
        return self.graph.constant(name) if name else None

    def integers(self, name: str) -> list[int] | None:
        """Return a constant tensor as integers, None when it is no constant."""
        value = self.constant(name)
        return None if value is None else [int(v) for v in value.reshape(-1)]

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """Return the shape of a tensor as far as it is known."""
        return self.graph.shape(name)

    def static_shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor if all of it is known."""
        shape = self.shape(name)
        if shape is None:
            return None
        sizes = tuple(d for d in shape if isinstance(d, int))
        return sizes if len(sizes) == len(shape) else None

    def rank(self, name: str) -> int | None:
        """Return the number of axes of a tensor, None when unknown."""
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the NumPy type of a tensor; float32 when unknown."""
        known = self.graph.type_of(name)
        element = known.dtype if known else TensorProto.FLOAT
        return helper.tensor_dtype_to_np_dtype(element)

    # -- what is emitted -----------------------------------------------------------------------

    def emit(
        self, op_type: str, *operands: Operand, into: str | None = None, **attributes: Any
    ) -> str:
        """Add a node and return its output.

        Args:
            op_type: a standard operator.
            operands: its inputs; an empty name is an absent one.
            into: name of the output; None makes one.
            attributes: its attributes; those that are None are left out.
        """
        inputs = [self._name(operand) for operand in operands]
        output = self._fresh(op_type) if into is None else into
        given = {name: value for name, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=output, **given))
        return output

    def replace(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Add the node itself, with other inputs and outputs."""
        copy = NodeProto()
        copy.CopyFrom(self.node)
        copy.input[:] = inputs
        copy.output[:] = outputs
        self.nodes.append(copy)

    def filled(self, value: Array) -> str:
        """Add a constant and return its name."""
        name = self._fresh("constant")
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def reduce(
        self, op_type: str, x: str, axes: Sequence[int], *, keepdims: bool, into: str | None = None
    ) -> str:
        """Add a reduction over the given axes, none meaning all, in the form of the opset."""
        kept = int(keepdims)
        if not axes:
            return self.emit(op_type, x, into=into, keepdims=kept)
        if self.opset >= _AXES_INPUT_SINCE.get(op_type, 18):
            return self.emit(op_type, x, list(axes), into=into, keepdims=kept)
        return self.emit(op_type, x, into=into, axes=list(axes), keepdims=kept)

    def squeeze(self, x: str, axes: Sequence[int], *, into: str | None = None) -> str:
        """Remove axes of size 1."""
        return self._with_axes("Squeeze", x, axes, into)

    def unsqueeze(self, x: str, axes: Sequence[int], *, into: str | None = None) -> str:
        """Insert axes of size 1."""
        return self._with_axes("Unsqueeze", x, axes, into)

    def reshape_like(self, x: str, like: str, *, into: str | None = None) -> str:
        """Reshape a tensor to the shape of another one with as many elements."""
        shape = self.shape(like)
        if shape and all(isinstance(d, int) and d > 0 for d in shape[1:]):
            # 0 keeps the batch, which comes first in both
            return self.emit("Reshape", x, [0, *(int(d or 0) for d in shape[1:])], into=into)
        return self.emit("Reshape", x, self.emit("Shape", like), into=into)

    def along_channels(self, values: str, rank: int) -> str:
        """Return a tensor ``(C,)`` as ``(C, 1, ..., 1)``, to broadcast over `rank` axes."""
        return self.emit("Reshape", values, [-1] + [1] * (rank - 2)) if rank > 2 else values

    def _with_axes(self, op_type: str, x: str, axes: Sequence[int], into: str | None) -> str:
        if self.opset >= _AXES_INPUT_SINCE[op_type]:
            return self.emit(op_type, x, list(axes), into=into)
        return self.emit(op_type, x, into=into, axes=list(axes))

    def _name(self, operand: Operand) -> str:
        if isinstance(operand, str):
            return operand
        if isinstance(operand, float):
            return self.filled(np.asarray(operand, self.dtype(self.x)))
        if isinstance(operand, np.ndarray):
            return self.filled(operand)
        return self.filled(np.asarray(operand, np.int64))

    def _fresh(self, what: str) -> str:
        number = len(self.nodes) + len(self.initializers)
        return f"{self.y}/prepared_{what}_{number}"


Rule = Callable[[Site], bool]
"""Emits what replaces the node and returns True; or returns False, and the node stays as it is."""
