"""The table of expansions: operators of other domains, written in operators of the default one.

In: a node, as a `Context`. Out: the names of its results, written in standard operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnx_gradcam.gradients.registry import MICROSOFT, Context

Rule = Callable[[Context], Sequence[str]]
"""One tensor per output of the node, "" where it computes none; trailing ones may be too many."""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        domain: of the operator, ``""`` for the default one.
        op_type: the operator.
        rule: what writes it.
    """

    domain: str
    op_type: str
    rule: Rule


_RULES: dict[tuple[str, str], Rule] = {}


def expansion(*op_types: str, domain: str = MICROSOFT) -> Callable[[Rule], Rule]:
    """Register the decorated rule for operators of a domain."""

    def register(rule: Rule) -> Rule:
        for op_type in op_types:
            if (domain, op_type) in _RULES:
                raise ValueError(f"an expansion of {domain or 'ai.onnx'}::{op_type} exists already")
            _RULES[domain, op_type] = rule
        return rule

    return register


def find_expansion(domain: str, op_type: str) -> Rule | None:
    """Return the rule for an operator, None where there is none."""
    return _RULES.get(("" if domain == "ai.onnx" else domain, op_type))


def expansion_table() -> list[Row]:
    """Return all rows, sorted by domain and operator."""
    return [Row(domain, op, rule) for (domain, op), rule in sorted(_RULES.items())]
