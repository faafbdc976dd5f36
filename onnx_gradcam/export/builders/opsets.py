"""A tail raised or lowered to an opset that onnxruntime-training differentiates.

Each node whose operator changed in between goes through onnx's version converter by itself. So
all tensors keep their names, which the converter gives new ones to as it likes, and an error
names the node.
"""

from __future__ import annotations

from collections.abc import Collection

from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    defs,
    helper,
    numpy_helper,
    version_converter,
)

from onnx_gradcam.export.builders.training_graph import OPSETS, GradientGraphError
from onnx_gradcam.export.graph import Graph, describe

_DEFAULT = frozenset({"", "ai.onnx"})

_CHANGED_MEANING = {"Hardmax": 13, "LogSoftmax": 13, "Softmax": 13}
"""Operators that came to mean something else in the same form: over one axis, not all from it."""


def to_builder_opset(model: ModelProto, known: Collection[str]) -> ModelProto:
    """Return a copy of a model in the nearest opset of 13 to 21.

    Args:
        model: the tail, of any opset from 7 on.
        known: operators to let pass even if the opset does not have them yet; a rule replaces
            them.

    Raises:
        GradientGraphError: an operator cannot be converted; all of them are named.
    """
    graph = Graph(model)
    source = graph.opset()
    goal = min(max(source, OPSETS.start), OPSETS.stop - 1)
    converted = ModelProto()
    converted.CopyFrom(model)
    imported = [o for o in model.opset_import if o.domain not in _DEFAULT]
    del converted.opset_import[:]
    converted.opset_import.extend([helper.make_opsetid("", goal), *imported])
    if goal == source:
        return converted
    del converted.graph.node[:]
    problems = []
    for node in model.graph.node:
        if node.domain not in _DEFAULT or _is_same(node.op_type, source, goal):
            converted.graph.node.append(node)
            continue
        if node.op_type in known and _since(node.op_type, goal) is None:
            converted.graph.node.append(node)
            continue
        try:
            nodes, initializers = _convert(graph, node, source, goal)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            problems.append(f"{describe(node, source)}: {reason}")
            continue
        converted.graph.node.extend(nodes)
        converted.graph.initializer.extend(initializers)
    if problems:
        raise GradientGraphError(
            f"onnxruntime-training needs opset {OPSETS.start} to {OPSETS.stop - 1}, and the tail"
            f" cannot be converted from {source} to {goal}: {'; '.join(problems[:5])}"
        )
    return converted


def _since(op_type: str, opset: int) -> int | None:
    """Return the version of an operator in an opset, None when it has none (any more)."""
    try:
        schema = defs.get_schema(op_type, opset, "")
    except defs.SchemaError:
        return None
    return None if schema.deprecated else schema.since_version


def _is_same(op_type: str, source: int, goal: int) -> bool:
    """Return whether a node means the same in both opsets as it stands.

    Later versions of an operator with the same inputs, outputs and attributes take more types,
    but for those whose meaning changed.
    """
    versions = _since(op_type, source), _since(op_type, goal)
    if None in versions or source < _CHANGED_MEANING.get(op_type, 0) <= goal:
        return False
    forms = [_form(defs.get_schema(op_type, opset, "")) for opset in (source, goal)]
    return forms[0] == forms[1]


def _form(schema: defs.OpSchema) -> tuple[list[str], list[str], list[str]]:
    inputs = [parameter.name for parameter in schema.inputs]
    return inputs, [parameter.name for parameter in schema.outputs], sorted(schema.attributes)


def _convert(
    graph: Graph, node: NodeProto, source: int, goal: int
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return what a node becomes, with its own inputs and outputs by name.

    Raises:
        ValueError: it has a sub-graph.
    """
    if any(a.HasField("g") or a.graphs for a in node.attribute):
        raise ValueError("it has a sub-graph")
    read = list(dict.fromkeys(name for name in node.input if name))
    made = [name for name in node.output if name]
    constants = {name: value for name in read if (value := graph.constant(name)) is not None}
    single = helper.make_model(
        helper.make_graph(
            [node],
            "node",
            [_value_info(graph, name) for name in read if name not in constants],
            [_value_info(graph, name) for name in made],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", source)],
        ir_version=8,
    )
    result = version_converter.convert_version(single, goal).graph
    names = {info.name: name for info, name in zip(result.output, made, strict=True)}
    names |= {name: name for name in ("", *read)}
    for inner in result.node:
        for name in inner.output:
            names.setdefault(name, f"{made[0]}/prepared_{len(names)}")
    added = [tensor for tensor in result.initializer if tensor.name not in read]
    for tensor in added:
        names[tensor.name] = f"{made[0]}/prepared_{len(names)}"
        tensor.name = names[tensor.name]
    for inner in result.node:
        inner.input[:] = [names[name] for name in inner.input]
        inner.output[:] = [names[name] for name in inner.output]
        inner.name = inner.output[0]
    return list(result.node), added


def _value_info(graph: Graph, name: str) -> ValueInfoProto:
    known = graph.type_of(name)
    if known is None:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_tensor_value_info(name, known.dtype, known.shape)
