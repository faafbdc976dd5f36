"""Write a gradient graph of onnxruntime-training in standard operators of the model's opset.

In: the prepared tail, the gradient graph that was built from it, and the name of the seed.
Out: the name of dL/dA for each target A; nodes go to the emitter. Forward tensors that the original
model has are used where they are; those that only the prepared tail has are computed again on
demand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from onnx import ModelProto, NodeProto, numpy_helper

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.builders.standard_nodes import rewrite_standard_node
from onnx_gradcam.export.graph import Graph, describe
from onnx_gradcam.export.tail import Tail, listed
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError, find_lowering

_GRADIENT_NAME = re.compile(r"(?P<tensor>.+)_grad(_\d+)?")


@dataclass
class _Lowering:
    """State of one translation; `names` maps tensors of the gradient graph to emitted ones."""

    graph: Graph
    prepared: Graph
    built: Graph
    emit: Emitter
    names: dict[str, str] = field(default_factory=dict)

    def resolve(self, name: str) -> str:
        """Return the emitted name of a tensor of the gradient graph."""
        if not name:
            return ""
        if name in self.names:
            return self.names[name]
        if name in self.graph.names:
            return name
        if name in self.built.initializers:
            value = numpy_helper.to_array(self.built.initializers[name])
            self.names[name] = self.emit.constant(value)
        elif name in self.prepared.producer:
            self._compute_again(self.prepared.nodes[self.prepared.producer[name]])
        return self.names.get(name, name)

    def _compute_again(self, node: NodeProto) -> None:
        """Emit a forward node that only the prepared tail has."""
        inputs = [self.resolve(name) for name in node.input]
        context = Context(
            self.emit, node, inputs, list(node.output), self.prepared.opset(node.domain)
        )
        with self.emit.scope(f"gradient/forward/{node.output[0]}"):
            results = rewrite_standard_node(context)
        for output, result in zip(node.output, results, strict=True):
            known = self.prepared.type_of(output)
            if known is not None:
                self.emit.declare(result, known.dtype, known.shape)
            self.names[output] = result

    def is_forward(self, node: NodeProto) -> bool:
        """Return whether a node of the gradient graph computes forward tensors."""
        return any(o in self.prepared.producer for o in node.output if o)

    def translate(self, node: NodeProto) -> None:
        """Emit one gradient node.

        Raises:
            FormulaError: nothing here covers it.
        """
        inputs = [self.resolve(name) for name in node.input]
        match = _GRADIENT_NAME.fullmatch(next((o for o in node.output if o), ""))
        context = Context(
            self.emit,
            node,
            inputs,
            list(node.output),
            self.prepared.opset(),
            forward_node=self._forward_node,
            producer=self._producer,
            differentiated=self.resolve(match["tensor"]) if match else "",
        )
        formula = find_lowering(node.domain, node.op_type)
        with self.emit.scope(f"gradient/{node.name or node.output[0]}"):
            results = (formula or rewrite_standard_node)(context)
        for output, result in zip(node.output, results, strict=False):
            if output:
                self._declare(output, result)
                self.names[output] = result

    def _declare(self, output: str, result: str) -> None:
        """Record that the gradient of a tensor has the type of that tensor."""
        match = _GRADIENT_NAME.fullmatch(output)
        if match is None or result in self.graph.names:
            return
        known = self.prepared.type_of(match["tensor"])
        if known is not None:
            self.emit.declare(result, known.dtype, known.shape)

    def _forward_node(self, op_type: str, tensor: str) -> NodeProto | None:
        for node in self.prepared.nodes:
            if node.op_type == op_type and self.names.get(node.input[0], node.input[0]) == tensor:
                return self._resolved(node)
        return None

    def _producer(self, tensor: str) -> NodeProto | None:
        index = self.built.producer.get(tensor)
        return None if index is None else self._resolved(self.built.nodes[index])

    def _resolved(self, node: NodeProto) -> NodeProto:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self.resolve(n) for n in node.input]
        copy.output[:] = [
            self.resolve(n) if n in self.prepared.producer else n for n in node.output
        ]
        return copy


def lower(
    graph: Graph, tail: Tail, prepared: ModelProto, built: ModelProto, emit: Emitter, seed: str
) -> list[str]:
    """Emit the gradient graph in standard operators.

    Args:
        graph: the original model.
        tail: its part from the targets to the score.
        prepared: the tail as it was handed to onnxruntime-training.
        built: the gradient graph that came back.
        emit: where to write nodes.
        seed: dL/d(score), in the shape of the score.

    Returns:
        The name of dL/dA for each target, in the shape of A.

    Raises:
        UnsupportedModelError: operators that nothing here lowers; all of them are named.
    """
    state = _Lowering(graph, Graph(prepared), Graph(built), emit)
    state.names[f"{tail.score}_grad"] = seed
    problems: list[str] = []
    needed = _needed_nodes(state, [f"{name}_grad" for name in tail.targets])
    for index in needed:
        node = state.built.nodes[index]
        try:
            state.translate(node)
        except FormulaError as error:
            problems.append(f"{describe(node, 1 if node.domain else graph.opset())}: {error}")
    if problems:
        raise UnsupportedModelError(
            f"onnxruntime-training's gradient cannot be lowered: {listed(problems)}"
        )
    lost = [name for name in tail.targets if f"{name}_grad" not in state.names]
    if lost:
        raise UnsupportedModelError(
            f"onnxruntime-training built no gradient of {tail.score!r} by {lost[0]!r}"
        )
    return [state.names[f"{name}_grad"] for name in tail.targets]


def _needed_nodes(state: _Lowering, names: Sequence[str]) -> list[int]:
    """Return the gradient nodes that some gradients need, in topological order."""
    needed: set[int] = set()
    wanted = list(names)
    while wanted:
        name = wanted.pop()
        index = state.built.producer.get(name)
        if index is None or index in needed or name in state.names:
            continue
        node = state.built.nodes[index]
        if state.is_forward(node):
            continue
        needed.add(index)
        wanted.extend(node.input)
    return sorted(needed)
