"""Builds the analysis graph: nodes with an expansion replaced, types inferred, until nothing new.

In: a model. Out: a `Graph` of the expanded copy, which knows the original and the nodes to add.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from onnx_gradcam.contract import PREFIX
from onnx_gradcam.export.expansion import rules
from onnx_gradcam.export.expansion.dequantized import in_floats
from onnx_gradcam.export.expansion.local_functions import inlined
from onnx_gradcam.export.expansion.registry import Rule
from onnx_gradcam.export.expansion.splice import rename
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.gradients.emitter import Array, Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError, takes

EXPANDED = f"{PREFIX}expanded/"
"""Start of the names of everything that an expansion adds."""

_ROUNDS = 64
"""Expansions may hold operators to expand, and wait for shapes; so often at most."""

_COPIED = 1024
"""Larger initializers are in the analysis model by name and type alone."""

_OLDEST_IR = 4
"""From here on initializers need not be graph inputs."""


def expand(
    model: ModelProto, tensor_values: Callable[[TensorProto], Array] = numpy_helper.to_array
) -> Graph:
    """Return the analysis graph of a model: its own graph where nothing is to be expanded.

    Args:
        model: the model; it is not changed.
        tensor_values: fetches the values of an initializer, from an external file if need be.

    Returns:
        A graph whose `original` is the model, without local functions; `expansion_nodes` and
        `expansion_initializers` compute the tensors that only the analysis has; `unexpanded`
        says, by first output, why a node stayed.
    """
    model = inlined(model)
    first = graph = Graph(model, tensor_values)
    made: list[TensorProto] = []
    reasons: dict[str, str] = {}
    for _ in range(_ROUNDS):
        nodes, constants, reasons = _replaced(graph)
        if nodes is None:
            break
        made += constants
        graph = _analysis_graph(first, nodes, made, tensor_values)
    emit = Emitter(graph.opset(), graph.types, graph.constant, EXPANDED, list(graph.names))
    if in_floats(graph, emit):
        made += emit.initializers
        graph = _analysis_graph(first, emit.nodes, made, tensor_values)
    graph.original = model
    graph.unexpanded = reasons
    graph.expansion_initializers = made
    graph.expansion_nodes = [
        node
        for node in graph.nodes
        if any(node.output) and not any(name in first.producer for name in node.output)
    ]
    return graph


def extended(graph: Graph, nodes: Sequence[NodeProto]) -> Graph:
    """Return the analysis graph with further nodes behind its own, which the export adds."""
    result = _analysis_graph(graph, [*graph.nodes, *nodes], [], graph.tensor_values)
    result.original = graph.original
    result.unexpanded = graph.unexpanded
    result.expansion_initializers = graph.expansion_initializers
    result.expansion_nodes = [*graph.expansion_nodes, *nodes]
    return result


def with_expansions(graph: Graph, names: Iterable[str]) -> ModelProto:
    """Return the original model with the nodes that compute tensors of the analysis graph.

    Args:
        graph: the analysis graph.
        names: tensors; where the original computes them all, it is returned itself.
    """
    needed = set(names)
    nodes = []
    for node in reversed(graph.expansion_nodes):
        if any(o in needed for o in node.output):
            needed.update(Graph.reads(node))
            nodes.append(node)
    constants = [tensor for tensor in graph.expansion_initializers if tensor.name in needed]
    if not nodes and not constants:
        return graph.original
    model = ModelProto()
    model.CopyFrom(graph.original)
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    model.graph.node.extend(reversed(nodes))
    model.graph.initializer.extend(constants)
    return model


def _replaced(
    graph: Graph,
) -> tuple[list[NodeProto] | None, list[TensorProto], dict[str, str]]:
    """Return all nodes after one round, None when nothing changed; new constants; reasons."""
    found = [_rule_of(graph, node) for node in graph.nodes]
    if not any(found):
        return None, [], {}
    emit = Emitter(graph.opset(), graph.types, graph.constant, EXPANDED, list(graph.names))
    nodes: list[NodeProto] = []
    reasons: dict[str, str] = {}
    changed = False
    for node, rule in zip(graph.nodes, found, strict=True):
        if rule is None:
            nodes.append(node)
            continue
        start = len(emit.nodes)
        try:
            nodes += _expanded(emit, node, rule, graph)
            changed = True
        except FormulaError as error:
            del emit.nodes[start:]
            reasons[first_output(node)] = str(error)
            nodes.append(node)
    return (nodes if changed else None), emit.initializers, reasons


def _rule_of(graph: Graph, node: NodeProto) -> Rule | None:
    opset = graph.opset(node.domain)
    if takes(node, opset):
        return None
    return rules.find_rule(node.domain, node.op_type, opset)


def _expanded(emit: Emitter, node: NodeProto, rule: Rule, graph: Graph) -> Sequence[NodeProto]:
    """Return the nodes that replace a node.

    Raises:
        FormulaError: the rule does not cover the node.
    """
    start = len(emit.nodes)
    context = Context(
        emit,
        node,
        list(node.input),
        list(node.output),
        graph.opset(node.domain),
        producer=graph.producer_of,
    )
    with emit.scope((node.name or first_output(node)).strip("/")):
        results = rule(context)
        names: dict[str, str] = {}
        for index, output in enumerate(node.output):
            if not output:
                continue
            if index >= len(results) or not results[index]:
                raise FormulaError(f"its output {index} is not covered")
            result = results[index]
            if result in names or not _is_only_result(emit.nodes[start:], result):
                result = emit.node("Identity", [result])
            names[result] = output
    new = emit.nodes[start:]
    for made in new:
        rename(made, names)
        if node.name and first_output(node) in made.output:
            made.name = node.name
    return new


def first_output(node: NodeProto) -> str:
    """Return the first output that a node has."""
    return next((str(name) for name in node.output if name), "")


def _is_only_result(nodes: Sequence[NodeProto], name: str) -> bool:
    return any(list(node.output) == [name] for node in nodes)


def _analysis_graph(
    first: Graph,
    nodes: Sequence[NodeProto],
    constants: Sequence[TensorProto],
    tensor_values: Callable[[TensorProto], Array],
) -> Graph:
    """Return the graph of other nodes; large weights stay in the original model alone."""
    model = ModelProto()
    source = first.model
    model.ir_version = max(source.ir_version, _OLDEST_IR)
    model.opset_import.extend(source.opset_import)
    model.functions.extend(source.functions)
    copy = GraphProto(name=source.graph.name)
    copy.node.extend(nodes)
    copy.input.extend(source.graph.input)
    copy.output.extend(source.graph.output)
    copy.value_info.extend(source.graph.value_info)
    initializers = first.initializers | {tensor.name: tensor for tensor in constants}
    copy.initializer.extend(_light(tensor) for tensor in initializers.values())
    model.graph.CopyFrom(copy)
    graph = Graph(model, lambda tensor: tensor_values(initializers.get(tensor.name, tensor)))
    graph.initializers = initializers
    return graph


def _light(tensor: TensorProto) -> TensorProto:
    if math.prod(tensor.dims) <= _COPIED:
        return tensor
    return TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
