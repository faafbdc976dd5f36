"""Operators of several inputs, with every way of broadcasting."""

from __future__ import annotations

import numpy as np

from tests.gradients.case import Case, Constant, positive, weights

_SMALL = (2, 3, 2, 3)
_NO_MOD = "has no gradient of Mod"
_NO_EXPONENT = "has no gradient of an exponent"
_PLAIN_POW = "does not sum over the axes along which Pow stretched its base"

_STRETCHED: list[tuple[str, tuple[int, ...], Constant]] = [
    ("a scalar", _SMALL, 1.7),
    ("one value per channel", _SMALL, positive(3, 1, 1)),
    ("the last axis", _SMALL, positive(3)),
    ("a map per image and channel", (2, 3, 1, 1), positive(3, 2, 3)),
    ("equal shapes", _SMALL, positive(1, 3, 2, 3)),
    ("both stretched", (2, 3, 1, 4), positive(3, 2, 1)),
]
"""What the other operand is, the shape of A, its value."""

_BINARY = [
    Case(
        f"{op_type} with {what}, A {side}",
        f"y = {op_type}({'A, k' if side == 'left' else 'k, A'})",
        shape,
        constants={"k": value},
        values="positive",
    )
    for op_type in ("Add", "Sub", "Mul", "Div")
    for what, shape, value in _STRETCHED
    for side in ("left", "right")
]

_LONGER = [
    Case(
        f"{op_type} with more axes than A",
        f"y = {op_type}(A, k)",
        (3, 1),
        constants={"k": positive(2, 3, 4)},
        symbolic=(),
        images=False,
        values="positive",
        training=_PLAIN_POW if op_type == "Pow" else "",
    )
    for op_type in ("Add", "Sub", "Mul", "Div", "Pow")
]

_EXTREMA = [
    case
    for op_type in ("Max", "Min")
    for case in (
        Case(f"{op_type} of one", f"m = {op_type}(A)\n y = Mul(m, A)", _SMALL),
        Case(f"{op_type} of equal shapes", f"n = Neg(A)\n y = {op_type}(A, n)", _SMALL),
        Case(f"{op_type} with a constant", f"y = {op_type}(A, k)", _SMALL, (8, 26), {"k": 0.1}),
        Case(
            f"{op_type} with channels",
            f"y = {op_type}(k, A)",
            _SMALL,
            (8, 26),
            {"k": weights(3, 1, 1)},
        ),
        Case(
            f"{op_type} stretches A",
            f"y = {op_type}(k, A)",
            (2, 3, 1, 1),
            (8, 26),
            {"k": weights(3, 2, 3)},
        ),
        Case(
            f"{op_type} of three",
            f"s = Mul(A, c)\n y = {op_type}(A, k, s)",
            _SMALL,
            (8, 26),
            {"c": -0.5, "k": weights(2, 3)},
        ),
    )
]

