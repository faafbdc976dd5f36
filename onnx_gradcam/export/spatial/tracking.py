"""Follow fields through a graph: one rule per operator, for any kind of field.

What a field says (where an element lies: `positions`; whether it is reached: `reach`) is a
`Kind`; how operators move elements is the same for all and written here. In: shapes without
unknown sizes. Tensors about which nothing is known have no field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from onnx import NodeProto

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.spatial.fields import (
    Field,
    Shape,
    aligned,
    joined,
    regroup,
    sliced,
    taken,
)
from onnx_gradcam.gradients.registry import attribute_of

Fields = tuple[Field, ...]
"""What is known of one tensor: one field per property (row, column, ...)."""


class Kind(Protocol):
    """What fields mean, and what becomes of them where elements are combined."""

    blank: Any
    """The value of elements that come from elsewhere (constants, paddings)."""

    def combine(self, operands: Sequence[Fields]) -> Fields:
        """Return the fields of an elementwise function of operands of equal rank."""
        ...

    def reduce(self, fields: Fields, axes: Sequence[int]) -> Fields:
        """Return the fields of a reduction; the axes stay with size one."""
        ...

    def product(self, rows: Fields | None, columns: Fields | None) -> Fields | None:
        """Return the fields of a matrix product from its operands, reduced over the inner axis."""
        ...

    def normalise(self, fields: Fields, axes: Sequence[int]) -> Fields:
        """Return the fields after a normalisation over axes."""
        ...

    def convolve(self, fields: Fields, shape: Shape, result: Shape) -> Fields | None:
        """Return the fields after a convolution, pooling or resize of channels-first maps."""
        ...

    def other(
        self, operands: Sequence[Fields], shapes: Sequence[Shape], result: Shape
    ) -> Fields | None:
        """Return the fields of an operator that has no rule."""
        ...


@dataclass
class Step:
    """One node on the way, with what is known of its inputs."""

    graph: Graph
    kind: Kind
    node: NodeProto
    shapes: Mapping[str, Shape]
    known: Mapping[str, Fields]

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute of the node."""
        return attribute_of(self.node, name, default)

    def constant(self, index: int) -> Any:
        """Return the value of an input, None where it is absent or not constant."""
        if index >= len(self.node.input) or not self.node.input[index]:
            return None
        return self.graph.constant(self.node.input[index])

    @property
    def fields(self) -> Fields:
        """The fields of the first input.

        Raises:
            KeyError: nothing is known of it.
        """
        return self.known[self.node.input[0]]

    @property
    def shape(self) -> Shape:
        """The shape of the first input."""
        return self.shapes[self.node.input[0]]

    @property
    def result(self) -> Shape:
        """The shape of the first output."""
        return self.shapes[self.node.output[0]]

    def axis(self, default: int) -> int:
        """Return the attribute ``axis``, counted from the front."""
        return int(self.attribute("axis", default)) % len(self.shape)


_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft.nchwc"})
"""Operators of the last one are those of the first, on maps whose channels lie in blocks."""

Rule = Callable[[Step], Sequence[Fields | None]]
"""Gives the fields of each output."""


def track(
    graph: Graph,
    kind: Kind,
    known: Mapping[str, Fields],
    shapes: Mapping[str, Shape],
    nodes: Iterable[NodeProto],
) -> dict[str, Fields]:
    """Return the fields of all tensors that can be had from those that are known.

    Args:
        graph: gives constants.
        kind: what the fields mean.
        known: fields to start with; they are not replaced.
        shapes: of all tensors whose shape is known in full.
        nodes: to follow, in topological order.
    """
    found = dict(known)
    for node in nodes:
        if not any(name in found for name in node.input):
            continue
        step = Step(graph, kind, node, shapes, found)
        rule = _RULES.get(node.op_type, _other) if node.domain in _DOMAINS else _other
        try:
            results = rule(step)
        except (KeyError, ValueError, IndexError):  # a shape or a constant is missing
            results = _unknown(step)
        for name, fields in zip(node.output, results, strict=False):
            if name and fields is not None and name not in found:
                found[name] = fields
    return found


def _unknown(step: Step) -> Sequence[Fields | None]:
    try:
        return _other(step)
    except KeyError:
        return []


def _each(step: Step, change: Callable[[Field], Field]) -> Sequence[Fields | None]:
    return [tuple(change(field) for field in step.fields)]


def _other(step: Step) -> Sequence[Fields | None]:
    names = [n for n in step.node.input if n in step.known]
    operands = [step.known[n] for n in names]
    shapes = [step.shapes[n] for n in names]
    return [step.kind.other(operands, shapes, step.result)]


