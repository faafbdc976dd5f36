"""Einsum of one or two tensors in Transpose, ReduceSum, MatMul, Mul."""

from __future__ import annotations

import re

from onnx_gradcam.export.builders.rules.site import Rule, Site

_EQUATION = re.compile(r"([a-zA-Z]*)(?:,([a-zA-Z]*))?->([a-zA-Z]*)")


def einsum(at: Site) -> bool:
    """Einsum("bik,bkj->bij") -> MatMul of the tensors, transposed; or Mul and ReduceSum.

    Equations with ellipses, repeated labels in a term, or no result are left as they are.
    """
    equation = re.sub(r"\s", "", at.attribute("equation", ""))
    match = _EQUATION.fullmatch(equation)
    if match is None:
        return False
    left, right, result = match[1], match[2], match[3]
    terms = [term for term in (left, right, result) if term is not None]
    if any(len(set(term)) < len(term) for term in terms):
        return False
    if len(at.node.input) != len(terms) - 1 or not set(result) <= set(left + (right or "")):
        return False
    if right is None:
        value, labels = _summed(at, at.x, left, keep=set(result))
        _arranged(at, value, labels, result, into=at.y)
    else:
        _product(at, left, right, result)
    return True


def _product(at: Site, left: str, right: str, result: str) -> None:
    first, left = _summed(at, at.x, left, keep=set(right + result))
    second, right = _summed(at, at.input(1), right, keep=set(left + result))
    shared = [label for label in left if label in right]
    batch = "".join(label for label in shared if label in result)
    inner = "".join(label for label in shared if label not in result)
    rows = "".join(label for label in left if label not in right)
    columns = "".join(label for label in right if label not in left)
    if len(inner) == 1 and len(rows) <= 1 and len(columns) <= 1:
        a = _arranged(at, first, left, batch + rows + inner)
        b = _arranged(at, second, right, batch + inner + columns)
        a = a if rows else at.unsqueeze(a, [len(batch)])
        b = b if columns else at.unsqueeze(b, [len(batch) + 1])
        product = at.emit("MatMul", a, b)
        absent = [len(batch)] * (not rows) + [len(batch) + 1] * (not columns)
        product = at.squeeze(product, absent) if absent else product
        _arranged(at, product, batch + rows + columns, result, into=at.y)
        return
    every = result + inner
    product = at.emit("Mul", _spread(at, first, left, every), _spread(at, second, right, every))
    axes = list(range(len(result), len(every)))
    if axes:
        at.reduce("ReduceSum", product, axes, keepdims=False, into=at.y)
    else:
        at.emit("Identity", product, into=at.y)


def _summed(at: Site, x: str, labels: str, keep: set[str]) -> tuple[str, str]:
    """Sum over the labels that nothing else has."""
    axes = [axis for axis, label in enumerate(labels) if label not in keep]
    if not axes:
        return x, labels
    kept = "".join(label for label in labels if label in keep)
    return at.reduce("ReduceSum", x, axes, keepdims=False), kept


def _arranged(at: Site, x: str, labels: str, order: str, into: str | None = None) -> str:
    """Return x with its axes in another order."""
    if labels != order:
        return at.emit("Transpose", x, perm=[labels.index(label) for label in order], into=into)
    return at.emit("Identity", x, into=into) if into else x


def _spread(at: Site, x: str, labels: str, every: str) -> str:
    """Return x with an axis for every label, of size 1 where it has none."""
    arranged = _arranged(at, x, labels, "".join(label for label in every if label in labels))
    absent = [axis for axis, label in enumerate(every) if label not in labels]
    return at.unsqueeze(arranged, absent) if absent else arranged


RULES: dict[str, Rule] = {"Einsum": einsum}
