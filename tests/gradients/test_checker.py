"""A checker is worth what it rejects: wrong formulas, each wrong in one way, must fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnx_gradcam.gradients import (
    activations,
    arithmetic,
    attention,
    conv,
    einsum,
    linear,
    normalization,
    pooling,
    reduction,
    registry,
)
from onnx_gradcam.gradients.registry import Context
from tests.gradients.case import Array, Case
from tests.gradients.cases import CASES
from tests.gradients.checks import (
    FLOAT32_TOLERANCE,
    FLOAT64_TOLERANCE,
    error_of,
    gradient_feeds,
    gradient_model,
    measured,
    onnxruntime_errors,
    run_reference,
)

BY_NAME = {case.name: case for case in CASES}
Patch = Callable[[pytest.MonkeyPatch], None]


def scaled(op_type: str, factor: float) -> Patch:
    """Multiply a gradient by a factor."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        rows = registry._GRADIENTS["", op_type]
        wrong = [replace(row, formula=multiplied(row.formula, factor)) for row in rows]
        monkeypatch.setitem(registry._GRADIENTS, ("", op_type), wrong)

    return patch


def multiplied(formula: registry.GradientFormula, factor: float) -> registry.GradientFormula:
    def wrong(ctx: Context) -> registry.Gradients:
        return [None if g is None else ctx.emit.mul(g, factor) for g in formula(ctx)]

    return wrong


def instead(module: Any, name: str, wrong: Callable[..., Any]) -> Patch:
    """Put a wrong function in the place of one that formulas use; it gets the right one first."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        right = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **more: wrong(right, *args, **more))

    return patch


def shifted(right: Any, *args: Any) -> Any:
    return [replace(a, begin=a.begin + 1, end=a.end - 1) for a in right(*args)]


def unflipped(_right: Any, ctx: Context, weight: str, sizes: list[int], _group: int) -> str:
    return ctx.emit.transpose(weight, [1, 0, *range(2, len(sizes))])


def transposed_once_more(right: Any, ctx: Context, *args: Any) -> str:
    return ctx.emit.transpose(right(ctx, *args), [0, 1, 3, 2])


def mean_instead_of_sum(right: Any, ctx: Context, gradient: str, operand: str, result: str) -> str:
    total = right(ctx, gradient, operand, result)
    return total if total == gradient else str(ctx.emit.mul(total, 0.5))


WRONG: list[tuple[str, Patch, str]] = [
    ("a factor near 1", scaled("Sigmoid", 1.0001), "Sigmoid"),
    ("a factor near 1", scaled("Conv", 0.9999), "Conv 3 x 3 padded"),
    ("the sign", scaled("Tanh", -1.0), "Tanh"),
    ("nothing but zeros", scaled("Relu", 0.0), "Relu"),
    ("not a number", scaled("Relu", float("nan")), "Relu"),
    ("infinite", scaled("MatMul", float("inf")), "MatMul of features"),
    ("a kernel that is not flipped", instead(conv, "_flipped", unflipped), "Conv 3 x 3"),
    ("a transposed kernel", instead(conv, "_flipped", transposed_once_more), "Conv 3 x 3 padded"),
    ("windows off by one", instead(conv, "window_axes", shifted), "Conv 3 x 3 padded"),
    ("windows off by one", instead(pooling, "window_axes", shifted), "MaxPool overlapping, padded"),
    (
        "windows off by one",
        instead(pooling, "window_axes", shifted),
        "AveragePool overlapping, padded",
    ),
    (
        "a broadcasting not undone",
        instead(arithmetic, "unbroadcast", lambda _right, _ctx, gradient, *_: gradient),
        "Mul stretched by an input",
    ),
    (
        "a mean where a sum belongs",
        instead(arithmetic, "unbroadcast", mean_instead_of_sum),
        "Mul stretched by an input",
    ),
    (
        "Leibniz' second term missing",
        instead(
            activations,
            "swish",
            lambda _, emit, dy, x, a: emit.mul(dy, emit.unary("Sigmoid", emit.mul(x, a))),
        ),
        "Swish 1.7",
    ),
    (
        "the mean not subtracted",
        lambda monkeypatch: monkeypatch.setitem(
            normalization._SOFTMAX, "Softmax", lambda emit, dy, y, _axes: emit.mul(dy, y)
        ),
        "Softmax-13, axis 1",
    ),
    (
        "the mean of the gradient not subtracted",
        instead(
            normalization.Standardized,
            "gradient",
            lambda _, self, g: self.emit.mul(g, self.reciprocal),
        ),
        "GroupNormalization-21 2",
    ),
    (
        "another norm",
        instead(reduction, "norm_slope", lambda right, emit, x, y, p: right(emit, x, y, p + 1)),
        "ReduceL1 of the map",
    ),
    (
        "axes in another order",
        instead(einsum.Contraction, "_transposed", lambda _, self, x, labels: x.name),
        "Einsum bij->bji",
    ),
    (
        "heads in another order",
        instead(attention._Heads, "shared", lambda _, self, emit, x, size: emit.concat([x, x], 1)),
        "Attention of shared heads by Q",
    ),
    (
        "a mask forgotten",
        instead(
            attention,
            "_weights",
            lambda _, ctx, scores, heads: ctx.emit.node("Softmax", [scores], axis=-1),
        ),
        "Attention barred by Q",
    ),
    (
        "a matrix not transposed",
        instead(
            linear,
            "gemm_no_bias",
            lambda right, emit, a, b, *, trans_b, **more: right(
                emit, a, b, trans_b=not trans_b, **more
            ),
        ),
        "Gemm by its bias, twice",
    ),
    (
        "the divisor of all windows that of the first",
        instead(
            pooling,
            "_window_sizes",
            lambda right, *args, **more: np.full_like(
                (sizes := right(*args, **more)), sizes.flat[0]
            ),
        ),
        "AveragePool overlapping, padded",
    ),
]


@pytest.mark.parametrize(
    ("what", "patch", "name"), WRONG, ids=[f"{name}: {what}" for what, _, name in WRONG]
)
def test_wrong_formulas_fail(
    what: str, patch: Patch, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = BY_NAME[name]
    wanted = measured(case)
    patch(monkeypatch)
    assert deviation(lambda: in_float64(case, wanted)) > 10 * FLOAT64_TOLERANCE
    assert deviation(lambda: max(onnxruntime_errors(case).values())) > 10 * FLOAT32_TOLERANCE


def in_float64(case: Case, wanted: Array) -> float:
    model = gradient_model(case, np.float64, case.main_opset, symbolic=False)
    return error_of(run_reference(model, gradient_feeds(case, np.float64)), wanted)


def deviation(error: Callable[[], float]) -> float:
    """Return an error, infinite where the comparison is refused."""
    try:
        return error()
    except Exception as refusal:
        reasons = ("shape", "not finite", "Incompatible", "Issues with types")
        if not any(reason in str(refusal) for reason in reasons):
            raise
        return float("inf")


def test_a_gradient_of_nothing_is_no_reference() -> None:
    with pytest.raises(AssertionError, match="nearly zero"):
        error_of(np.zeros((2, 3)), np.full((2, 3), 1e-3))


def test_another_shape_is_no_match() -> None:
    with pytest.raises(AssertionError, match="instead of"):
        error_of(np.ones((2, 1)), np.ones((2, 3)))


def test_the_error_is_relative_to_the_largest_element() -> None:
    assert error_of(np.array([4.0, 0.5]), np.array([4.0, 0.1])) == pytest.approx(0.1)
