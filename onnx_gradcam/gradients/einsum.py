"""Gradient of Einsum: the contraction of dy with all other operands, per operand.

It is written in Transpose, Reshape, MatMul, Mul and ReduceSum, two tensors at a time; as an
Einsum of two tensors only where too many sizes are unknown for a Reshape.
Source: ONNX operator specification Einsum-12. A tensor's axes are named by a string of labels.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from onnx_gradcam.gradients.emitter import Dim, Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient

_ELLIPSIS = "..."


@dataclass(frozen=True)
class Labelled:
    """A tensor and one label per axis."""

    name: str
    labels: str


def parse_equation(equation: str, ranks: Sequence[int]) -> tuple[list[str], str, str]:
    """Return the labels of the operands, of the result, and the unused letters for an ellipsis.

    Raises:
        FormulaError: a label occurs twice in a term, or the terms do not fit the operands.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise FormulaError(f"the equation {equation!r} does not have one term per operand")
    unused = [letter for letter in string.ascii_letters if letter not in equation]
    widths = [
        rank - len(term.replace(_ELLIPSIS, "")) if _ELLIPSIS in term else 0
        for term, rank in zip(terms, ranks, strict=True)
    ]
    broadcast = "".join(unused[: max(widths)])
    if not arrow:
        once = sorted(c for c, n in Counter(left.replace(".", "")).items() if n == 1 and c != ",")
        right = (_ELLIPSIS if _ELLIPSIS in left else "") + "".join(once)
    labels = [
        term.replace(_ELLIPSIS, broadcast[len(broadcast) - width :])
        for term, width in zip(terms, widths, strict=True)
    ]
    result = right.replace(_ELLIPSIS, broadcast)
    if any(len(set(term)) < len(term) for term in [*labels, result]):
        raise FormulaError(f"a diagonal, as in {equation!r}, is not covered")
    if [len(term) for term in labels] != list(ranks):
        raise FormulaError(f"the equation {equation!r} does not fit the ranks of its operands")
    return labels, result, broadcast


@gradient("Einsum", since=12)
def _einsum(ctx: Context) -> Gradients:
    shapes = [ctx.shape(name) for name in ctx.inputs]
    ranks = [len(shape) for shape in shapes]
    labels, result, broadcast = parse_equation(ctx.attribute("equation"), ranks)
    contraction = Contraction(ctx.emit, _label_sizes(labels, shapes, broadcast))
    operands = [
        contraction.without_stretched_axes(Labelled(name, term), shape)
        for name, term, shape in zip(ctx.inputs, labels, shapes, strict=True)
    ]
    gradients: list[str | None] = [None] * len(operands)
    for i, wanted in enumerate(ctx.wanted):
        if wanted:
            factors = [Labelled(ctx.dy, result), *operands[:i], *operands[i + 1 :]]
            product = contraction.product(factors, operands[i].labels)
            gradients[i] = contraction.arranged_like(product, ctx.inputs[i], labels[i])
    return gradients


