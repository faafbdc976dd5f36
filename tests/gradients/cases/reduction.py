"""Reductions, and the poolings over a whole map."""

from __future__ import annotations

from typing import Any

from tests.gradients.case import Case

_MAP = (2, 3, 2, 4)
_FORMS = {"ReduceSum": 13, "ReduceMean": 18, "ReduceMax": 18, "ReduceMin": 18, "ReduceL2": 18}
"""The opset from which on the axes are an input."""

_EMPTY_AXES = "takes empty axes for none, and none for all"


def _attribute_form(op_type: str, until: int) -> list[Case]:
    def case(name: str, body: str, first: int = 7, **more: Any) -> Case:
        refused = op_type == "ReduceL2" and "keepdims=0" in body
        options = {"training": "fails at a ReduceL2 that drops axes" if refused else "", **more}
        return Case(f"{op_type} {name}", body, _MAP, (first, until), **options)

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
        options = {"training": "", **more}
        if "noop" in body and op_type in {"ReduceMax", "ReduceMin"}:
            options["training"] = f"has no gradient of {op_type}, and the preparation none"
        if not axes and "(A, k)" in body and op_type != "ReduceSum":
            options["ad"] = _EMPTY_AXES
        if "noop" in body and op_type == "ReduceL2":
            options["ad"] = _EMPTY_AXES
        return Case(f"{op_type}-{since} {name}", body, _MAP, (since, 26), {"k": axes}, **options)

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
    Case("GlobalAveragePool", "y = GlobalAveragePool(A)", _MAP),
    Case("GlobalAveragePool of unknown size", "y = GlobalAveragePool(A)", _MAP, symbolic=(0, 2, 3)),
    Case("GlobalAveragePool 1-D", "y = GlobalAveragePool(A)", (2, 3, 4)),
    Case("GlobalAveragePool 3-D", "y = GlobalAveragePool(A)", (2, 3, 2, 2, 2)),
    Case("GlobalMaxPool", "y = GlobalMaxPool(A)", _MAP),
    Case("GlobalMaxPool of unknown size", "y = GlobalMaxPool(A)", _MAP, symbolic=(0, 2, 3)),
    Case("GlobalMaxPool 1-D", "y = GlobalMaxPool(A)", (2, 3, 4)),
    Case("GlobalMaxPool 3-D", "y = GlobalMaxPool(A)", (2, 3, 2, 2, 2)),
]
