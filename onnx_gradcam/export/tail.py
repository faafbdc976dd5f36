"""The tail: the nodes between the target layers and the score, which the gradient runs through.

In: the graph, the layers and the score. Out: `Tail`, and an error that names every operator in it
that nobody can differentiate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.graph import Graph, describe
from onnx_gradcam.gradients.registry import find_gradient

_SHOWN = 5
"""So many problems of one kind are written out; the others are counted."""


@dataclass(frozen=True)
class Tail:
    """The sub-graph from the targets to the score.

    Attributes:
        targets: the tensors that the score is differentiated by; some may depend on others.
        score: the score tensor.
        nodes: its nodes in topological order.
        tensors: the tensors on differentiable paths from a target to the score, both included.
    """

    targets: tuple[str, ...]
    score: str
    nodes: tuple[NodeProto, ...]
    tensors: frozenset[str]

    @property
    def target(self) -> str:
        """The first target."""
        return self.targets[0]

    @property
    def roots(self) -> tuple[str, ...]:
        """The targets that depend on no other one."""
        made = {name for node in self.nodes for name in node.output}
        return tuple(name for name in self.targets if name not in made)

    def __str__(self) -> str:
        """Return where it lies, for messages: ``between 'A' and 'y'``."""
        return f"between {listed([repr(name) for name in self.roots], ', ')} and {self.score!r}"


def cut_tail(graph: Graph, targets: str | Sequence[str], score: str) -> Tail:
    """Return the nodes on differentiable paths from one or several targets to `score`."""
    targets = (targets,) if isinstance(targets, str) else tuple(targets)
    tensors = graph.depends_on(targets) & graph.leads_to(score)
    nodes = tuple(
        node
        for node in graph.nodes
        if any(o in tensors for o in node.output)
        and any(name in tensors for name in graph.reads(node))
    )
    return Tail(targets, score, nodes, frozenset(tensors))


def missing_formulas(graph: Graph, tail: Tail) -> list[NodeProto]:
    """Return the nodes of the tail whose operator has no gradient formula here."""
    return [
        node
        for node in tail.nodes
        if find_gradient(node.domain, node.op_type, graph.opset(node.domain)) is None
    ]


def refuse_missing_formulas(graph: Graph, tail: Tail) -> None:
    """Refuse a tail that holds operators without a formula.

    Raises:
        UnsupportedModelError: naming all of them.
    """
    missing = missing_formulas(graph, tail)
    if missing:
        operators = listed(_described(graph, missing), ", ")
        raise UnsupportedModelError(
            f"no gradient formula for {operators}, {tail}; choose a later layer with --layer, or"
            " add a formula: docs/add-an-operator.md"
        )


def _described(graph: Graph, nodes: list[NodeProto]) -> list[str]:
    """Return the operators, and why the expansion that exists for one does not cover it."""
    described, said = [], set()
    for node in nodes:
        text = describe(node, graph.opset(node.domain))
        reason = next((graph.unexpanded[o] for o in node.output if o in graph.unexpanded), "")
        described.append(f"{text}: {reason}" if reason and reason not in said else text)
        said.add(reason)
    return described


def listed(problems: list[str], separator: str = "; ") -> str:
    """Return the first problems in one line, and how many more there are."""
    shown = separator.join(problems[:_SHOWN])
    return shown + (f" and {len(problems) - _SHOWN} more" if problems[_SHOWN:] else "")
