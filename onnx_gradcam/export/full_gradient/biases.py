"""The biases of a network that is piecewise linear in the image, and what keeps it from being so.

In: the part of the graph between the image and the score. Out: a `Bias` for each operator that adds
something, or an error that names every operator whose output is neither linear nor positively
homogeneous in what moves with the image. Where all are, f(k x) = k f(x) for k > 0 but for the
biases, and so the score is accounted for: y = x . dy/dx + sum_b b . dy/db.

Source: Srinivas and Fleuret, arXiv 1905.00780, proposition 1 and section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.graph import Graph, describe
from onnx_gradcam.export.tail import Tail, listed
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import attribute_of

Value = Callable[[Emitter], str]
"""Emits the bias, in a shape that broadcasts to the operator's output."""


@dataclass(frozen=True)
class Bias:
    """What an operator adds to its output.

    Attributes:
        tensor: that output.
        value: emits the bias.
    """

    tensor: str
    value: Value


@dataclass(frozen=True)
class _Refusal:
    """Why an operator is no part of a piecewise linear function, as the end of a sentence."""

    reason: str = ""


@dataclass(frozen=True)
class _Site:
    """A node, and which of its inputs move with the image."""

    graph: Graph
    node: NodeProto
    moving: frozenset[int]

    def moves_by_more_than(self, *positions: int) -> _Refusal | None:
        """Return a refusal unless one of these inputs is all that moves."""
        if self.moving <= set(positions) and len(self.moving) == 1:
            return None
        return _Refusal(" of several tensors that depend on the image")

    def still(self) -> list[str]:
        """Return the inputs that do not move."""
        return [name for i, name in enumerate(self.node.input) if name and i not in self.moving]

    def has(self, position: int) -> bool:
        """Return whether an optional input is there."""
        return position < len(self.node.input) and bool(self.node.input[position])

    def number(self, attribute: str, position: int, default: float) -> float | None:
        """Return a scalar attribute or constant input; None for one that is computed."""
        found = attribute_of(self.node, attribute)
        if found is not None or not self.has(position):
            return default if found is None else float(found)
        value = self.graph.constant(self.node.input[position])
        return None if value is None else float(value.reshape(-1)[0])


Rule = Callable[[_Site], Value | _Refusal | None]


def find_biases(graph: Graph, tail: Tail) -> list[Bias]:
    """Return the biases between the image and the score, in the order of the nodes.

    Args:
        graph: the forward model.
        tail: its part from the image to the score.

    Raises:
        UnsupportedModelError: operators that are no part of a piecewise linear function; all of
            them are named.
    """
    biases: list[Bias] = []
    problems: dict[str, str] = {}
    for node in tail.nodes:
        moving = frozenset(i for i, name in enumerate(node.input) if name in tail.tensors)
        rule = _RULES.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
        found = _Refusal() if rule is None else rule(_Site(graph, node, moving))
        if isinstance(found, _Refusal):
            operator = describe(node, graph.opset(node.domain))
            problems.setdefault(node.op_type, operator + found.reason)
        elif found is not None:
            biases.append(Bias(node.output[0], found))
    if problems:
        raise UnsupportedModelError(
            "FullGrad needs a network that is piecewise linear in the image, so that input and"
            f" biases account for the whole score; this one has {listed([*problems.values()])};"
            " leave the full gradient out"
        )
    return biases


def _homogeneous(_at: _Site) -> None:
    """Relu, MaxPool, sums, what moves elements: f(k x) = k f(x) for k > 0, whatever moves."""


def _of_the_first(at: _Site) -> _Refusal | None:
    """What is linear or homogeneous in its first input, and has its other ones fixed."""
    return at.moves_by_more_than(0)


def _linear_in_one(at: _Site) -> _Refusal | None:
    """Products, linear in either factor."""
    return at.moves_by_more_than(*range(len(at.node.input)))


def _joined(at: _Site) -> _Refusal | None:
    """Concat and Mean: homogeneous where all inputs move."""
    return _Refusal(" with a constant among its inputs") if at.still() else None


def _convolution(at: _Site) -> Value | _Refusal | None:
    """Conv(x, W, b) and ConvTranspose: b per channel."""
    refusal = at.moves_by_more_than(0)
    if refusal or not at.has(2):
        return refusal
    rank = len(at.graph.shape(at.node.input[1]) or ())
    return lambda emit: emit.reshape(at.node.input[2], [-1] + [1] * (rank - 2))


def _gemm(at: _Site) -> Value | _Refusal | None:
    """Gemm(A, B, C): beta C."""
    refusal = at.moves_by_more_than(0, 1)
    beta = float(attribute_of(at.node, "beta", 1.0))
    if refusal or not at.has(2) or not beta:
        return refusal
    name = at.node.input[2]
    return lambda emit: emit.mul(name, beta) if beta != 1 else name