def _label_sizes(
    labels: Sequence[str], shapes: Sequence[tuple[Dim, ...]], broadcast: str
) -> dict[str, Dim]:
    """Return the size of every label: a number where one is known; 1 only if all are.

    Raises:
        FormulaError: an ellipsis broadcasts, or not, depending on sizes known at run time alone.
    """
    sizes: dict[str, Dim] = {}
    for term, shape in zip(labels, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            known = sizes.get(label, 1)
            if known == 1:
                sizes[label] = size
            elif size == 1 or (size == known and size is not None):
                continue
            elif label in broadcast:
                raise FormulaError("what its ellipsis stretches is only known at run time")
            elif isinstance(size, int):
                sizes[label] = size
    return sizes


@dataclass(frozen=True)
class Contraction:
    """Products of labelled tensors.

    Attributes:
        emit: where to write nodes.
        sizes: size of every label as far as it is known.
    """

    emit: Emitter
    sizes: dict[str, Dim]

    def without_stretched_axes(self, x: Labelled, shape: Sequence[Dim]) -> Labelled:
        """Return x without axes of size one that are stretched: it does not depend on them."""
        axes = [
            axis
            for axis, label in enumerate(x.labels)
            if shape[axis] == 1 and self.sizes[label] != 1
        ]
        if not axes:
            return x
        kept = "".join(c for axis, c in enumerate(x.labels) if axis not in axes)
        return Labelled(self.emit.squeeze(x.name, axes), kept)

    def product(self, factors: Sequence[Labelled], result: str) -> Labelled:
        """Return the product of all factors, summed over the labels that `result` lacks."""
        total, *others = factors
        total = self._summed(total, result + "".join(other.labels for other in others))
        for number, other in enumerate(others):
            later = "".join(factor.labels for factor in others[number + 1 :])
            total = self._pair(total, other, result + later)
        return total

    def arranged_like(self, x: Labelled, like: str, labels: str) -> str:
        """Return x with the axes of another tensor, repeated along those that it lacks."""
        present = [label for label in labels if label in x.labels]
        value = self._transposed(x, "".join(present))
        absent = [axis for axis, label in enumerate(labels) if label not in x.labels]
        if not absent:
            return value
        value = self.emit.unsqueeze(value, absent)
        shape = self.emit.shape(like) or ()
        if all(shape[axis] == 1 for axis in absent):
            return value
        return self.emit.expand_like(value, like)

    def _summed(self, x: Labelled, keep: str) -> Labelled:
        axes = [axis for axis, label in enumerate(x.labels) if label not in keep]
        if not axes:
            return x
        kept = "".join(label for label in x.labels if label in keep)
        return Labelled(self.emit.reduce_sum(x.name, axes, keepdims=False), kept)

    def _transposed(self, x: Labelled, labels: str) -> str:
        return self.emit.transpose(x.name, [x.labels.index(label) for label in labels])

    def _pair(self, a: Labelled, b: Labelled, keep: str) -> Labelled:
        """Return a b, summed over the labels that are not kept."""
        a, b = self._summed(a, keep + b.labels), self._summed(b, keep + a.labels)
        shared = [label for label in a.labels if label in b.labels]
        batch = "".join(label for label in shared if label in keep)
        inner = "".join(label for label in shared if label not in keep)
        rows = "".join(label for label in a.labels if label not in b.labels)
        columns = "".join(label for label in b.labels if label not in a.labels)
        result = batch + rows + columns
        if not inner:
            return Labelled(self.emit.mul(self._spread(a, result), self._spread(b, result)), result)
        left = self._joined(a, batch, (rows, inner))
        right = self._joined(b, batch, (inner, columns))
        apart = [0] * len(batch) + [self._length(label) for label in rows + columns]
        joined = len(rows) != 1 or len(columns) != 1
        if left is None or right is None or (joined and apart.count(-1) > 1):
            equation = f"{a.labels},{b.labels}->{result}"
            return Labelled(self.emit.node("Einsum", [a.name, b.name], equation=equation), result)
        value = self.emit.matmul(left, right)
        return Labelled(self.emit.reshape(value, apart) if joined else value, result)

    def _spread(self, x: Labelled, labels: str) -> str:
        """Return x with an axis for every label, of size one where it has none."""
        value = self._transposed(x, "".join(label for label in labels if label in x.labels))
        absent = [axis for axis, label in enumerate(labels) if label not in x.labels]
        return self.emit.unsqueeze(value, absent) if absent else value

    def _joined(self, x: Labelled, batch: str, groups: tuple[str, str]) -> str | None:
        """Return x as ``(*batch, first group, second group)``; None where sizes are unknown."""
        value = self._transposed(x, batch + "".join(groups))
        if all(len(group) == 1 for group in groups):
            return value
        lengths = [self._length(group) for group in groups]
        if lengths.count(-1) > 1:
            return None
        return self.emit.reshape(value, [0] * len(batch) + lengths)

    def _length(self, group: str) -> int:
        """Return the number of elements of some axes; -1 where it is unknown."""
        length = 1
        for label in group:
            size = self.sizes[label]
            if not isinstance(size, int):
                return -1
            length *= size
        return length
