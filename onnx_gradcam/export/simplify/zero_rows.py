"""Zeros that a gradient is padded with, carried along as a note instead of as numbers.

The score of a vision transformer reads the class token alone, so the gradient of the last block is
zero for all other tokens until attention mixes them. Its rows that are not zero are cut out where a
Pad would surround them with zeros, go through the operators by themselves, and meet the zeros again
where an operator needs all rows. What these operators read beside the gradient is cut likewise.

In: the nodes of the gradient. Out: nodes that give the same results; where nothing is padded, the
same nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import NodeProto

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.simplify.added import Added
from onnx_gradcam.export.simplify.cut_rows import RowCutter, Rows, aligned, axes_of
from onnx_gradcam.export.simplify.reshaped_rows import core_sizes, reshaped
from onnx_gradcam.gradients.emitter import Dim
from onnx_gradcam.gradients.registry import attribute_of


@dataclass(frozen=True)
class Part:
    """A tensor that is zero outside some rows of one axis.

    Attributes:
        core: these rows.
        rows: which they are.
    """

    core: str
    rows: Rows


def keep_zeros_apart(added: Added) -> None:
    """Rewrite the nodes of an emitter so that rows of zeros are not computed with."""
    added.refresh()
    if any(_padded_rows(added, node) for node in added.emit.nodes):
        _Pass(added).run()


def _padded_rows(added: Added, node: NodeProto) -> Rows | None:
    """Return the rows that a Pad surrounds with zeros; None for other nodes and several axes."""
    if node.op_type != "Pad" or attribute_of(node, "mode", "constant") != "constant":
        return None
    if attribute_of(node, "value", 0.0) or (len(node.input) > 2 and any(node.input[2:])):
        return None
    pads = attribute_of(node, "pads")
    if pads is None:
        known = added.value(node.input[1]) if len(node.input) > 1 else None
        pads = None if known is None else [int(p) for p in known]
    shape = added.shape(node.input[0])
    if pads is None or shape is None or len(pads) != 2 * len(shape) or min(pads) < 0:
        return None
    axes = [a for a in range(len(shape)) if pads[a] or pads[len(shape) + a]]
    count = shape[axes[0]] if len(axes) == 1 else None
    if not isinstance(count, int):
        return None
    begin, end = pads[axes[0]], pads[len(shape) + axes[0]]
    return Rows(axes[0], begin, count, begin + count + end)


class _Pass:
    """One walk over the nodes."""

    def __init__(self, added: Added) -> None:
        self.added = added
        self.emit = added.emit
        self.parts: dict[str, Part] = {}
        self.cutter = RowCutter(added, self.core_of, self.whole)

    def run(self) -> None:
        """Rewrite all nodes; results that are read elsewhere come out whole."""
        old = list(self.emit.nodes)
        self.emit.nodes.clear()
        for node in old:
            with self.emit.scope("gradient/rows"):
                self._visit(node)
        for name in [name for name in self.parts if name in self.added.wanted]:
            self.whole(name)

    def _visit(self, node: NodeProto) -> None:
        rows = _padded_rows(self.added, node)
        if rows is not None:
            self.parts[node.output[0]] = Part(self.whole(node.input[0]), rows)
            return
        given = [name for name in Graph.reads(node) if name in self.parts]
        rule = _RULES.get(node.op_type) if given else None
        result = rule(self, node) if rule is not None else None
        if isinstance(result, Part):
            self.parts[node.output[0]] = result
        elif result is not None:
            self.emit.nodes[-1].output[0] = node.output[0]
        else:
            for name in given:
                self.whole(name)
            self.emit.nodes.append(node)

    # -- tensors -----------------------------------------------------------------------------------

    def whole(self, name: str) -> str:
        """Return a tensor with all of its rows: where it is a part, padded now."""
        part = self.parts.pop(name, None)
        if part is None:
            return name
        rows, rank = part.rows, len(self.shape(name))
        core = part.core
        if rows.repeat != 1:  # the axis is a product: pad its first factor
            split = core_sizes(self.shape(name), rows, split=True)
            assert split is not None, "such rows are kept only where this is known"
            core = self.emit.reshape(core, split)
            rank += 1
        pads = [0] * 2 * rank
        pads[rows.axis] = rows.begin
        pads[rank + rows.axis] = rows.total - rows.begin - rows.count
        self.emit.pad(core, pads)
        if rows.repeat != 1:
            sizes = [size if isinstance(size, int) else -1 for size in self.shape(name)]
            self.emit.reshape(self.emit.nodes[-1].output[0], sizes)
        self.emit.nodes[-1].output[0] = name
        return name

    def core_of(self, name: str, rows: Rows) -> str | None:
        """Return the rows of a part, if it is one with just these rows."""
        part = self.parts.get(name)
        return part.core if part is not None and part.rows == rows else None

    def shape(self, name: str) -> tuple[Dim, ...]:
        """Return the shape of a whole tensor; rules ask for known ranks only."""
        return self.added.shape(name) or ()

    def again(self, node: NodeProto, inputs: Sequence[str]) -> str:
        """Emit a node once more, on other inputs."""
        return self.cutter.again(node, inputs)


# -- rules: what becomes of a node that reads parts ------------------------------------------------

_Result = Part | str | None
"""A part; a whole result that was emitted; or None: the node needs all rows."""


def _unary(walk: _Pass, node: NodeProto) -> _Result:
    part = walk.parts[node.input[0]]
    return Part(walk.again(node, [part.core, *node.input[1:]]), part.rows)


def _product(walk: _Pass, node: NodeProto) -> _Result:
    """Mul, and Div of a part: zero where one operand is."""
    a, b = node.input
    if a not in walk.parts:
        if node.op_type == "Div":
            return None
        a, b = b, a
    part = walk.parts[a]
    rows = aligned(part.rows, walk.added.shape(a), walk.added.shape(node.output[0]))
    if rows is None:
        return None
    factor = walk.cutter.operand(b, rows, walk.added.shape(node.output[0]))
    if factor is None:
        return None
    operands = [part.core, factor] if node.input[0] == a else [factor, part.core]
    return Part(walk.again(node, operands), rows)


def _sum(walk: _Pass, node: NodeProto) -> _Result:
    """Add and Sub of parts with the same rows, of equal shapes."""
    found = [walk.parts.get(name) for name in node.input]
    parts = [part for part in found if part is not None]
    shapes = {walk.added.shape(name) for name in (*node.input, *node.output)}
    of_rank = {len(shape) for shape in shapes if shape is not None}
    if len(parts) < len(found) or None in shapes or len(of_rank) > 1:
        return None
    if any(part.rows != parts[0].rows for part in parts):
        return None
    return Part(walk.again(node, [part.core for part in parts]), parts[0].rows)


def _reduce(walk: _Pass, node: NodeProto) -> _Result:
    part, rank = walk.parts[node.input[0]], len(walk.shape(node.input[0]))
    axes = axes_of(walk.added, node, rank)
    over_rows = axes is not None and part.rows.axis in axes
    if axes is None or (over_rows and node.op_type != "ReduceSum"):
        return None
    again = walk.again(node, [part.core, *node.input[1:]])
    if over_rows:
        return again
    before = 0 if attribute_of(node, "keepdims", 1) else sum(a < part.rows.axis for a in axes)
    return Part(again, replace(part.rows, axis=part.rows.axis - before))


def _matmul(walk: _Pass, node: NodeProto) -> _Result:
    a, b = node.input
    ranks = [len(walk.shape(name)) for name in node.input]
    if (a in walk.parts and b in walk.parts) or min(ranks) < 2:
        return None
    if a in walk.parts:
        part, from_end = walk.parts[a], walk.parts[a].rows.axis - ranks[0]
        if from_end == -1:  # the sum runs over the rows
            other = walk.cutter.cut(b, replace(part.rows, axis=ranks[1] - 2))
            return None if other is None else walk.again(node, [part.core, other])
        if from_end == -2 or ranks[1] == 2:
            shift = max(0, ranks[1] - ranks[0])
            rows = replace(part.rows, axis=part.rows.axis + shift)
            return Part(walk.again(node, [part.core, b]), rows)
        return None
    part, from_end = walk.parts[b], walk.parts[b].rows.axis - ranks[1]
    if from_end == -2:
        other = walk.cutter.cut(a, replace(part.rows, axis=ranks[0] - 1))
        return None if other is None else walk.again(node, [other, part.core])
    if from_end == -1:
        rows = replace(part.rows, axis=len(walk.shape(node.output[0])) - 1)
        return Part(walk.again(node, [a, part.core]), rows)
    return None


def _gemm(walk: _Pass, node: NodeProto) -> _Result:
    """Gemm whose first factor is a part by its rows, and that adds nothing."""
    a, b, *third = node.input
    part = walk.parts.get(a)
    added = walk.added.value(third[0]) if third and third[0] else np.zeros(1)
    if part is None or b in walk.parts or added is None or added.any():
        return None
    if part.rows.axis != 0 or attribute_of(node, "transA", 0):
        return None
    return Part(walk.again(node, [part.core, b]), part.rows)


def _transpose(walk: _Pass, node: NodeProto) -> _Result:
    part = walk.parts[node.input[0]]
    rank = len(walk.shape(node.input[0]))
    perm = list(attribute_of(node, "perm", range(rank - 1, -1, -1)))
    rows = replace(part.rows, axis=perm.index(part.rows.axis))
    return Part(walk.again(node, [part.core]), rows)


def _reshape(walk: _Pass, node: NodeProto) -> _Result:
    """Reshape, Squeeze and Unsqueeze."""
    part = walk.parts[node.input[0]]
    before, after = (walk.added.shape(name) for name in (node.input[0], node.output[0]))
    if before is None or after is None:
        return None
    rows = reshaped(before, after, part.rows)
    if rows is None:
        return None
    sizes = core_sizes(after, rows)
    if sizes is None or (rows.repeat != 1 and core_sizes(after, rows, split=True) is None):
        return None
    return Part(walk.emit.reshape(part.core, sizes), rows)


_RULES: dict[str, Callable[[_Pass, NodeProto], _Result]] = {
    "Add": _sum,
    "Cast": _unary,
    "Div": _product,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Mul": _product,
    "Neg": _unary,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "Reshape": _reshape,
    "Squeeze": _reshape,
    "Sub": _sum,
    "Sum": _sum,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
