"""Arithmetic of several tensors in Add, Mul, Reciprocal, Pow, MatMul."""

from __future__ import annotations

from onnx_gradcam.export.builders.rules.site import Rule, Site
from onnx_gradcam.export.builders.training_graph import GradientGraphError
from onnx_gradcam.export.graph import describe


def sum_(at: Site) -> bool:
    """Sum(a, b, c) -> (a + b) + c."""
    _added(at, into=at.y)
    return True


def mean(at: Site) -> bool:
    """Mean(a, b, c) -> ((a + b) + c) / 3."""
    at.emit("Mul", _added(at), 1.0 / len(at.node.input), into=at.y)
    return True


def _added(at: Site, into: str | None = None) -> str:
    first, *others = at.node.input
    if not others:
        return at.emit("Identity", first, into=into)
    total = first
    for other in others[:-1]:
        total = at.emit("Add", total, other)
    return at.emit("Add", total, others[-1], into=into)


def div(at: Site) -> bool:
    """Div(a, b) -> a Reciprocal(b), where b is computed in the tail.

    The builder's own DivGrad reduces over broadcast axes inside one operator; a product does not.
    """
    divisor = at.input(1)
    if divisor not in at.graph.producer or at.constant(divisor) is not None:
        return False
    at.emit("Mul", at.x, at.emit("Reciprocal", divisor), into=at.y)
    return True


def cast_like(at: Site) -> bool:
    """CastLike(x, k) -> Cast(x)."""
    target = at.graph.type_of(at.input(1))
    if target is None:
        return False
    at.emit("Cast", at.x, to=target.dtype, into=at.y)
    return True


def pow_(at: Site) -> bool:
    """Pow(x, k) with k of another type -> Pow(x, Cast(k)): the builder computes k - 1.

    Raises:
        GradientGraphError: the exponent depends on A; the builder would take it for a constant.
    """
    computed = at.input(1) in at.graph.producer or at.input(1) == at.graph.inputs[0].name
    if computed and at.constant(at.input(1)) is None:
        raise GradientGraphError(
            f"the exponent of {describe(at.node, at.opset)} is no constant;"
            " onnxruntime-training cannot differentiate it"
        )
    exponent = at.graph.type_of(at.input(1))
    base = at.graph.type_of(at.x)
    if exponent is None or base is None or exponent.dtype == base.dtype:
        return False
    value = at.constant(at.input(1))
    if value is None:
        cast = at.emit("Cast", at.input(1), to=base.dtype)
        at.emit("Pow", at.x, cast, into=at.y)
    else:
        at.emit("Pow", at.x, value.astype(at.dtype(at.x)), into=at.y)
    return True


def mat_mul(at: Site) -> bool:
    """MatMul of a vector (k) -> Squeeze(MatMul of a matrix (1, k) or (k, 1))."""
    left, right = at.node.input
    ranks = [rank for rank in (at.rank(left), at.rank(right)) if rank is not None]
    if 1 not in ranks or len(ranks) < 2:
        return False
    rank = max(2, *ranks)
    squeezed = []
    if ranks[0] == 1:
        left = at.unsqueeze(left, [0])
        squeezed.append(rank - 2)
    if ranks[1] == 1:
        right = at.unsqueeze(right, [1])
        squeezed.append(rank - 1)
    at.squeeze(at.emit("MatMul", left, right), squeezed, into=at.y)
    return True


RULES: dict[str, Rule] = {
    "CastLike": cast_like,
    "Div": div,
    "MatMul": mat_mul,
    "Mean": mean,
    "Pow": pow_,
    "Sum": sum_,
}