def _elementwise(step: Step) -> Sequence[Fields | None]:
    rank = len(step.result)
    operands = [
        tuple(aligned(f, rank) for f in step.known[n]) for n in step.node.input if n in step.known
    ]
    return [step.kind.combine(operands)]


def _reshape(step: Step) -> Sequence[Fields | None]:
    return _each(step, lambda f: regroup(f, step.shape, step.result))


def _transpose(step: Step) -> Sequence[Fields | None]:
    perm = step.attribute("perm", list(range(len(step.shape)))[::-1])
    return _each(step, lambda f: f.transpose(perm))


def _reorder(step: Step) -> Sequence[Fields | None]:
    """To blocks of channels or from them, which is channels first; the other side may be last."""
    if not step.attribute("channels_last", 0):
        return [step.fields]
    perm = [0, 3, 1, 2] if step.node.op_type == "ReorderInput" else [0, 2, 3, 1]
    return _each(step, lambda f: f.transpose(perm))


def _expand(step: Step) -> Sequence[Fields | None]:
    return _each(step, lambda f: aligned(f, len(step.result)))


def _slice(step: Step) -> Sequence[Fields | None]:
    if len(step.node.input) > 1:
        starts, ends, axes, steps = (step.constant(i) for i in range(1, 5))
    else:
        starts, ends, axes = (step.attribute(n) for n in ("starts", "ends", "axes"))
        steps = None
    count = len(starts)
    axes = range(count) if axes is None else axes
    steps = [1] * count if steps is None else steps
    fields = step.fields
    for start, end, axis, stride in zip(starts, ends, axes, steps, strict=True):
        size = step.shape[int(axis)]
        picked = range(size)[int(start) : int(end) : int(stride)]
        stop = picked.stop if picked.stop >= 0 else None
        part = slice(picked.start, stop, picked.step)
        fields = tuple(sliced(f, int(axis) % len(step.shape), part) for f in fields)
    return [fields]


def _gather(step: Step) -> Sequence[Fields | None]:
    indices, axis = step.constant(1), step.axis(0)
    if indices is None:
        raise KeyError("indices")
    return _each(step, lambda f: taken(f, np.asarray(indices), axis))


def _split(step: Step) -> Sequence[Fields | None]:
    axis, start = step.axis(0), 0
    results: list[Fields | None] = []
    for name in step.node.output:
        stop = start + step.shapes[name][axis]
        results.append(tuple(sliced(f, axis, slice(start, stop)) for f in step.fields))
        start = stop
    return results


def _concat(step: Step) -> Sequence[Fields | None]:
    rank = len(step.result)
    axis = int(step.attribute("axis", 1)) % rank
    names = list(step.node.input)
    sizes = [step.shapes[n][axis] for n in names]
    count = len(next(step.known[n] for n in names if n in step.known))
    blank = (np.full((1,) * rank, step.kind.blank),) * count
    operands = [step.known.get(n, blank) for n in names]
    return [tuple(joined(fields, sizes, axis) for fields in zip(*operands, strict=True))]


def _pad(step: Step) -> Sequence[Fields | None]:
    rank = len(step.shape)
    pads = step.attribute("pads") if len(step.node.input) < 2 else step.constant(1)
    axes = step.constant(3)
    full = np.zeros((2, rank), int)
    full[:, range(rank) if axes is None else np.asarray(axes)] = np.reshape(pads, (2, -1))
    if not full.any():
        return [step.fields]
    mode = step.attribute("mode", "constant")

    def change(field: Field) -> Field:
        cropped = field
        for axis in np.flatnonzero((full < 0).any(0)):
            before, after = (max(0, -int(p)) for p in full[:, axis])
            cropped = sliced(cropped, int(axis), slice(before, step.shape[axis] - after))
        grown = np.maximum(full, 0)
        if mode != "constant":
            grown = grown * (np.array(field.shape) > 1)
            return _padded(
                cropped, grown, mode={"edge": "edge", "wrap": "wrap"}.get(mode, "reflect")
            )
        sizes = zip(step.shape, cropped.shape, grown.T, strict=True)
        full_size = [size if pads.any() else kept for size, kept, pads in sizes]
        return _padded(np.broadcast_to(cropped, full_size), grown, constant_values=step.kind.blank)

    return _each(step, change)


def _padded(field: Field, pads: Field, **mode: Any) -> Field:
    return np.asarray(np.pad(field, [(int(a), int(b)) for a, b in pads.T], **mode))


