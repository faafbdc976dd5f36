"""Reductions in ReduceSum, Abs, Mul, Log, Where."""

from __future__ import annotations

from onnx_gradcam.export.builders.rules.site import Rule, Site


def reduce_max(at: Site) -> bool:
    """ReduceMax(x) -> the mean of the elements of x that attain it.

    Elements that tie share the gradient, as in PyTorch's amax.
    """
    return _extremum(at, "ReduceMax", "Less", _axes(at))


def reduce_min(at: Site) -> bool:
    """ReduceMin(x) -> the mean of the elements of x that attain it."""
    return _extremum(at, "ReduceMin", "Greater", _axes(at))


def global_max_pool(at: Site) -> bool:
    """GlobalMaxPool(x) -> the mean of the elements of x, over space, that attain the maximum."""
    rank = at.rank(at.x)
    return rank is not None and _extremum(at, "ReduceMax", "Less", list(range(2, rank)))


def _extremum(at: Site, op_type: str, worse: str, axes: list[int] | None) -> bool:
    if axes is None:
        return False
    keepdims = bool(at.attribute("keepdims", 1))
    # The gradient stops at the comparison, so the reduction itself needs none.
    extremum = at.reduce(op_type, at.x, axes, keepdims=True)
    attained = at.emit("Not", at.emit(worse, at.x, extremum))
    values = at.emit("Where", attained, at.x, 0.0)
    total = at.reduce("ReduceSum", values, axes, keepdims=keepdims)
    dtype = at.graph.type_of(at.x)
    ones = at.emit("Cast", attained, to=dtype.dtype if dtype else 1)
    count = at.reduce("ReduceSum", ones, axes, keepdims=keepdims)
    at.emit("Div", total, count, into=at.y)
    return True


def reduce_l1(at: Site) -> bool:
    """ReduceL1(x) -> ReduceSum(|x|)."""
    axes = _axes(at)
    return axes is not None and _summed(at, at.emit("Abs", at.x), axes, into=at.y)


def reduce_sum_square(at: Site) -> bool:
    """ReduceSumSquare(x) -> ReduceSum(x x)."""
    axes = _axes(at)
    return axes is not None and _summed(at, at.emit("Mul", at.x, at.x), axes, into=at.y)


def reduce_log_sum(at: Site) -> bool:
    """ReduceLogSum(x) -> Log(ReduceSum(x))."""
    axes = _axes(at)
    if axes is None or not _summed(at, at.x, axes):
        return False
    at.emit("Log", at.nodes[-1].output[0], into=at.y)
    return True


def _summed(at: Site, x: str, axes: list[int], into: str | None = None) -> bool:
    at.reduce("ReduceSum", x, axes, keepdims=bool(at.attribute("keepdims", 1)), into=into)
    return True


def _axes(at: Site) -> list[int] | None:
    """Return the axes to reduce, empty for all; None when they are not known."""
    if at.attribute("noop_with_empty_axes", 0):
        return at.integers(at.input(1)) or None
    given = at.attribute("axes")
    if given is not None or not at.input(1):
        return list(given or ())
    return at.integers(at.input(1))


RULES: dict[str, Rule] = {
    "GlobalMaxPool": global_max_pool,
    "ReduceL1": reduce_l1,
    "ReduceLogSum": reduce_log_sum,
    "ReduceMax": reduce_max,
    "ReduceMin": reduce_min,
    "ReduceSumSquare": reduce_sum_square,
}
