"""Splice the explanation into a copy of the model: nodes, outputs, the class input, metadata.

The original nodes, inputs and outputs stay as and where they are; everything added follows them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnx_gradcam.contract import (
    ACTIVATIONS_OUTPUT,
    GATE_INPUT,
    GRADIENTS_OUTPUT,
    METADATA_PREFIX,
    ExportMetadata,
    is_reserved,
    layer_output,
)
from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.export.graph import FLOATS, Graph
from onnx_gradcam.export.shapes.declarations import mend_declarations
from onnx_gradcam.export.shapes.sizes import is_invented
from onnx_gradcam.export.target_layer import Layer
from onnx_gradcam.gradients.emitter import TO_THE_END, Dim, Emitter

OVERRIDABLE_SINCE_IR = 4
"""From this IR version on an input may have an initializer as its default value."""


@dataclass(frozen=True)
class ClassInput:
    """How the file takes the class: ``optional`` (default -1), ``required``, or ``fixed:K``."""

    mode: str
    fixed: int | None = None

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        return self.mode

    @classmethod
    def parse(cls, text: str) -> ClassInput:
        """Read ``optional``, ``required`` or ``fixed:K``.

        Raises:
            UsageError: none of these.
        """
        match = re.fullmatch(r"optional|required|fixed:(-?\d+)", text)
        if match is None:
            raise UsageError(f"class input {text!r} is none of optional, required, fixed:K")
        return cls(text, None if match[1] is None else int(match[1]))


@dataclass(frozen=True)
class AddedInput:
    """An input of the explanation; `default` makes it optional."""

    name: str
    dtype: int
    shape: Sequence[Dim]
    default: NDArray[Any] | None = None


@dataclass(frozen=True)
class AddedOutput:
    """An output of the explanation; a node of the emitter produces it."""

    name: str
    dtype: int
    shape: Sequence[Dim]


def refuse_exported(model: ModelProto) -> None:
    """Refuse a model that carries an explanation already, or whose names collide with ours.

    Raises:
        UnsupportedModelError: it does.
    """
    if any(p.key.startswith(METADATA_PREFIX) for p in model.metadata_props):
        raise UnsupportedModelError(
            "the model carries an explanation already; export the original model instead"
        )
    graph = model.graph
    names = {v.name for v in (*graph.input, *graph.output)} | {t.name for t in graph.initializer}
    for node in graph.node:
        names.update(node.output)
        names.add(node.name)
    ours = sorted(n for n in names if is_reserved(n))
    if ours:
        raise UnsupportedModelError(
            f"the model uses the name {ours[0]!r}, which the explanation needs; rename it"
        )


def emit_activations(emit: Emitter, graph: Graph, layer: Layer, index: int = 0) -> str:
    """Emit A, channels first, as the activations output of a target layer, counted from 0.

    Beside a Pad that reads A, onnxruntime's Identity elimination and its Pad fusion get in each
    other's way and the file does not load (seen with 1.23 and 1.32); a Sum of one is left alone.
    """
    readers = {graph.nodes[i].op_type for i in graph.consumers.get(layer.tensor, [])}
    copy = "Sum" if "Pad" in readers else "Identity"
    output = layer_output(ACTIVATIONS_OUTPUT, index)
    return channels_first(emit, layer.tensor, layer, output, copy)


def emit_gradients(
    emit: Emitter, gradient: str, layer: Layer, output: str = GRADIENTS_OUTPUT
) -> str:
    """Emit dL/dA, channels first, as the gradients output or under another name."""
    return channels_first(emit, gradient, layer, output)


def channels_first(
    emit: Emitter, name: str, layer: Layer, output: str | None = None, copy: str = "Identity"
) -> str:
    """Emit a tensor that is laid out as a layer, channels first; tokens on their grid."""
    arrangement = layer.arrangement
    if arrangement.grid:
        return _token_map(emit, name, layer, output)
    perm = arrangement.channels_first()
    if perm == sorted(perm):
        return emit.node(copy, [name], output=output)
    return emit.node("Transpose", [name], output=output, perm=perm)


def _token_map(emit: Emitter, name: str, layer: Layer, output: str | None) -> str:
    """Lay tokens out on their grid; rows without a place (class tokens) are left out."""
    arrangement = layer.arrangement
    channels = layer.shape[arrangement.channel]
    assert isinstance(channels, int), "FeatureMaps takes tokens of known sizes alone"
    batch = -1 if arrangement.layout.startswith("B") else 0  # 0: the size as it is, even if none
    with emit.scope("tokens"):
        rows = emit.transpose(name, arrangement.channels_last())
        if len(layer.shape) != 3 or batch:
            count = -1 if arrangement.source else arrangement.rows
            rows = emit.reshape(rows, [batch, count, channels])
        first, behind = arrangement.order[0], arrangement.rows - arrangement.order[-1] - 1
        if not arrangement.is_contiguous:
            rows = emit.node("Gather", [rows, emit.ints(arrangement.order)], axis=1)
        elif arrangement.has_other_rows:
            rows = emit.slice(rows, [first], [-behind or TO_THE_END], [1])
        columns = emit.transpose(rows, [0, 2, 1])
        sizes = emit.ints([0, channels, *arrangement.grid])
        if arrangement.source:
            measured = emit.node("Shape", [arrangement.source])
            spatial = emit.node("Gather", [measured, emit.ints(arrangement.source_axes)], axis=0)
            sizes = emit.concat([emit.ints([0, channels]), spatial], 0)
        return emit.node("Reshape", [columns, sizes], output=output)


def attach(
    graph: Graph,
    emit: Emitter,
    inputs: Sequence[AddedInput],
    outputs: Sequence[AddedOutput],
    metadata: ExportMetadata,
) -> tuple[ModelProto, list[str]]:
    """Return a copy of the model with the explanation, and warnings.

    Args:
        graph: the model.
        emit: holds the added nodes; those that no output needs are left out.
        inputs: what the explanation takes.
        outputs: what it gives.
        metadata: written into ``metadata_props``.

    Raises:
        UnsupportedModelError: the model has a tensor that is called like an added one.
    """
    taken = sorted(graph.names & ({i.name for i in inputs} | {o.name for o in outputs}))
    if taken:
        raise UnsupportedModelError(
            f"the model uses the name {taken[0]!r}, which the explanation needs; rename it"
        )
    model = ModelProto()
    model.CopyFrom(graph.original)
    warnings = mend_declarations(model, graph)
    optional = any(given.default is not None for given in inputs)
    if optional and model.ir_version < OVERRIDABLE_SINCE_IR:
        warnings.append(_raise_ir(model, {given.name for given in inputs}))
    names = [output.name for output in outputs]
    nodes = _live_nodes(_without_copies(emit.nodes, names), names)
    read = {name for node in nodes for name in Graph.reads(node)}
    constants = [t for t in emit.initializers if t.name in read]
    if model.ir_version < OVERRIDABLE_SINCE_IR:  # there every initializer must be an input
        for tensor in constants:
            model.graph.node.extend(constant_nodes(tensor, graph.opset()))
    else:
        model.graph.initializer.extend(constants)
    model.graph.node.extend(nodes)
    _declare_shapes(model, nodes, emit, {output.name for output in outputs})
    declare_captured(model, nodes, graph)
    for given in inputs:
        model.graph.input.append(_value_info(given.name, given.dtype, given.shape))
        if given.default is not None:
            model.graph.initializer.append(numpy_helper.from_array(given.default, given.name))
    model.graph.output.extend(_value_info(o.name, o.dtype, o.shape) for o in outputs)
    props = {p.key: p.value for p in model.metadata_props} | metadata.to_props()
    del model.metadata_props[:]
    helper.set_model_props(model, props)
    return model, warnings


def without_explanation(model: ModelProto) -> ModelProto:
    """Return the model as it was before `attach`; itself where nothing is attached."""
    if not any(is_reserved(output.name) for output in model.graph.output):
        return model
    former = ModelProto()
    former.CopyFrom(model)
    graph = former.graph
    made = {o for node in graph.node if is_added_node(node) for o in node.output}
    for values in (graph.input, graph.output, graph.initializer):
        kept = [v for v in values if not is_reserved(v.name) and v.name not in made]
        del values[:]
        values.extend(kept)
    nodes = [node for node in graph.node if not is_added_node(node)]
    del graph.node[:]
    graph.node.extend(nodes)
    return former


def is_added_node(node: NodeProto) -> bool:
    """Return whether `attach` has added a node."""
    return is_reserved(node.name) or all(map(is_reserved, node.output))


def output_shape(graph: Graph, layer: Layer, image: str) -> list[Dim]:
    """Return the shape of A as an output; a batch size without a name is that of the image."""
    batch, *rest = layer.channels_first
    image_shape = graph.shape(image)
    if is_invented(batch) and image_shape:
        batch = image_shape[0]
    return [None if is_invented(size) else size for size in (batch, *rest)]


def _raise_ir(model: ModelProto, added: Collection[str]) -> str:
    """Raise IR 3 to 4, the first in which an input can be optional; weights stop being inputs."""
    former, model.ir_version = model.ir_version, OVERRIDABLE_SINCE_IR
    weights = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    keeps = "required" if GATE_INPUT in added else "required or fixed:K"
    return (
        f"IR version raised from {former} to {OVERRIDABLE_SINCE_IR}: before that"
        f" an added input cannot be optional; --class-input {keeps} keeps the version"
    )


def _without_copies(nodes: list[NodeProto], outputs: Collection[str]) -> list[NodeProto]:
    """Return the nodes; what is made only to be copied into an output gets the output's name."""
    made = {name for node in nodes for name in node.output}
    reads = Counter(name for node in nodes for name in Graph.reads(node))
    names = {
        node.input[0]: node.output[0]
        for node in nodes
        if node.op_type == "Identity" and node.output[0] in outputs
        if node.input[0] in made and node.input[0] not in outputs and reads[node.input[0]] == 1
    }
    kept = [n for n in nodes if n.op_type != "Identity" or n.input[0] not in names]
    for node in kept:
        node.output[:] = [names.get(name, name) for name in node.output]
    return kept


