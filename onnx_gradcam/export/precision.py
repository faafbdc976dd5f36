"""Gradients in float32 for models that compute in float16 or bfloat16.

In: the graph of the model. Out: `float32_view`, the same graph as if every half-precision tensor
were float32, for whatever looks at the forward model to build a gradient; and `gradient_emitter`,
which writes nodes that fit it: each tensor that is half precision in truth is read through one
Cast to float32. The model itself stays as it is, weights included: onnxruntime folds their casts
when it loads the file.

Half-precision gradients underflow: float16 ends at 6e-8, and dy/dA of an early layer lies below.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, defs, helper

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.graph import Graph, describe
from onnx_gradcam.gradients.emitter import Array, Emitter, TensorType
from onnx_gradcam.gradients.registry import NEWEST_OPSET

HALVES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})

_NAMES: dict[int, str] = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
_STANDARD = frozenset({"", "ai.onnx"})

TYPE_ATTRIBUTES = frozenset({"dtype", "output_dtype", "softmax_precision", "stash_type", "to"})
"""Attributes of standard operators that hold an element type."""

_UNTYPED = frozenset({"Shape", "Size"})
"""Operators that read a tensor of any type, and none of its values."""

_MAXIMA = frozenset({"GlobalMaxPool", "Max", "MaxPool", "Min", "ReduceMax", "ReduceMin"})
"""Operators whose first output is one of the elements that they read."""


class Float32View(Graph):
    """A graph in which all half-precision tensors, and what casts to them, are float32.

    Args:
        graph: the graph of the model.
        halves: the tensors that are half precision in truth.
    """

    def __init__(self, graph: Graph, halves: frozenset[str]) -> None:
        """Share everything with the graph but nodes that name a half-precision type."""
        vars(self).update(vars(graph))
        self._graph = graph
        self.halves = halves
        self.unexpanded = graph.unexpanded
        self.nodes = [_in_float32(node) for node in self.nodes]

    @cached_property
    def _types(self) -> dict[str, TensorType]:
        return {
            name: TensorType(TensorProto.FLOAT, known.shape) if name in self.halves else known
            for name, known in self._graph.types.items()
        }

    @property
    def types(self) -> dict[str, TensorType]:
        """Types of all tensors, none of them half precision."""
        return self._types

    def constant(self, name: str) -> Array | None:
        """Return the value of a constant tensor, in the type that it has here."""
        value = self._graph.constant(name)
        return value.astype(np.float32) if value is not None and name in self.halves else value


def _in_float32(node: NodeProto) -> NodeProto:
    named = [a for a in node.attribute if a.name in TYPE_ATTRIBUTES and a.i in HALVES]
    if not named:
        return node
    copy = NodeProto()
    copy.CopyFrom(node)
    for attribute in copy.attribute:
        if attribute.name in TYPE_ATTRIBUTES and attribute.i in HALVES:
            attribute.i = TensorProto.FLOAT
    return copy


def refuse_invalid_halves(graph: Graph) -> None:
    """Refuse a model with an operator that does not take half precision in the model's opset.

    Exporters write such ones for bfloat16; no runtime loads them, and inference ends there.

    Raises:
        UnsupportedModelError: naming the first of them.
    """
    for node in graph.nodes:
        opset = graph.opset(node.domain)
        for position, name in enumerate(node.input):
            known = graph.type_of(name)
            if known is None or known.dtype not in HALVES or node.domain not in _STANDARD:
                continue
            if not _takes(node.op_type, opset, position, _NAMES[known.dtype]):
                later = range(opset + 1, NEWEST_OPSET + 1)
                takes = (o for o in later if _takes(node.op_type, o, position, _NAMES[known.dtype]))
                since = next(takes, None)
                hint = f" (it does from opset {since} on)" if since else ""
                raise UnsupportedModelError(
                    f"{describe(node, opset)} does not take {_NAMES[known.dtype]}{hint}; convert"
                    " the model to float32, or export it anew in a newer opset"
                )


def _takes(op_type: str, opset: int, position: int, type_name: str) -> bool:
    """Return whether an operator takes a type; unknown operators take all."""
    try:
        inputs = defs.get_schema(op_type, opset, "").inputs
    except defs.SchemaError:
        return True
    formal = inputs[min(position, len(inputs) - 1)]
    return f"tensor({type_name})" in formal.types


def float32_view(graph: Graph) -> Graph:
    """Return the graph as gradients see it: itself where nothing in it is half precision."""
    halves = frozenset(name for name, known in graph.types.items() if known.dtype in HALVES)
    return Float32View(graph, halves) if halves else graph


def gradient_emitter(graph: Graph, prefix: str) -> Emitter:
    """Return an emitter for nodes that read the tensors of a graph.

    Args:
        graph: a graph as `float32_view` returned it.
        prefix: start of every name that is added.
    """
    if isinstance(graph, Float32View):
        return _WideningEmitter(graph, prefix)
    return Emitter(graph.opset(), graph.types, graph.constant, prefix, list(graph.names))


class _WideningEmitter(Emitter):
    """An emitter whose nodes read half-precision tensors through one Cast to float32 each.

    A maximum is computed again instead, from the casts of its operands: onnxruntime drops the
    rounding to half precision before some casts and not before others, and the gradient of a
    maximum asks which operand equals it.
    """

    def __init__(self, graph: Float32View, prefix: str) -> None:
        """Start with no nodes and no casts."""
        super().__init__(graph.opset(), graph.types, graph.constant, prefix, list(graph.names))
        self._graph = graph
        self._wide: dict[str, str] = {}

    def node(self, op_type: str, inputs: Sequence[str], **options: Any) -> str:
        """Append one node; see `Emitter.node`."""
        return super().node(op_type, self._readable(op_type, inputs), **options)

    def nodes_with_outputs(
        self, op_type: str, inputs: Sequence[str], count: int, **attributes: Any
    ) -> list[str]:
        """Append one node with several outputs; see `Emitter.nodes_with_outputs`."""
        read = self._readable(op_type, inputs)
        return super().nodes_with_outputs(op_type, read, count, **attributes)

    def _readable(self, op_type: str, inputs: Sequence[str]) -> list[str]:
        return list(inputs) if op_type in _UNTYPED else [self._widened(name) for name in inputs]

    def _widened(self, name: str) -> str:
        """Return a tensor as float32."""
        if name not in self._graph.halves:
            return name
        if name not in self._wide:
            with self.scope("float32"):
                self._wide[name] = self._maximum(name) or self._cast(name)
            self.declare(self._wide[name], TensorProto.FLOAT, self.shape(name))
        return self._wide[name]

    def _cast(self, name: str) -> str:
        wide = self.unique(name.lstrip("/"))
        self.nodes.append(helper.make_node("Cast", [name], [wide], name=wide, to=TensorProto.FLOAT))
        return wide

    def _maximum(self, name: str) -> str | None:
        index = self._graph.producer.get(name)
        node = self._graph.nodes[index] if index is not None else NodeProto()
        if node.op_type not in _MAXIMA or node.domain not in _STANDARD:
            return None
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        return self.node(node.op_type, list(node.input), hint=name.lstrip("/"), **attributes)
