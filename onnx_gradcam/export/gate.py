"""The explanation behind a switch: its nodes as a branch of an If, which `cam_explain` chooses.

    before   scores ▶ seed ▶ gradient ▶ cam_gradients
    after    cam_explain ▶ If { then: seed ▶ gradient ▶ ...; else: no images } ▶ cam_gradients

In: a model with its explanation attached. Out: the same with one If in place of the added nodes.
`without_gate` is the way back. All added nodes go inside, those that compute weights from weights
as well: onnxruntime folds constants in a branch as it does outside, and only weights that lie in
the branch get the layout that its convolutions are fastest with (measured).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from onnx_gradcam.contract import GATE_INPUT, PREFIX
from onnx_gradcam.export.attach import (
    OVERRIDABLE_SINCE_IR,
    AddedInput,
    ClassInput,
    constant_nodes,
    declare_captured,
    is_added_node,
)
from onnx_gradcam.export.graph import Graph

EXPLAINED_IMAGES = "cam_explained_images"
"""Symbolic size of the first axis of added outputs: N, or 0 with the gate closed."""

NAME = f"{PREFIX}gate"
_INSIDE = f"{PREFIX}explained/"
"""Start of names inside where they must differ from those outside."""

_NONE = f"{PREFIX}unexplained/"
"""Start of names where nothing is explained."""

SHAPES_DIFFER_SINCE_OPSET = 11
"""Before that, branches of an If must not give different shapes where these are known."""

_SIZES = frozenset({TensorProto.INT64, TensorProto.INT32})
_LARGEST = 64
"""Larger constants are indices or tables, whose values inference does not ask for."""


def gate_input(class_input: ClassInput) -> AddedInput:
    """Return the input that opens the gate; open by default, required where the class is."""
    default = None if class_input.mode == "required" else np.array([True])
    return AddedInput(GATE_INPUT, TensorProto.BOOL, [1], default)


def add_gate(model: ModelProto, graph: Graph, outputs: Sequence[str]) -> None:
    """Put the explanation of an exported model behind a gate.

    Args:
        model: the model with its explanation, and with `GATE_INPUT` among its inputs; it is
            changed.
        graph: the model without, expanded.
        outputs: names of the outputs that the explanation added.
    """
    field = model.graph.node
    indices = [index for index, node in enumerate(field) if is_added_node(node)]
    added = [_copy(field[index]) for index in indices]
    for index in reversed(indices):
        del field[index]
    declared = {value.name: value for value in model.graph.output}
    given = [declared[name] for name in outputs]
    switch = helper.make_node(
        "If",
        [GATE_INPUT],
        outputs,
        NAME,
        then_branch=_then(model, graph, added, given),
        else_branch=_else(given, graph.opset()),
    )
    for value in given:
        size = value.type.tensor_type.shape.dim[0]
        size.Clear()
        size.dim_param = EXPLAINED_IMAGES
    field.append(switch)
    declare_captured(model, [switch], graph)


def without_gate(model: ModelProto) -> ModelProto:
    """Return a copy of a gated model with the gate open for good; itself where there is no gate."""
    switch = next((node for node in model.graph.node if node.name == NAME), None)
    if switch is None:
        return model
    opened = ModelProto()
    opened.CopyFrom(model)
    graph = opened.graph
    then = next(a.g for a in switch.attribute if a.name == "then_branch")
    names = {o.name: name for o, name in zip(then.output, switch.output, strict=True)}
    inside = [_renamed(node, names) for node in then.node]
    _replace(graph.node, [n for m in graph.node for n in (inside if m.name == NAME else [m])])
    graph.initializer.extend(then.initializer)
    graph.value_info.extend(then.value_info)
    for field in (graph.initializer, graph.input):
        for index in [i for i, value in enumerate(field) if value.name == GATE_INPUT]:
            del field[index]
    return opened


def _then(
    model: ModelProto, graph: Graph, added: Sequence[NodeProto], given: Sequence[ValueInfoProto]
) -> GraphProto:
    """Return the branch that explains; the constants of the explanation move into it."""
    names = {value.name: _INSIDE + value.name for value in given}
    constants = _moved(model.graph.initializer)
    declared = _moved(model.graph.value_info)
    inner = {tensor.name for tensor in constants}.union(*(node.output for node in added))
    for name in sorted({name for node in added for name in Graph.reads(node)} - inner):
        value = _size(graph, name)
        if value is not None:
            names[name] = _INSIDE + name
            constants.append(numpy_helper.from_array(value, names[name]))
    nodes = [_renamed(node, names) for node in added]
    results = [
        helper.make_tensor_value_info(names[v.name], v.type.tensor_type.elem_type, None)
        for v in given
    ]
    if model.ir_version < OVERRIDABLE_SINCE_IR:  # there every initializer must be an input
        nodes[:0] = [n for tensor in constants for n in constant_nodes(tensor, graph.opset())]
        constants = []
    name = f"{_INSIDE}yes"
    return helper.make_graph(nodes, name, [], results, constants, value_info=declared)


def _moved(field: Any) -> list[Any]:
    """Take what belongs to the explanation out of a field of a graph; weights are not touched."""
    moved = []
    for index in reversed(range(len(field))):
        if field[index].name.startswith(PREFIX):
            moved.append(_copy(field[index]))
            del field[index]
    return moved[::-1]


def _size(graph: Graph, name: str) -> Any:
    """Return the value of sizes and indices from outside: inference in a branch must know them."""
    known = graph.type_of(name)
    value = graph.constant(name) if known is not None and known.dtype in _SIZES else None
    return value if value is not None and value.size <= _LARGEST else None


def _else(given: Sequence[ValueInfoProto], opset: int) -> GraphProto:
    """Return the branch that does not explain: outputs of the same types for no images."""
    nodes: list[NodeProto] = []
    results = []
    for value in given:
        kind = value.type.tensor_type
        sizes = [0, *(dim.dim_value for dim in list(kind.shape.dim)[1:])]
        name = f"{_NONE}{value.name}"
        empty = helper.make_tensor(name, kind.elem_type, sizes, [])
        if opset < SHAPES_DIFFER_SINCE_OPSET:
            nodes += _of_open_shape(empty, opset)
        else:
            nodes += constant_nodes(empty, opset)
        results.append(helper.make_tensor_value_info(name, kind.elem_type, None))
    return helper.make_graph(nodes, f"{_NONE}no", [], results)


def _of_open_shape(empty: TensorProto, opset: int) -> list[NodeProto]:
    """Return what gives an empty tensor of a shape that inference cannot tell: tiled by 1 + 0.

    The 0 is the closed gate.
    """
    name = empty.name
    value, ones, zero, tiles = (f"{name}/{part}" for part in ("value", "ones", "zero", "tiles"))
    constant = TensorProto()
    constant.CopyFrom(empty)
    constant.name = value
    return [
        *constant_nodes(constant, opset),
        *constant_nodes(numpy_helper.from_array(np.ones(len(empty.dims), np.int64), ones), opset),
        helper.make_node("Cast", [GATE_INPUT], [zero], zero, to=TensorProto.INT64),
        helper.make_node("Add", [ones, zero], [tiles], tiles),
        helper.make_node("Tile", [value, tiles], [name], name),
    ]


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """Return a copy of a node that calls some tensors otherwise, in its sub-graphs too."""
    copy: NodeProto = _copy(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    for graph in _graphs(copy):
        _replace(graph.node, [_renamed(inner, names) for inner in graph.node])
    return copy


def _graphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _replace(field: Any, values: Sequence[Any]) -> None:
    copies = [_copy(value) for value in values]
    del field[:]
    field.extend(copies)
