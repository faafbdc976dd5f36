"""Elementwise functions of one input."""

from __future__ import annotations

from typing import Any

from tests.gradients.case import Case

_SMALL = (2, 3, 2, 3)
_UNKNOWN = "has no gradient of it"


def _unary(op_type: str, first: int = 7, values: str = "distinct", **more: Any) -> Case:
    return Case(op_type, f"y = {op_type}(A)", _SMALL, (first, 26), values=values, **more)


def _within(op_type: str, first: int, scale: float, shift: float = 0.0) -> Case:
    """Return the function of scale A + shift, which lies in its domain."""
    return Case(
        op_type,
        f"s = Mul(A, c)\n t = Add(s, d)\n y = {op_type}(t)",
        _SMALL,
        (first, 26),
        {"c": scale, "d": shift},
        training=_UNKNOWN,
    )


def _beside(op_type: str, first: int = 7, last: int = 26, attributes: str = "") -> Case:
    """Return f(A) A for a function whose derivative is 0: the gradient is f(A)."""
    name = f"{op_type}{attributes} beside A, opset {first} to {last}"
    body = f"s = Mul(A, c)\n f = {op_type}{attributes}(s)\n y = Mul(f, A)"
    return Case(name, body, _SMALL, (first, last), {"c": 1.7}, training=_UNKNOWN)


CASES = [
    _unary("Sqrt", values="positive"),
    _unary("Reciprocal", values="positive"),
    Case(
        "Reciprocal of negative values", "n = Neg(A)\n y = Reciprocal(n)", _SMALL, values="positive"
    ),
    _unary("Exp"),
    _unary("Neg"),
    Case("Identity", "i = Identity(A)\n y = Mul(i, A)", _SMALL),
    _unary("Abs"),
    _unary("Erf", 9),
    _unary("Log", values="positive"),
    # trigonometry
    _unary("Sin"),
    _unary("Cos"),
    _within("Tan", 7, 0.4),
    _within("Asin", 7, 0.39),
    _within("Acos", 7, 0.39),
    _unary("Atan", training=_UNKNOWN),
    _unary("Sinh", 9, training=_UNKNOWN),
    _unary("Cosh", 9, training=_UNKNOWN),
    _unary("Asinh", 9, training=_UNKNOWN),
    _within("Acosh", 9, 0.5, 2.5),
    _within("Atanh", 9, 0.39),
    # derivative 0
    _beside("Floor"),
    _beside("Ceil"),
    _beside("Round", 11),
    _beside("Sign", 9),
    _beside("Hardmax", 7, 12, "<axis=2>"),
    _beside("Hardmax", 7, 12),
    _beside("Hardmax", 13),
    _beside("Hardmax", 13, 26, "<axis=1>"),
    Case(
        "EyeLike",
        "e = EyeLike<k=1>(A)\n y = MatMul(e, A)",
        (3, 3),
        (9, 26),
        images=False,
        training=_UNKNOWN,
    ),
    Case("Cast to double", "d = Cast<to=11>(A)\n q = Mul(d, d)\n y = Cast<to=TYPE>(q)", _SMALL),
    Case(
        "CastLike",
        "d = Cast<to=11>(A)\n q = Mul(d, d)\n y = CastLike(q, k)",
        _SMALL,
        (15, 26),
        {"k": 1.0},
    ),
]
