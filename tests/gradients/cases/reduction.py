"""Reductions, and the poolings over a whole map."""

from __future__ import annotations

from typing import Any

from tests.gradients.case import Case

_MAP = (2, 3, 2, 4)
_SMALL = (2, 2, 1, 3)
_FORMS = {
    "ReduceSum": 13,
    "ReduceMean": 18,
    "ReduceMax": 18,
    "ReduceMin": 18,
    "ReduceL1": 18,
    "ReduceL2": 18,
    "ReduceLogSum": 18,
    "ReduceLogSumExp": 18,
    "ReduceProd": 18,
    "ReduceSumSquare": 18,
}
"""The opset from which on the axes are an input."""

_EMPTY_AXES = "takes empty axes for none, and none for all"


_NO_GRADIENT = "has no gradient of it"
_REFUSED_NOOP = {"ReduceL1", "ReduceLogSum", "ReduceMax", "ReduceMin", "ReduceSumSquare"}


def _options(op_type: str, body: str) -> dict[str, Any]:
    options: dict[str, Any] = {"training": "", "shape": _MAP}
    if op_type == "ReduceLogSum":
        options |= {"values": "positive", "shape": _SMALL, "ad": "has no rule for it"}
    if op_type == "ReduceProd":
        options["training"] = _NO_GRADIENT
    if op_type in {"ReduceL2", "ReduceLogSumExp"} and "keepdims=0" in body and "A, k" not in body:
        options["training"] = f"fails at a {op_type} that drops axes"
    if op_type in _REFUSED_NOOP and "noop" in body:
        options["training"] = f"has no gradient of {op_type}, and the preparation none"
    return options


def _attribute_form(op_type: str, until: int) -> list[Case]:
    def case(name: str, body: str, first: int = 7, **more: Any) -> Case:
        options = {**_options(op_type, body), **more}
        return Case(f"{op_type} {name}", body, opsets=(first, until), **options)

    return [
        case("of the map", f"y = {op_type}<axes=[2, 3]>(A)", symbolic=(0, 2, 3)),
        case("of the map, without axes", f"y = {op_type}<axes=[3, 2], keepdims=0>(A)"),
        case("of channels", f"y = {op_type}<axes=[1], keepdims=0>(A)", symbolic=(0, 2, 3)),
        case("of axis -1", f"y = {op_type}<axes=[-1]>(A)", first=11),
        case("of axis 0", f"y = {op_type}<axes=[0], keepdims=0>(A)", images=False, symbolic=()),
        case("of all", f"y = {op_type}(A)", images=False),
        case("of all to a scalar", f"y = {op_type}<keepdims=0>(A)", images=False),
    ]


def _input_form(op_type: str, since: int) -> list[Case]:
    def case(name: str, body: str, axes: list[int], **more: Any) -> Case:
        options = {**_options(op_type, body), **more}
        if not axes and "(A, k)" in body and op_type != "ReduceSum":
            options["ad"] = _EMPTY_AXES
        if "noop" in body and op_type in {"ReduceL1", "ReduceL2", "ReduceSumSquare"}:
            options["ad"] = _EMPTY_AXES
        name = f"{op_type}-{since} {name}"
        return Case(name, body, opsets=(since, 26), constants={"k": axes}, **options)

    return [
        case("of the map", f"y = {op_type}(A, k)", [2, 3], symbolic=(0, 2, 3)),
        case("of the map, without axes", f"y = {op_type}<keepdims=0>(A, k)", [-1, -2]),
        case("of channels", f"y = {op_type}<keepdims=0>(A, k)", [1], symbolic=(0, 2, 3)),
        case("of axis 0", f"y = {op_type}<keepdims=0>(A, k)", [0], images=False, symbolic=()),
        case("of all, no axes", f"y = {op_type}(A)", [], images=False),
        case("of all, empty axes", f"y = {op_type}<keepdims=0>(A, k)", [], images=False),
        case("of none", f"n = {op_type}<noop_with_empty_axes=1>(A, k)\n y = Mul(n, A)", []),
        case("of none, no axes", f"n = {op_type}<noop_with_empty_axes=1>(A)\n y = Mul(n, A)", []),
    ]


CASES = [
    *(case for op_type, since in _FORMS.items() for case in _attribute_form(op_type, since - 1)),
    *(case for op_type, since in _FORMS.items() for case in _input_form(op_type, since)),
    Case(
        "ReduceMean of unknown sizes",
        "y = ReduceMean(A)",
        _MAP,
        (7, 17),
        symbolic=(0, 1, 2, 3),
        images=False,
    ),
    *(
        Case(
            f"GlobalLpPool of {p}{', 1-D' if len(shape) == 3 else ''}",
            f"y = GlobalLpPool<p={p}>(A)",
            shape,
            (7, 21),
            training=_NO_GRADIENT,
        )
        for p in (1, 2, 3)
        for shape in (_MAP, (2, 3, 4))
    ),
    Case("GlobalLpPool-22", "y = GlobalLpPool(A)", _MAP, (22, 26), runtime="has none"),
    *(
        Case(
            f"ReduceProd of zeros, opset {first} to {last}",
            body,
            (2, 6, 4),
            (first, last),
            {"k": [2]} if last > 17 else {},
            values="steps",
            ad="divides by zero",
            training=_NO_GRADIENT,
        )
        for first, last, body in (
            (7, 17, "y = ReduceProd<axes=[2]>(A)"),
            (18, 26, "y = ReduceProd<keepdims=0>(A, k)"),
        )
    ),
    Case("GlobalAveragePool", "y = GlobalAveragePool(A)", _MAP),
    Case("GlobalAveragePool of unknown size", "y = GlobalAveragePool(A)", _MAP, symbolic=(0, 2, 3)),
    Case("GlobalAveragePool 1-D", "y = GlobalAveragePool(A)", (2, 3, 4)),
    Case("GlobalAveragePool 3-D", "y = GlobalAveragePool(A)", (2, 3, 2, 2, 2)),
    Case("GlobalMaxPool", "y = GlobalMaxPool(A)", _MAP),
    Case("GlobalMaxPool of unknown size", "y = GlobalMaxPool(A)", _MAP, symbolic=(0, 2, 3)),
    Case("GlobalMaxPool 1-D", "y = GlobalMaxPool(A)", (2, 3, 4)),
    Case("GlobalMaxPool 3-D", "y = GlobalMaxPool(A)", (2, 3, 2, 2, 2)),
]
