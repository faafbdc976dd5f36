"""Rows cut out of a tensor that is computed for the gradient: its nodes once more, on these rows.

Cutting the result of a node would leave all of its rows to be computed, so the cut is made as far
up as the operators allow: at tensors of the forward graph in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from onnx import NodeProto

from onnx_gradcam.export.simplify.added import Added
from onnx_gradcam.gradients.emitter import Dim
from onnx_gradcam.gradients.registry import attribute_of


@dataclass(frozen=True)
class Rows:
    """Rows ``begin`` to ``begin + count`` of an axis of size ``total repeat``, times `repeat`.

    Attributes:
        axis: counted from 0.
        begin: the first row.
        count: how many.
        total: how many there are.
        repeat: each of them stands for so many: the axis was joined with what came behind it.
    """

    axis: int
    begin: int
    count: int
    total: int
    repeat: Dim = 1


Shape = tuple[Dim, ...] | None

_ELEMENTWISE = frozenset(
    {
        *("Abs", "Add", "Cast", "Ceil", "Div", "Equal", "Erf", "Exp", "Floor", "Greater"),
        *("HardSigmoid", "Less", "Log", "Mul", "Neg", "Not", "Pow", "Reciprocal", "Relu"),
        *("Sigmoid", "Sign", "Sqrt", "Sub", "Tanh", "Where"),
    }
)


def aligned(rows: Rows, shape: Shape, result: Shape) -> Rows | None:
    """Return rows of an operand as rows of what it is stretched to."""
    if shape is None or result is None:
        return None
    return replace(rows, axis=rows.axis + len(result) - len(shape))


def axes_of(added: Added, node: NodeProto, rank: int) -> list[int] | None:
    """Return the axes of a reduction, counted from 0; None where they are not given as constants.

    An empty list stands for all axes, or for none of them: it counts as not given.
    """
    axes = attribute_of(node, "axes")
    if len(node.input) > 1 and node.input[1]:
        value = added.value(node.input[1])
        axes = None if value is None else [int(a) for a in value.reshape(-1)]
    return [a % rank for a in axes] if axes else None


class RowCutter:
    """Cuts rows, each of them once.

    Args:
        added: the nodes as they were.
        core_of: the rows of a tensor if they are at hand.
        whole: a tensor with all its rows.
    """

    def __init__(
        self,
        added: Added,
        core_of: Callable[[str, Rows], str | None],
        whole: Callable[[str], str],
    ) -> None:
        """Start without cuts."""
        self._added = added
        self._core_of = core_of
        self._whole = whole
        self._done: dict[tuple[str, Rows], str] = {}

    def operand(self, name: str, rows: Rows, result: Shape) -> str | None:
        """Return what goes with `rows` of a result: rows of an operand, or all of one row.

        None where its size is not known, or the rows are several each.
        """
        shape = self._added.shape(name)
        if shape is None or result is None:
            return None
        axis = rows.axis - (len(result) - len(shape))
        if axis < 0 or shape[axis] == 1:
            return self._whole(name)
        if shape[axis] != rows.total or rows.repeat != 1:
            return None
        return self.cut(name, replace(rows, axis=axis))

    def cut(self, name: str, rows: Rows) -> str | None:
        """Return rows of a tensor; None where its size is not that of the rows."""
        shape = self._added.shape(name)
        if shape is None or rows.repeat != 1 or shape[rows.axis] != rows.total:
            return None
        key = (name, rows)
        if key not in self._done:
            found = self._core_of(name, rows) or self._upstream(name, rows)
            if found is None:
                found = self._added.emit.slice(
                    self._whole(name), [rows.begin], [rows.begin + rows.count], [rows.axis]
                )
            self._done[key] = found
        return self._done[key]

    def again(self, node: NodeProto, inputs: Sequence[str]) -> str:
        """Emit a node once more, on other inputs, and return its result."""
        emit = self._added.emit
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = emit.unique(node.op_type)
        copy.input[:] = inputs
        copy.output[:] = [copy.name]
        emit.nodes.append(copy)
        emit.declare(copy.name, emit.dtype(node.output[0]))
        return copy.name

    def _upstream(self, name: str, rows: Rows) -> str | None:
        """Return the rows, computed from rows of what the tensor is computed from."""
        node = self._added.producer.get(name)
        if node is None or len(node.output) != 1:
            return None
        if node.op_type == "Transpose":
            rank = len(self._added.shape(name) or ())
            perm = list(attribute_of(node, "perm", range(rank - 1, -1, -1)))
            source = self.cut(node.input[0], replace(rows, axis=perm[rows.axis]))
            return None if source is None else self.again(node, [source])
        if node.op_type in {"ReduceMean", "ReduceSum"}:
            return self._reduction(node, rows)
        if node.op_type not in _ELEMENTWISE:
            return None
        result = self._added.shape(name)
        operands = [self.operand(i, rows, result) for i in node.input]
        found = [operand for operand in operands if operand is not None]
        return self.again(node, found) if len(found) == len(operands) else None

    def _reduction(self, node: NodeProto, rows: Rows) -> str | None:
        rank = len(self._added.shape(node.input[0]) or ())
        axes = axes_of(self._added, node, rank) if rank else None
        if axes is None or rows.axis in axes or not attribute_of(node, "keepdims", 1):
            return None
        source = self.cut(node.input[0], rows)
        return None if source is None else self.again(node, [source, *node.input[1:]])