CASES = [
    *_BINARY,
    *_LONGER,
    *_EXTREMA,
    Case("Add of A and A", "y = Add(A, A)", _SMALL),
    Case("Sub of A and its mean", "g = GlobalAveragePool(A)\n y = Sub(A, g)", _SMALL),
    Case("Mul of A and A", "y = Mul(A, A)", _SMALL),
    Case("Div of A by itself squared", "q = Mul(A, A)\n y = Div(A, q)", _SMALL, values="positive"),
    Case(
        "Squeeze and excite",
        "g = GlobalAveragePool(A)\n s = Sigmoid(g)\n y = Mul(A, s)",
        _SMALL,
        symbolic=(0, 2, 3),
    ),
    Case(
        "Squeeze and excite, right",
        "g = GlobalAveragePool(A)\n s = Sigmoid(g)\n y = Mul(s, A)",
        _SMALL,
    ),
    Case("Add with an input", "y = Add(A, w)", _SMALL, inputs={"w": (0, 3, 2, 3)}),
    Case("Mul stretches an input", "y = Mul(w, A)", _SMALL, inputs={"w": (0, 3, 1, 1)}),
    Case("Mul stretched by an input", "y = Mul(A, w)", (2, 3, 1, 1), inputs={"w": (0, 3, 2, 4)}),
    # Pow
    *(
        Case(
            f"Pow {exponent}", "y = Pow(A, k)", _SMALL, values="positive", constants={"k": exponent}
        )
        for exponent in (1.0, 2.0, 3.0, 0.5, -1.5)
    ),
    Case("Pow 3 of negative values", "y = Pow(A, k)", _SMALL, constants={"k": 3.0}),
    Case("Pow of an int64 exponent", "y = Pow(A, k)", _SMALL, (12, 26), {"k": np.array(3)}),
    Case(
        "Pow of one exponent in four axes",
        "y = Pow(A, k)",
        (2, 3),
        constants={"k": np.full((1, 1, 1, 1), 2.0)},
        images=False,
        symbolic=(),
        training=_PLAIN_POW,
    ),
    Case(
        "Pow per channel",
        "y = Pow(A, k)",
        _SMALL,
        values="positive",
        constants={"k": weights(3, 1, 1)},
    ),
    Case(
        "Pow of several exponents, one 0",
        "y = Pow(A, k)",
        (2, 3),
        constants={"k": np.array([0.0, 1.0, 2.0])},
    ),
    Case(
        "Pow stretches A",
        "y = Pow(A, k)",
        (2, 3, 1, 1),
        values="positive",
        constants={"k": weights(3, 2, 3)},
        training=_PLAIN_POW,
    ),
    Case("Pow of an input", "y = Pow(A, w)", _SMALL, values="positive", inputs={"w": (0, 3, 1, 1)}),
    Case("Pow 0 beside A", "p = Pow(A, k)\n y = Mul(p, A)", _SMALL, constants={"k": 0.0}),
    Case(
        "Pow of an input near 1",
        "y = Pow(A, w)",
        _SMALL,
        values="positive",
        inputs={"w": (0, 3, 2, 3)},
    ),
    *(
        Case(
            f"Pow of {base} by its exponent",
            "y = Pow(k, A)",
            shape,
            constants={"k": base if isinstance(base, float) else positive(*base)},
            symbolic=(),
            images=False,
            training=_NO_EXPONENT,
        )
        for base, shape in ((2.0, _SMALL), ((2, 3, 4), (3, 1)), ((3, 4), (2, 1, 1)))
    ),
    Case("Pow of A and A", "y = Pow(A, A)", _SMALL, values="positive", training=_NO_EXPONENT),
    # Mod
    Case(
        "Mod by a scalar", "y = Mod<fmod=1>(A, k)", _SMALL, (10, 26), {"k": 0.7}, training=_NO_MOD
    ),
    Case(
        "Mod stretches A",
        "y = Mod<fmod=1>(A, k)",
        (2, 3, 1),
        (10, 26),
        {"k": weights(3, 4)},
        training=_NO_MOD,
    ),
    Case(
        "Mod of a scalar", "y = Mod<fmod=1>(k, A)", _SMALL, (10, 26), {"k": 4.3}, training=_NO_MOD
    ),
    Case(
        "Mod by itself",
        "q = Mul(A, c)\n y = Mod<fmod=1>(A, q)",
        _SMALL,
        (10, 26),
        {"c": -0.7},
        training=_NO_MOD,
    ),
    Case(
        "Mod, rounded down",
        "y = Mod(k, A)",
        _SMALL,
        (10, 26),
        {"k": -4.3},
        runtime="has Mod of floats with fmod alone",
        ad="takes every Mod for one that truncates",
    ),
    # Sum and Mean
    *(
        case
        for op_type in ("Sum", "Mean")
        for case in (
            Case(f"{op_type} of one", f"m = {op_type}(A)\n y = Mul(m, A)", _SMALL),
            Case(
                f"{op_type} of three",
                f"n = Neg(A)\n q = Mul(A, A)\n y = {op_type}(A, n, q)",
                _SMALL,
            ),
            Case(f"{op_type} of the same", f"y = {op_type}(A, A)", _SMALL),
            Case(
                f"{op_type} with a constant",
                f"y = {op_type}(k, A)",
                _SMALL,
                (8, 26),
                {"k": weights(3, 1, 1)},
            ),
            Case(
                f"{op_type} stretches A",
                f"y = {op_type}(A, k, k)",
                (2, 3, 1, 1),
                (8, 26),
                {"k": weights(3, 2, 3)},
            ),
        )
    ),
    *(
        Case(
            f"{op_type} of many, all stretched",
            f"s = Mul(A, c)\n y = {op_type}(k, A, m, s, n)",
            (2, 3, 1, 1),
            (8, 26),
            {"c": -0.5, "k": weights(3, 1, 4), "m": weights(2, 1), "n": 0.2},
        )
        for op_type in ("Sum", "Mean", "Max", "Min")
    ),
    # Where
    Case("Where of A", "c = Greater(A, k)\n y = Where(c, A, k)", _SMALL, (9, 26), {"k": 0.1}),
    Case("Where else A", "c = Greater(A, k)\n y = Where(c, k, A)", _SMALL, (9, 26), {"k": 0.1}),
    Case(
        "Where of both",
        "c = Greater(A, k)\n n = Mul(A, A)\n y = Where(c, A, n)",
        _SMALL,
        (9, 26),
        {"k": 0.1},
    ),
    Case(
        "Where of a constant mask",
        "y = Where(c, A, k)",
        _SMALL,
        (9, 26),
        {"c": np.array([[True], [False]]), "k": weights(3, 1, 1)},
    ),
    Case(
        "Where stretches A",
        "y = Where(c, A, k)",
        (2, 3, 1, 1),
        (9, 26),
        {"c": np.array([True, False, True]), "k": weights(3, 2, 1)},
    ),
    Case(
        "Where stretches A by its mask",
        "y = Where(c, k, A)",
        (2, 3, 1, 1),
        (9, 26),
        {"c": np.array([[True, False, True], [False, False, True]]), "k": 0.5},
    ),
]