def _live_nodes(nodes: list[NodeProto], outputs: Collection[str]) -> list[NodeProto]:
    """Return the nodes that the added outputs need, in order."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if any(o in needed for o in node.output):
            needed.update(Graph.reads(node))
            kept.append(node)
    return kept[::-1]


def _declare_shapes(
    model: ModelProto, nodes: list[NodeProto], emit: Emitter, outputs: Collection[str]
) -> None:
    """Declare the shapes of added tensors: onnxruntime infers less, and fuses what it knows."""
    for name in (o for node in nodes for o in node.output if o and o not in outputs):
        known = emit.type_of(name)
        if known is None or known.dtype not in FLOATS or not known.shape:
            continue
        shape = [None if is_invented(size) else size for size in known.shape]
        if any(size is not None for size in shape):
            model.graph.value_info.append(_value_info(name, known.dtype, shape))


def declare_captured(model: ModelProto, nodes: list[NodeProto], graph: Graph) -> None:
    """Declare sizes that a sub-graph reads from outside: inference there knows no values.

    Without it, Resize in a sub-graph does not know how many sizes it gets.
    """
    declared = {value.name: value for value in model.graph.value_info}
    captured = {n for node in nodes for n in Graph.reads(node)[sum(map(bool, node.input)) :]}
    for name in sorted(captured):
        known = graph.type_of(name)
        if known is None or known.dtype != TensorProto.INT64 or known.shape is None:
            continue
        if name in graph.producer and all(isinstance(size, int) for size in known.shape):
            value = declared.get(name) or model.graph.value_info.add()
            value.CopyFrom(_value_info(name, known.dtype, known.shape))


def constant_nodes(tensor: TensorProto, opset: int) -> list[NodeProto]:
    """Return what computes a constant; before opset 9 Constant holds floats alone."""
    name = tensor.name
    if opset >= 9 or tensor.data_type in FLOATS:
        return [helper.make_node("Constant", [], [name], name=name, value=tensor)]
    double = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64))
    made = f"{name}/double"
    return [
        helper.make_node("Constant", [], [made], name=made, value=double),
        helper.make_node("Cast", [made], [name], name=name, to=tensor.data_type),
    ]


def _value_info(name: str, dtype: int, shape: Sequence[Dim]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)
