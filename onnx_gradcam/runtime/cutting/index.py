"""The names in a serialised model, and where its parts lie; weights are not looked at.

Flows in: the bytes of a ``ModelProto``. Flows out: a `ModelIndex`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from onnx_gradcam.errors import InvalidModelError
from onnx_gradcam.onnx_fields import (
    NAME_IN_ANNOTATION,
    NAME_IN_TENSOR,
    NAME_IN_VALUE_INFO,
    VALUES_IN_SPARSE_TENSOR,
    InAttribute,
    InGraph,
    InModel,
    InNode,
)
from onnx_gradcam.wire import Span, fields, text

OVERRIDABLE_SINCE_IR = 4
"""Before this IR version an initializer was an input as well, and a constant all the same."""

_DEEPEST = 64
"""Graphs within graphs; more of them are an attack, not a model."""


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
        span: where it lies in the file, tag included.
        operator: operator and domain, as ``domain::Name``; ``Name`` alone for ONNX's own.
        inputs: names of what its formal inputs are.
        outputs: names of what it gives; the empty ones are left out.
        captured: what its sub-graphs read of the graph that it is in.
    """

    span: Span
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    captured: frozenset[str]

    @property
    def reads(self) -> frozenset[str]:
        """Everything that the node reads."""
        return self.captured.union(filter(None, self.inputs))


@dataclass
class ModelIndex:
    """Where the parts of a model lie.

    Attributes:
        data: the file.
        ir_version: of the file.
        around: spans of the model's fields beside the graph, in order, metadata left out.
        within: spans of the graph's fields that are not listed below, in order.
        nodes: the nodes, in order.
        initializers: tensors by name, sparse ones among them.
        inputs: declarations of the graph's inputs by name.
        outputs: likewise.
        value_info: declarations of other tensors by name; several of one name are all kept.
        quantization: annotations by the name of the tensor.
    """

    data: memoryview
    ir_version: int = 0
    around: list[Span] = field(default_factory=list)
    within: list[Span] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    initializers: dict[str, Span] = field(default_factory=dict)
    inputs: dict[str, Span] = field(default_factory=dict)
    outputs: dict[str, Span] = field(default_factory=dict)
    value_info: dict[str, list[Span]] = field(default_factory=dict)
    quantization: dict[str, list[Span]] = field(default_factory=dict)

    @cached_property
    def producer(self) -> dict[str, int]:
        """Number of the node that gives a tensor, by its name."""
        return {name: i for i, node in enumerate(self.nodes) for name in node.outputs}

    def may_be_fed(self, name: str) -> bool:
        """Return whether a tensor is an input, one with a default value among them."""
        constant = name in self.initializers and self.ir_version < OVERRIDABLE_SINCE_IR
        return name in self.inputs and not constant


def index_model(data: memoryview) -> ModelIndex:
    """Return where the parts of a serialised model lie.

    Raises:
        InvalidModelError: truncated or damaged bytes, or no graph in them.
    """
    index = ModelIndex(data)
    graphs = []
    for part in fields(data, Span(0, len(data))):
        if part.number == InModel.GRAPH:
            graphs.append(part.body)
        elif part.number not in {InModel.METADATA, InModel.TRAINING}:
            index.around.append(part.whole)
            if part.number == InModel.IR_VERSION:
                index.ir_version = part.value
    if len(graphs) != 1:
        raise InvalidModelError(f"{len(graphs)} graphs in the model, where there must be one")
    for part in fields(data, graphs[0]):
        if part.number == InGraph.NODE:
            index.nodes.append(_node(data, part.whole, part.body))
        elif part.number in _NAMED_ONCE:
            table: dict[str, Span] = getattr(index, _NAMED_ONCE[InGraph(part.number)])
            table[_name(data, part.number, part.body)] = part.whole
        elif part.number in _NAMED_OFTEN:
            lists: dict[str, list[Span]] = getattr(index, _NAMED_OFTEN[InGraph(part.number)])
            lists.setdefault(_name(data, part.number, part.body), []).append(part.whole)
        else:
            index.within.append(part.whole)
    return index


_NAMED_ONCE = {
    InGraph.INITIALIZER: "initializers",
    InGraph.SPARSE_INITIALIZER: "initializers",
    InGraph.INPUT: "inputs",
    InGraph.OUTPUT: "outputs",
}
_NAMED_OFTEN = {InGraph.VALUE_INFO: "value_info", InGraph.QUANTIZATION: "quantization"}

_NAME_FIELDS = {
    InGraph.INITIALIZER: NAME_IN_TENSOR,
    InGraph.INPUT: NAME_IN_VALUE_INFO,
    InGraph.OUTPUT: NAME_IN_VALUE_INFO,
    InGraph.VALUE_INFO: NAME_IN_VALUE_INFO,
    InGraph.QUANTIZATION: NAME_IN_ANNOTATION,
}


def _name(data: memoryview, kind: int, body: Span) -> str:
    """Return the name of a tensor or a declaration, empty where it has none."""
    if kind == InGraph.SPARSE_INITIALIZER:
        values = _last(data, body, VALUES_IN_SPARSE_TENSOR)
        return _name(data, InGraph.INITIALIZER, values) if values else ""
    span = _last(data, body, _NAME_FIELDS[InGraph(kind)])
    return text(data, span) if span else ""


def _last(data: memoryview, body: Span, number: int) -> Span | None:
    """Return where a field lies; of several, protobuf takes the last."""
    return next((f.body for f in reversed([*fields(data, body)]) if f.number == number), None)


def _node(data: memoryview, whole: Span, body: Span, depth: int = 0) -> Node:
    inputs, outputs = [], []
    operator = domain = ""
    captured: set[str] = set()
    for part in fields(data, body):
        if part.number == InNode.INPUT:
            inputs.append(text(data, part.body))
        elif part.number == InNode.OUTPUT:
            outputs.append(text(data, part.body))
        elif part.number == InNode.OP_TYPE:
            operator = text(data, part.body)
        elif part.number == InNode.DOMAIN:
            domain = text(data, part.body)
        elif part.number == InNode.ATTRIBUTE:
            for graph in _graphs(data, part.body):
                captured |= _captured(data, graph, depth + 1)
    named = operator if domain in {"", "ai.onnx"} else f"{domain}::{operator}"
    given = tuple(filter(None, outputs))
    return Node(whole, named, tuple(inputs), given, frozenset(captured))


def _graphs(data: memoryview, attribute: Span) -> Iterator[Span]:
    for part in fields(data, attribute):
        if part.number in {InAttribute.GRAPH, InAttribute.GRAPHS}:
            yield part.body


def _captured(data: memoryview, graph: Span, depth: int) -> set[str]:
    """Return what a sub-graph reads of the graphs around it.

    Raises:
        InvalidModelError: graphs lie too deep within each other.
    """
    if depth > _DEEPEST:
        raise InvalidModelError(f"more than {_DEEPEST} graphs within each other in the model")
    read: set[str] = set()
    own: set[str] = set()
    for part in fields(data, graph):
        if part.number == InGraph.NODE:
            node = _node(data, part.whole, part.body, depth)
            read |= node.reads
            own.update(node.outputs)
        elif part.number == InGraph.OUTPUT:
            read.add(_name(data, part.number, part.body))
        elif part.number in {InGraph.INPUT, InGraph.INITIALIZER, InGraph.SPARSE_INITIALIZER}:
            own.add(_name(data, part.number, part.body))
    return read - own
