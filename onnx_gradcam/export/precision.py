"""Gradients in float32 for models that compute in float16 or bfloat16.

In: the graph of the model. Out: `float32_view`, the same graph as if every half-precision tensor
were float32, for whatever looks at the forward model to build a gradient; and `gradient_emitter`,
which writes nodes that fit it: what is half precision in truth, A and weights among it, is read
through one Cast to float32. The model itself stays as it is: no weight is stored twice, onnxruntime
folds the casts when it loads the file.

Half-precision gradients underflow: float16 ends at 6e-8, and dy/dA of an early layer lies below.
What the gradient reads between A and the score it computes again, in float32, from the cast of A
(`compute_again`; of several layers, from those that depend on no other one): so it is the gradient
of one function. Read through casts, forward tensors disagree with each other: onnxruntime on the
CPU computes half precision in float32 and leaves out some of the roundings in between, so that an
operand of a maximum need not equal it; and every tensor that is read moves these roundings, and
with them the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, defs, helper

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.graph import Graph, describe
from onnx_gradcam.export.tail import Tail
from onnx_gradcam.gradients.emitter import Array, Emitter, TensorType
from onnx_gradcam.gradients.registry import NEWEST_OPSET

HALVES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})

_NAMES: dict[int, str] = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
_STANDARD = frozenset({"", "ai.onnx"})

TYPE_ATTRIBUTES = frozenset({"dtype", "output_dtype", "softmax_precision", "stash_type", "to"})
"""Attributes of standard operators that hold an element type."""

_UNTYPED = frozenset({"Shape", "Size"})
"""Operators that read a tensor of any type, and none of its values."""


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


def holds_half(model: ModelProto) -> bool:
    """Return whether a model has half-precision weights, inputs or casts."""
    graph = model.graph
    return (
        any(tensor.data_type in HALVES for tensor in graph.initializer)
        or any(value.type.tensor_type.elem_type in HALVES for value in graph.input)
        or any(_in_float32(node) is not node for node in graph.node)
    )


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


def compute_again(emit: Emitter, tail: Tail) -> None:
    """Have an emitter of `gradient_emitter` read the tail in float32 from now on.

    Nothing changes where no tensor of the tail is half precision.
    """
    if isinstance(emit, _WideningEmitter):
        emit.compute_again(tail)


class _WideningEmitter(Emitter):
    """An emitter whose nodes read half-precision tensors as float32.

    Each is read through one Cast; tensors between A and the score, once `compute_again` was
    called, are computed again in float32 from the cast of A instead.
    """

    def __init__(self, graph: Float32View, prefix: str) -> None:
        """Start with no nodes and no casts."""
        super().__init__(graph.opset(), graph.types, graph.constant, prefix, list(graph.names))
        self._graph = graph
        self._again: frozenset[str] = frozenset()
        self._wide: dict[str, str] = {}

    def compute_again(self, tail: Tail) -> None:
        """Read what lies between A and the score as computed in float32."""
        if tail.tensors & self._graph.halves:
            self._again = tail.tensors.difference(tail.roots)
            self._wide = {k: v for k, v in self._wide.items() if k not in self._again}

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
        if name in self._again and name not in self._wide:
            self._copy(self._graph.nodes[self._graph.producer[name]])
        if name in self._graph.halves and name not in self._wide:
            self._append(helper.make_node("Cast", [name], [name], to=TensorProto.FLOAT))
        return self._wide.get(name, name)

    def _copy(self, node: NodeProto) -> None:
        """Append a node of the tail, reading float32."""
        if node.domain not in _STANDARD or any(a.HasField("g") or a.graphs for a in node.attribute):
            return
        copy = NodeProto(op_type=node.op_type, attribute=node.attribute, output=node.output)
        copy.input.extend([self._widened(name) for name in node.input])
        self._append(copy)

    def _append(self, node: NodeProto) -> None:
        """Append a node whose outputs are named like the forward tensors that it gives anew."""
        outputs = list(node.output)
        with self.scope("float32"):
            node.output[:] = [self.unique(n.lstrip("/")) if n else "" for n in outputs]
        node.name = next(filter(None, node.output))
        self.nodes.append(node)
        for name, wide in zip(outputs, node.output, strict=True):
            if name:
                self._wide[name] = wide
                self.declare(wide, self.dtype(name), self.shape(name))
