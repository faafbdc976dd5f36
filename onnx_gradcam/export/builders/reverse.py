"""The built-in gradient builder: one reversed walk over the tail.

In: the tail and the seed dL/d(score). Out: the name of dL/dA for each target A; nodes go to the
emitter.
"""

from __future__ import annotations

from onnx import NodeProto

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.graph import Graph, describe
from onnx_gradcam.export.tail import Tail, listed, refuse_missing_formulas
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.quantization import folded_gradient, readable_outputs
from onnx_gradcam.gradients.registry import ZERO, Context, FormulaError, find_gradient


def build_reverse(graph: Graph, tail: Tail, emit: Emitter, seed: str) -> str:
    """Emit dL/dA of the first target of a tail; see `reverse_gradients`."""
    return reverse_gradients(graph, tail, emit, seed)[0]


def reverse_gradients(graph: Graph, tail: Tail, emit: Emitter, seed: str) -> list[str]:
    """Emit dL/dA for each target A, by one reverse-mode differentiation of the tail.

    Args:
        graph: the forward model.
        tail: its part from the targets to the score.
        emit: where to write nodes.
        seed: dL/d(score), in the shape of the score.

    Returns:
        The name of dL/dA for each target, in the shape of A.

    Raises:
        UnsupportedModelError: operators without a formula, or used in a way it does not cover;
            all of them are named.
    """
    refuse_missing_formulas(graph, tail)
    gradients: dict[str, list[str]] = {tail.score: [seed]}
    totals: dict[str, str | None] = {}
    problems: list[str] = []

    def total(name: str) -> str | None:
        """Return what has flowed back to a tensor, once all its readers have been passed."""
        totals[name] = _total(emit, gradients.pop(name, []))
        return totals[name]

    for node in reversed(tail.nodes):
        incoming = [total(o) for o in node.output]
        if all(g is None for g in incoming):
            continue
        try:
            _propagate(graph, tail, emit, node, incoming, gradients)
        except FormulaError as error:
            problems.append(f"{describe(node, graph.opset(node.domain))}: {error}")
            _pretend(tail, node, gradients, seed)
    if problems:
        raise UnsupportedModelError(
            f"no gradient for {listed(problems)}, {tail}; choose a later layer with --layer"
        )
    found = [totals[name] if name in totals else total(name) for name in tail.targets]
    dead = [name for name, one in zip(tail.targets, found, strict=True) if one is None]
    if dead:
        raise UnsupportedModelError(
            f"the gradient of {tail.score!r} with respect to {dead[0]!r} is zero everywhere:"
            " no differentiable path joins them; choose another layer with --layer"
        )
    return [one for one in found if one is not None]


def _propagate(
    graph: Graph,
    tail: Tail,
    emit: Emitter,
    node: NodeProto,
    incoming: list[str | None],
    gradients: dict[str, list[str]],
) -> None:
    opset = graph.opset(node.domain)
    formula = find_gradient(node.domain, node.op_type, opset)
    assert formula is not None, "refuse_missing_formulas has looked"
    context = Context(
        emit,
        node,
        list(node.input),
        list(node.output),
        opset,
        output_gradients=incoming,
        wanted=[name in tail.tensors for name in node.input],
        producer=graph.producer_of,
        readers=graph.readers_of,
        is_output=lambda name: name in graph.outputs,
    )
    context.outputs = readable_outputs(context)
    with emit.scope(f"gradient/{node.name or node.output[0]}".strip("/")):
        folded = folded_gradient(context)
        results = formula(context) if folded is None else [folded]
    for index, (name, wanted) in enumerate(zip(node.input, context.wanted, strict=True)):
        if not wanted:
            continue
        result = results[index] if index < len(results) else None
        if result is None:
            raise FormulaError(f"no formula for the gradient of its input {index}")
        if result != ZERO:
            gradients.setdefault(name, []).append(result)


def _pretend(tail: Tail, node: NodeProto, gradients: dict[str, list[str]], stand_in: str) -> None:
    """Go on behind a node without a gradient, so that all problems are reported at once."""
    for name in node.input:
        if name in tail.tensors:
            gradients.setdefault(name, []).append(stand_in)


def _total(emit: Emitter, parts: list[str]) -> str | None:
    if not parts:
        return None
    with emit.scope("gradient/accumulate"):
        return emit.sum(parts)
