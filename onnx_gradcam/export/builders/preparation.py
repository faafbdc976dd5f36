"""The tail as onnxruntime-training can differentiate it.

In: the tail as cut from the model, of any opset from 7 on. Out: a copy in an opset of 13 to 21
and IR 10 at most, in which the operators that the builder lacks, or gets wrong, are written in
others (`rules`). Tensors keep their names; new ones start with the name of an output of the node
that they replace. The values of the tail are the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import ModelProto, NodeProto, TensorProto, helper

from onnx_gradcam.export.builders.opsets import to_builder_opset
from onnx_gradcam.export.builders.rules import (
    activations,
    arithmetic,
    einsum,
    layout,
    normalization,
    reduction,
)
from onnx_gradcam.export.builders.rules.site import Rule, Site
from onnx_gradcam.export.builders.training_graph import NEWEST_IR
from onnx_gradcam.export.graph import Graph

_OLDEST_IR = 8
"""The first whose initializers need not be graph inputs is 4; nothing depends on the others."""


def _merged(tables: Sequence[Mapping[str, Rule]]) -> dict[str, Rule]:
    merged: dict[str, Rule] = {}
    for table in tables:
        twice = merged.keys() & table.keys()
        if twice:
            raise RuntimeError(f"two rules for {', '.join(sorted(twice))}")
        merged.update(table)
    return merged


RULES = _merged(
    [
        activations.RULES,
        arithmetic.RULES,
        einsum.RULES,
        layout.RULES,
        normalization.RULES,
        reduction.RULES,
    ]
)
"""One rule for each operator of the default domain that is not left as it is."""


def prepare_tail(tail: ModelProto) -> ModelProto:
    """Return a copy of the tail for onnxruntime-training.

    Args:
        tail: graph inputs are A, the seed and the tensors that by-pass A; one output, the loss.

    Raises:
        GradientGraphError: an operator cannot be converted to an opset that the builder has, or
            the builder would differentiate it wrongly and nothing here replaces it.
    """
    prepared = to_builder_opset(tail, RULES)
    prepared.ir_version = min(max(prepared.ir_version, _OLDEST_IR), NEWEST_IR)
    _drop_listed_initializers(prepared)
    _apply_rules(prepared)
    _read_inputs_once(prepared)
    _make_loss_float(prepared)
    return prepared


def _drop_listed_initializers(model: ModelProto) -> None:
    """Make initializers that are listed as graph inputs, as in IR 3, plain initializers."""
    named = {tensor.name for tensor in model.graph.initializer}
    inputs = [info for info in model.graph.input if info.name not in named]
    del model.graph.input[:]
    model.graph.input.extend(inputs)


def _apply_rules(model: ModelProto) -> None:
    """Replace each node that has a rule."""
    graph = Graph(model)
    carriers = _carriers(graph)
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        rule = RULES.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
        site = Site(graph, node, carriers)
        if rule is None or not rule(site):
            nodes.append(node)
            continue
        nodes += site.nodes
        model.graph.initializer.extend(site.initializers)
    _set_nodes(model, nodes)


def _carriers(graph: Graph) -> frozenset[str]:
    """Return the tensors that a gradient of the outputs flows back to, by float tensors alone."""
    carriers = set(graph.outputs)
    for node in reversed(graph.nodes):
        if any(name in carriers for name in node.output):
            carriers.update(name for name in node.input if name and graph.is_float(name))
    return frozenset(carriers)


def _read_inputs_once(model: ModelProto) -> None:
    """Let no node read a graph input twice; the builder refuses that of A, as in Mul(A, A)."""
    inputs = {info.name for info in model.graph.input}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        seen: set[str] = set()
        for position, name in enumerate(node.input):
            if name in inputs and name in seen:
                copy = f"{node.output[0]}/prepared_copy_{position}"
                nodes.append(helper.make_node("Identity", [name], [copy], name=copy))
                node.input[position] = copy
            seen.add(name)
        nodes.append(node)
    _set_nodes(model, nodes)


def _make_loss_float(model: ModelProto) -> None:
    """Cast a loss of another float type; the builder starts from a gradient of type float."""
    for info in model.graph.output:
        tensor = info.type.tensor_type
        if tensor.elem_type in {TensorProto.FLOAT, TensorProto.UNDEFINED}:
            continue
        narrow = f"{info.name}/prepared_Cast"
        for node in model.graph.node:
            node.output[:] = [narrow if name == info.name else name for name in node.output]
            node.input[:] = [narrow if name == info.name else name for name in node.input]
        cast = helper.make_node("Cast", [narrow], [info.name], name=narrow, to=TensorProto.FLOAT)
        model.graph.node.append(cast)
        tensor.elem_type = TensorProto.FLOAT


def _set_nodes(model: ModelProto, nodes: Sequence[NodeProto]) -> None:
    copies = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del model.graph.node[:]
    model.graph.node.extend(copies)
