"""Activation functions in Where, Mul, Add, Exp, Log, Tanh, Clip.

Where a function has two branches, Where chooses, so that the gradient at the boundary is that of
one branch, as in PyTorch.
"""

from __future__ import annotations

import math

from onnx_gradcam.export.builders.rules.site import Rule, Site


def hard_sigmoid(at: Site) -> bool:
    """HardSigmoid(x) -> Clip(alpha x + beta, 0, 1)."""
    _clipped_line(at, at.attribute("alpha", 0.2), at.attribute("beta", 0.5), into=at.y)
    return True


def hard_swish(at: Site) -> bool:
    """HardSwish(x) -> x Clip(x / 6 + 1 / 2, 0, 1)."""
    at.emit("Mul", at.x, _clipped_line(at, 1 / 6, 0.5), into=at.y)
    return True


def _clipped_line(at: Site, slope: float, offset: float, into: str | None = None) -> str:
    line = at.emit("Add", at.emit("Mul", at.x, float(slope)), float(offset))
    return at.emit("Clip", line, 0.0, 1.0, into=into)


def elu(at: Site) -> bool:
    """Elu(x) -> x where x > 0, else alpha (exp(x) - 1)."""
    return _exponential_unit(at, scale=at.attribute("alpha", 1.0))


def celu(at: Site) -> bool:
    """Celu(x) -> x where x > 0, else alpha (exp(x / alpha) - 1)."""
    alpha = at.attribute("alpha", 1.0)
    return _exponential_unit(at, scale=alpha, steepness=1 / alpha)


def selu(at: Site) -> bool:
    """Selu(x) -> gamma x where x > 0, else gamma alpha (exp(x) - 1)."""
    alpha = at.attribute("alpha", 1.67326319217681884765625)
    gamma = at.attribute("gamma", 1.05070102214813232421875)
    return _exponential_unit(at, scale=alpha * gamma, slope=gamma)


def _exponential_unit(
    at: Site, *, scale: float, steepness: float = 1.0, slope: float = 1.0
) -> bool:
    """Emit slope x where x > 0, else scale (exp(steepness x) - 1)."""
    positive = at.emit("Greater", at.x, 0.0)
    # exp of the other branch could overflow, and infinity times no gradient is not a number
    below = at.emit("Where", positive, 0.0, at.x)
    inner = below if steepness == 1.0 else at.emit("Mul", below, float(steepness))
    curve = at.emit("Mul", at.emit("Sub", at.emit("Exp", inner), 1.0), float(scale))
    line = at.x if slope == 1.0 else at.emit("Mul", at.x, float(slope))
    at.emit("Where", positive, line, curve, into=at.y)
    return True


def prelu(at: Site) -> bool:
    """PRelu(x, slope) -> x where x > 0, else slope x."""
    positive = at.emit("Greater", at.x, 0.0)
    at.emit("Where", positive, at.x, at.emit("Mul", at.x, at.input(1)), into=at.y)
    return True


def thresholded_relu(at: Site) -> bool:
    """ThresholdedRelu(x) -> x where x > alpha, else 0."""
    above = at.emit("Greater", at.x, float(at.attribute("alpha", 1.0)))
    at.emit("Where", above, at.x, 0.0, into=at.y)
    return True


def shrink(at: Site) -> bool:
    """Shrink(x) -> x + bias where x < -lambd, else x - bias where x > lambd, else 0."""
    threshold, bias = float(at.attribute("lambd", 0.5)), float(at.attribute("bias", 0.0))
    above = at.emit("Greater", at.x, threshold)
    upper = at.emit("Where", above, at.emit("Sub", at.x, bias), 0.0)
    below = at.emit("Less", at.x, -threshold)
    at.emit("Where", below, at.emit("Add", at.x, bias), upper, into=at.y)
    return True


def softplus(at: Site) -> bool:
    """Softplus(x) -> max(x, 0) + log(1 + exp(-|x|))."""
    _softplus(at, into=at.y)
    return True


def _softplus(at: Site, into: str | None = None) -> str:
    positive = at.emit("Greater", at.x, 0.0)
    above = at.emit("Where", positive, at.x, 0.0)
    minus_size = at.emit("Where", positive, at.emit("Neg", at.x), at.x)
    rest = at.emit("Log", at.emit("Add", at.emit("Exp", minus_size), 1.0))
    return at.emit("Add", above, rest, into=into)


def mish(at: Site) -> bool:
    """Mish(x) -> x tanh(softplus(x))."""
    at.emit("Mul", at.x, at.emit("Tanh", _softplus(at)), into=at.y)
    return True


def softsign(at: Site) -> bool:
    """Softsign(x) -> x / (1 + |x|)."""
    size = at.emit("Add", at.emit("Abs", at.x), 1.0)
    at.emit("Mul", at.x, at.emit("Reciprocal", size), into=at.y)
    return True


def swish(at: Site) -> bool:
    """Swish(x) -> x sigmoid(alpha x); the operator is newer than the builder's opsets."""
    alpha = at.attribute("alpha", 1.0)
    inner = at.x if alpha == 1.0 else at.emit("Mul", at.x, float(alpha))
    at.emit("Mul", at.x, at.emit("Sigmoid", inner), into=at.y)
    return True


def gelu(at: Site) -> bool:
    """Gelu<tanh>(x) -> x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).

    The builder has the exact Gelu; it would take this one for that.
    """
    if at.attribute("approximate", "none") != "tanh":
        return False
    cube = at.emit("Mul", at.emit("Mul", at.x, at.x), at.x)
    inner = at.emit("Add", at.x, at.emit("Mul", cube, 0.044715))
    curve = at.emit("Tanh", at.emit("Mul", inner, math.sqrt(2 / math.pi)))
    half = at.emit("Mul", at.x, 0.5)
    at.emit("Mul", half, at.emit("Add", curve, 1.0), into=at.y)
    return True


RULES: dict[str, Rule] = {
    "Celu": celu,
    "Elu": elu,
    "Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "Mish": mish,
    "PRelu": prelu,
    "Selu": selu,
    "Shrink": shrink,
    "Softplus": softplus,
    "Softsign": softsign,
    "Swish": swish,
    "ThresholdedRelu": thresholded_relu,
}