def _batch_normalization(at: _Site) -> Value | _Refusal:
    """BatchNormalization: B - scale mean / sqrt(var + epsilon), per channel."""
    if attribute_of(at.node, "training_mode", 0):
        return _Refusal(" in training mode")
    refusal = at.moves_by_more_than(0)
    if refusal:
        return refusal
    _, scale, shift, mean, variance = at.node.input[:5]
    epsilon = float(attribute_of(at.node, "epsilon", 1e-5))
    rank = len(at.graph.shape(at.node.output[0]) or (0, 0))

    def value(emit: Emitter) -> str:
        deviation = emit.unary("Sqrt", emit.add(variance, epsilon))
        bias = emit.sub(shift, emit.div(emit.mul(scale, mean), deviation))
        return emit.reshape(bias, [-1] + [1] * (rank - 2))

    return value


def _sum(at: _Site) -> Value | None:
    """Add, Sum: what does not move."""
    still = at.still()
    return (lambda emit: emit.sum(still)) if still else None


def _difference(at: _Site) -> Value | None:
    """Sub(a, b): a, or -b."""
    (name,) = at.still() or [""]
    if not name:
        return None
    return (lambda emit: emit.neg(name)) if 0 in at.moving else (lambda _: name)


def _clip(at: _Site) -> Value | _Refusal | None:
    """Clip: the limit, where it is reached; none for limits of zero and none."""
    refusal = at.moves_by_more_than(0)
    if refusal:
        return refusal
    low, high = at.number("min", 1, -np.inf), at.number("max", 2, np.inf)
    if (low in {0, -np.inf}) and (high in {0, np.inf}):
        return None
    if low is None or high is None:
        return _Refusal(" whose limits are computed")
    y = at.node.output[0]

    def value(emit: Emitter) -> str:
        """Return y where it is at a limit; there no gradient flows back (`gradients.clipping`)."""
        inside = [emit.greater(y, low)] if np.isfinite(low) else []
        inside += [emit.less(y, high)] if np.isfinite(high) else []
        mask = emit.node("And", inside) if len(inside) > 1 else inside[0]
        return emit.mul(y, emit.sub(1.0, emit.cast(mask, emit.dtype(y))))

    return value


def _extreme(at: _Site) -> Value | _Refusal | None:
    """Max, Min: what does not move, where it is reached."""
    if not at.still():
        return None
    if len(at.moving) > 1:
        return _Refusal(" of a constant and several tensors that depend on the image")
    values = [at.graph.constant(name) for name in at.still()]
    if all(value is not None and not value.any() for value in values):
        return None
    return _limit(at.node.input[next(iter(at.moving))], at.node.output[0])


def _limit(x: str, y: str) -> Value:
    """Return y where it is not x, else 0."""
    return lambda emit: emit.where(emit.greater(emit.unary("Abs", emit.sub(y, x)), 0.0), y, 0.0)


def _pad(at: _Site) -> _Refusal | None:
    """Pad: homogeneous unless it puts in another constant than zero."""
    if attribute_of(at.node, "mode", "constant") != "constant" or at.number("value", 2, 0.0) == 0:
        return at.moves_by_more_than(0)
    return _Refusal(" with a constant other than zero")


def _table(rows: Mapping[Rule, tuple[str, ...]]) -> dict[str, Rule]:
    return {op_type: rule for rule, op_types in rows.items() for op_type in op_types}


_RULES = _table(
    {
        _homogeneous: (
            *("Abs", "AveragePool", "Cast", "Dropout", "Flatten", "GlobalAveragePool"),
            *("GlobalLpPool", "GlobalMaxPool", "Identity", "LeakyRelu", "LpPool", "MaxPool"),
            *("Neg", "Relu", "DepthToSpace", "SpaceToDepth", "Transpose"),
        ),
        _of_the_first: (
            *("CumSum", "Div", "Expand", "Gather", "GatherElements", "GatherND", "PRelu"),
            *("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"),
            *("Reshape", "Resize", "Slice", "Split", "Squeeze", "Tile", "Trilu"),
            *("Unsqueeze", "Upsample"),
        ),
        _linear_in_one: ("Einsum", "MatMul", "Mul"),
        _joined: ("Concat", "Mean"),
        _convolution: ("Conv", "ConvTranspose"),
        _gemm: ("Gemm",),
        _batch_normalization: ("BatchNormalization",),
        _sum: ("Add", "Sum"),
        _difference: ("Sub",),
        _clip: ("Clip",),
        _extreme: ("Max", "Min"),
        _pad: ("Pad",),
    }
)
