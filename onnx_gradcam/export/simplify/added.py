"""The nodes that a builder wrote, indexed, and how a pass rewrites them.

In: an emitter with its nodes, and the forward graph. Out: `Added`, which says who makes and reads a
tensor and what is known of it; `rewrite` replaces nodes one by one, and keeps all names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from onnx import ModelProto, NodeProto, TensorProto, helper

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.shapes.types import infer_types
from onnx_gradcam.gradients.emitter import Array, Dim, Emitter, TensorType


class Added:
    """A view of the nodes in an emitter.

    Args:
        emit: holds the nodes.
        forward: the model as the gradient sees it.
        shapes: tensors whose shape is known better than inference would find it.
        wanted: results that are read elsewhere.
    """

    def __init__(
        self,
        emit: Emitter,
        forward: Graph,
        shapes: Mapping[str, tuple[Dim, ...]],
        wanted: Collection[str],
    ) -> None:
        """Index the nodes and infer the types of their results."""
        self.emit = emit
        self.forward = forward
        self.wanted = wanted
        self.types = _inferred(emit, forward, shapes)
        self.refresh()

    def refresh(self) -> None:
        """Drop nodes that nobody needs any more and index the others.

        Types stay as they were inferred: results keep their names.
        """
        drop_dead(self.emit, self.wanted)
        nodes = self.emit.nodes
        self.producer = {name: node for node in nodes for name in node.output if name}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in nodes:
            for name in dict.fromkeys(Graph.reads(node)):
                self.readers.setdefault(name, []).append(node)

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """Return the shape of a tensor, with symbols for sizes known at run time only."""
        known = self.types.get(name)
        return known.shape if known else self.emit.shape(name)

    def dtype(self, name: str) -> int:
        """Return the element type of a tensor."""
        known = self.types.get(name)
        return known.dtype if known else self.emit.dtype(name)

    def value(self, name: str) -> Array | None:
        """Return the value of a constant, else None."""
        return self.emit.value(name)

    def made_by(self, name: str, op_type: str) -> NodeProto | None:
        """Return the added node that makes a tensor, if it is of this operator."""
        node = self.producer.get(name)
        return node if node is not None and node.op_type == op_type else None

    def read_once(self, name: str) -> bool:
        """Return whether just one added node reads a tensor, and nobody else."""
        return len(self.readers.get(name, ())) == 1 and name not in self.wanted

    def is_weight(self, name: str) -> bool:
        """Return whether a tensor is computed from weights and constants alone."""
        node = self.producer.get(name)
        if node is None:
            return _is_constant(self.emit, self.forward, name)
        return all(self.is_weight(read) for read in Graph.reads(node))


Rule = Callable[[Added, NodeProto], str | None]
"""Emits what replaces a node and returns the result's name; None to keep the node."""


def rewrite(added: Added, rule: Rule) -> None:
    """Apply a rule to each node in order.

    New results get the name of what they replace; a tensor that was there before is read in its
    place.
    """
    emit = added.emit
    added.refresh()
    inner = {name for node in emit.nodes for name in {*Graph.reads(node)} - {*node.input}}
    fixed = inner | {*added.wanted}
    same: dict[str, str] = {}
    old = list(emit.nodes)
    emit.nodes.clear()
    for node in old:
        node.input[:] = [same.get(name, name) for name in node.input]
        before = len(emit.nodes)
        result = rule(added, node)
        if result is None:
            assert len(emit.nodes) == before, "a rule that keeps the node emits nothing"
            emit.nodes.append(node)
        elif len(emit.nodes) > before and emit.nodes[-1].output[0] == result:
            emit.nodes[-1].output[0] = node.output[0]
        elif node.output[0] in fixed:
            name = emit.unique(f"{node.op_type}/same")
            emit.nodes.append(helper.make_node("Identity", [result], [node.output[0]], name=name))
        else:
            same[node.output[0]] = result


def drop_dead(emit: Emitter, wanted: Collection[str]) -> None:
    """Remove nodes of the gradient that nothing reads and nobody wants.

    Other nodes stay: what is written later may read them.
    """
    needed, kept = set(wanted), []
    of_gradient = f"{emit.prefix}gradient/"
    for node in reversed(emit.nodes):
        if needed.intersection(node.output) or not node.name.startswith(of_gradient):
            needed.update(Graph.reads(node))
            kept.append(node)
    emit.nodes[:] = kept[::-1]


def _is_constant(emit: Emitter, forward: Graph, name: str) -> bool:
    """Return whether a tensor that no added node makes is constant; weights are not read for it."""
    if name in forward.initializers:
        return name not in forward.overridable
    return emit.value(name) is not None


def _inferred(
    emit: Emitter, forward: Graph, shapes: Mapping[str, tuple[Dim, ...]]
) -> dict[str, TensorType]:
    """Return the types of what the nodes make; weights stay where they are."""
    model = ModelProto(ir_version=forward.model.ir_version)
    model.opset_import.extend(forward.model.opset_import)
    graph = model.graph
    graph.name = "added"
    graph.node.extend(emit.nodes)
    made = {name for node in emit.nodes for name in node.output}
    read = dict.fromkeys(name for node in emit.nodes for name in Graph.reads(node))
    for name in read:
        known = emit.type_of(name)
        if name in made or known is None:
            continue
        if _is_constant(emit, forward, name) and known.shape is not None:
            sizes = [size for size in known.shape if isinstance(size, int)]
            graph.initializer.append(TensorProto(name=name, data_type=known.dtype, dims=sizes))
        else:
            graph.input.append(helper.make_tensor_value_info(name, known.dtype, known.shape))
    for name, shape in shapes.items():
        graph.value_info.append(helper.make_tensor_value_info(name, emit.dtype(name), shape))

    def fetch(tensor: TensorProto) -> Array:
        value = emit.value(tensor.name)
        assert value is not None, "only constants are initializers here"
        return value

    found = infer_types(model, fetch).types
    return {name: kind for name, kind in found.items() if name in made}