def _space_to_depth(step: Step) -> Sequence[Fields | None]:
    n, c, h, w = step.shape
    b = step.attribute("blocksize")
    split, merged = (n, c, h // b, b, w // b, b), (n, b, b, c, h // b, w // b)
    return _each(
        step,
        lambda f: regroup(
            regroup(f, step.shape, split).transpose(0, 3, 5, 1, 2, 4), merged, step.result
        ),
    )


def _depth_to_space(step: Step) -> Sequence[Fields | None]:
    n, c, h, w = step.shape
    b = step.attribute("blocksize")
    if step.attribute("mode", "DCR") == "DCR":
        split, perm = (n, b, b, c // b**2, h, w), (0, 3, 4, 1, 5, 2)
    else:
        split, perm = (n, c // b**2, b, b, h, w), (0, 1, 4, 2, 5, 3)
    moved = tuple(split[i] for i in perm)
    return _each(
        step, lambda f: regroup(regroup(f, step.shape, split).transpose(perm), moved, step.result)
    )


def _reduce(step: Step) -> Sequence[Fields | None]:
    axes = step.attribute("axes")
    if axes is None:
        axes = step.constant(1)
    rank = len(step.shape)
    axes = sorted(int(a) % rank for a in (range(rank) if axes is None or not len(axes) else axes))
    fields = step.kind.reduce(step.fields, axes)
    if not step.attribute("keepdims", 1):
        kept = tuple(a for a in range(rank) if a not in axes)
        fields = tuple(f.reshape([f.shape[a] for a in kept]) for f in fields)
    return [fields]


def _global_pool(step: Step) -> Sequence[Fields | None]:
    return [step.kind.reduce(step.fields, range(2, len(step.shape)))]


def _normalisation(step: Step) -> Sequence[Fields | None]:
    """Along one axis (Softmax), or from an axis to the last one (LayerNormalization)."""
    rank = len(step.shape)
    axis = step.axis(-1)
    whole = "Layer" in step.node.op_type or "RMS" in step.node.op_type
    return [step.kind.normalise(step.fields, range(axis, rank) if whole else [axis])]


def _instance_normalisation(step: Step) -> Sequence[Fields | None]:
    return [step.kind.normalise(step.fields, range(1, len(step.shape)))]


def _windows(step: Step) -> Sequence[Fields | None]:
    return [step.kind.convolve(step.fields, step.shape, step.result)]


def _matmul(step: Step) -> Sequence[Fields | None]:
    rank = len(step.result)
    sides: list[Fields | None] = []
    for name, inner in zip(step.node.input[:2], (-1, -2), strict=True):
        fields = step.known.get(name)
        if fields is None:
            sides.append(None)
            continue
        own = len(step.shapes[name])
        if own < 2:
            raise ValueError("a vector")
        transposed = step.node.op_type == "Gemm" and step.attribute(
            "transA" if inner == -1 else "transB", 0
        )
        if transposed:
            fields = tuple(np.swapaxes(f, -1, -2) for f in fields)
        reduced = step.kind.reduce(fields, [own + inner])
        sides.append(tuple(aligned(f, rank) for f in reduced))
    if step.node.input[0] not in step.known and step.node.input[1] not in step.known:
        return _unknown(step)
    return [step.kind.product(sides[0], sides[1])]


_ELEMENTWISE = (
    *("Abs", "Add", "BatchNormalization", "BitShift", "Cast", "CastLike", "Ceil", "Celu", "Clip"),
    *("Cos", "DequantizeLinear", "Div", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu"),
    *("HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Mean", "Min", "Mish"),
    *("Mul", "Neg", "PRelu", "Pow", "QuantizeLinear", "Reciprocal", "Relu", "Round", "Selu"),
    *("Shrink", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish"),
    *("DynamicQuantizeLinear", "Tanh", "ThresholdedRelu", "Where"),
)

_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(
        ("Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization"), _normalisation
    ),
    **dict.fromkeys(("LpNormalization", "Hardmax"), _normalisation),
    **dict.fromkeys(("InstanceNormalization", "GroupNormalization"), _instance_normalisation),
    **dict.fromkeys(("Conv", "ConvInteger", "ConvTranspose", "QLinearConv"), _windows),
    **dict.fromkeys(("AveragePool", "LpPool", "LRN", "MaxPool", "Resize", "Upsample"), _windows),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _global_pool),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin"), _reduce),
    **dict.fromkeys(("ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "ReduceSum"), _reduce),
    **dict.fromkeys(("MatMul", "Gemm", "MatMulInteger"), _matmul),
    "ReduceSumSquare": _reduce,
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Gather": _gather,
    "Pad": _pad,
    "ReorderInput": _reorder,
    "ReorderOutput": _reorder,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Transpose": _transpose,
}
