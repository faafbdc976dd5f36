"""Activation functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gradients.case import Case, positive, weights

_SMALL = (2, 3, 2, 3)
_NO_ATTRIBUTES = "takes the bounds from inputs alone"


def _unary(op_type: str, first: int = 7, values: str = "distinct", **more: Any) -> Case:
    return Case(op_type, f"y = {op_type}(A)", _SMALL, (first, 26), values=values, **more)


CASES = [
    _unary("Relu"),
    _unary("Sigmoid"),
    _unary("Tanh"),
    _unary("HardSwish", 14),
    Case("HardSwish beyond 3", "s = Mul(A, c)\n y = HardSwish(s)", _SMALL, (14, 26), {"c": 2.0}),
    _unary("Mish", 18),
    _unary("Softplus"),
    Case("LeakyRelu", "y = LeakyRelu(A)", _SMALL),
    Case("LeakyRelu 0.3", "y = LeakyRelu<alpha=0.3>(A)", _SMALL),
    Case("Elu", "y = Elu(A)", _SMALL),
    Case("Elu 0.7", "y = Elu<alpha=0.7>(A)", _SMALL),
    Case("Selu", "y = Selu(A)", _SMALL),
    Case("Selu 0.7, 1.3", "y = Selu<alpha=0.7, gamma=1.3>(A)", _SMALL),
    Case("HardSigmoid", "y = HardSigmoid(A)", _SMALL),
    Case("HardSigmoid 0.7, 0.4", "y = HardSigmoid<alpha=0.7, beta=0.4>(A)", _SMALL),
    Case("HardSigmoid falling", "y = HardSigmoid<alpha=-0.7, beta=0.4>(A)", _SMALL),
    Case("Celu", "y = Celu(A)", _SMALL, (12, 26), half=False),
    Case("Celu 0.6", "y = Celu<alpha=0.6>(A)", _SMALL, (12, 26), half=False),
    Case("ThresholdedRelu", "y = ThresholdedRelu(A)", _SMALL, (10, 26)),
    Case("ThresholdedRelu -0.4", "y = ThresholdedRelu<alpha=-0.4>(A)", _SMALL, (10, 26)),
    Case("Shrink", "y = Shrink(A)", _SMALL, (9, 26)),
    Case("Shrink 1.2, 0.7", "y = Shrink<lambd=1.2, bias=0.7>(A)", _SMALL, (9, 26)),
    Case("Shrink by nothing", "y = Shrink<lambd=-0.4>(A)", _SMALL, (9, 26)),
    _unary("Softsign"),
    Case("Gelu", "y = Gelu(A)", _SMALL, (20, 26)),
    Case("Gelu none", 'y = Gelu<approximate="none">(A)', _SMALL, (20, 26)),
    Case("Gelu tanh", 'y = Gelu<approximate="tanh">(A)', _SMALL, (20, 26)),
    Case(
        "Gelu written out",
        "d = Div(A, s)\n e = Erf(d)\n p = Add(e, one)\n m = Mul(A, p)\n y = Mul(m, half)",
        _SMALL,
        (9, 26),
        {"s": 2.0**0.5, "one": 1.0, "half": 0.5},
    ),
    Case("SiLU written out", "s = Sigmoid(A)\n y = Mul(A, s)", _SMALL),
    Case("Swish", "y = Swish(A)", _SMALL, (24, 24)),
    Case("Swish 1.7", "y = Swish<alpha=1.7>(A)", _SMALL, (24, 24)),
    # Clip: attributes up to opset 10, then inputs
    Case(
        "Clip to both attributes",
        "y = Clip<min=-1.1, max=1.3>(A)",
        _SMALL,
        (7, 10),
        ad=_NO_ATTRIBUTES,
    ),
    Case("Clip to a lower attribute", "y = Clip<min=-1.1>(A)", _SMALL, (7, 10), ad=_NO_ATTRIBUTES),
    Case("Clip to an upper attribute", "y = Clip<max=1.3>(A)", _SMALL, (7, 10), ad=_NO_ATTRIBUTES),
    Case("Clip to nothing, attributes", "y = Clip(A)", _SMALL, (7, 10)),
    Case("Clip to both inputs", "y = Clip(A, a, b)", _SMALL, (11, 26), {"a": -1.1, "b": 1.3}),
    Case("Clip to a lower input", "y = Clip(A, a)", _SMALL, (11, 26), {"a": -1.1}),
    Case("Clip to an upper input", "y = Clip(A, , b)", _SMALL, (11, 26), {"b": 1.3}),
    Case("Clip to nothing, inputs", "y = Clip(A)", _SMALL, (11, 26)),
    Case(
        "Clip to a computed bound",
        "r = ReduceMax<keepdims=0>(k)\n y = Clip(A, , r)",
        _SMALL,
        (11, 17),
        inputs={"k": (4,)},
    ),
    Case(
        "Relu6",
        "r = Relu(A)\n s = Mul(r, c)\n y = Clip(s, a, b)",
        _SMALL,
        (11, 26),
        {"a": 0.0, "b": 6.0, "c": 3.0},
    ),
    Case("Dropout-7", "d = Dropout<ratio=0.4>(A)\n y = Mul(d, A)", _SMALL, (7, 11)),
    Case("Dropout-12", "d = Dropout(A)\n y = Mul(d, A)", _SMALL, (12, 26)),
    Case("Dropout with a mask output", "d, mask = Dropout(A)\n y = Mul(d, A)", _SMALL, (10, 26)),
    Case("Dropout with a ratio", "d = Dropout(A, r)\n y = Mul(d, A)", _SMALL, (12, 26), {"r": 0.4}),
    Case(
        "Dropout, training off",
        "d = Dropout(A, r, t)\n y = Mul(d, A)",
        _SMALL,
        (12, 26),
        {"r": 0.4, "t": np.array(False)},
    ),
    # PRelu
    Case("PRelu per channel", "y = PRelu(A, k)", _SMALL, constants={"k": positive(3, 1, 1)}),
    Case("PRelu of one slope", "y = PRelu(A, k)", _SMALL, constants={"k": positive(1)}),
    Case("PRelu of a scalar slope", "y = PRelu(A, k)", _SMALL, constants={"k": 0.3}),
    Case("PRelu per element", "y = PRelu(A, k)", _SMALL, constants={"k": weights(3, 2, 3)}),
    Case("PRelu, four axes", "y = PRelu(A, k)", _SMALL, constants={"k": positive(1, 3, 1, 1)}),
    Case("PRelu along the last axis", "y = PRelu(A, k)", _SMALL, constants={"k": positive(3)}),
    Case("PRelu of an input", "y = PRelu(A, w)", _SMALL, inputs={"w": (0, 3, 1, 1)}),
    Case("PRelu by A", "s = Mul(A, c)\n y = PRelu(A, s)", _SMALL, constants={"c": -0.7}),
    Case(
        "PRelu by its slope",
        "y = PRelu(k, A)",
        (3, 1, 1),
        constants={"k": weights(2, 3, 2, 2)},
        symbolic=(),
        images=False,
    ),
]
