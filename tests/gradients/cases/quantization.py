"""Quantization: each model beside a float function whose true gradient is the straight-through one.

`QuantizedCase.smooth` is written by hand, with the bounds of the clipping worked out here; central
differences are taken of it, in float64. It is linear but for the clipping, so that it does not
matter that it does not round.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np
from onnx import ModelProto

from tests.gradients.case import Array, Case, weights


@dataclass(frozen=True, eq=False)
class QuantizedCase(Case):
    """A forward model that rounds, and one that does not.

    Attributes:
        smooth: the body in its place in float64.
        limits: constants that `smooth` reads beside those of the case.
    """

    smooth: str = ""
    limits: dict[str, Any] = field(default_factory=dict)

    def model(self, dtype: Any, opset: int, *, symbolic: bool = False) -> ModelProto:
        """Return the forward model; in float64, which QuantizeLinear does not take, the smooth."""
        if dtype is not np.float64:
            return Case.model(self, dtype, opset, symbolic=symbolic)
        constants = {**self.constants, **self.limits}
        smooth = replace(self, body=self.smooth, constants=constants)
        return Case.model(smooth, dtype, opset, symbolic=symbolic)


def inside(
    scale: Any, zero: Any, low: int, high: int, half: float = 0.5
) -> dict[str, Array | float]:
    """Return lo and hi: the values between which q is strictly between two integers."""
    scale, zero = np.asarray(scale, np.float64), np.asarray(zero, np.float64)
    return {"lo": (low + half - zero) * scale, "hi": (high - half - zero) * scale}


def number(value: int | list[Any], dtype: Any) -> Array:
    """Return a zero point."""
    return np.asarray(value, dtype)


CLIPPED = "low = Max(A, lo) c = Min(low, hi) y = Mul(c, w)"
PAIR = "q = QuantizeLinear(A, s, z) d = DequantizeLinear(q, s, z) y = Mul(d, w)"
S3, Z3 = np.array([0.011, 0.006, 0.02]), [10, -60, 100]
ALONG = np.array([1, 3, 1, 1])

CASES: list[QuantizedCase] = [
    QuantizedCase(
        "QuantizeLinear, DequantizeLinear of uint8",
        PAIR,
        opsets=(10, 26),
        constants={"s": 0.0131, "z": number(103, np.uint8), "w": weights(1, 3, 4, 5)},
        smooth=CLIPPED,
        limits=inside(0.0131, 103, 0, 255),
    ),
    QuantizedCase(
        "QuantizeLinear, DequantizeLinear of other scale, int8",
        "q = QuantizeLinear(A, s, z) d = DequantizeLinear(q, s2) y = Mul(d, w)",
        opsets=(10, 26),
        constants={"s": 0.015, "s2": 0.4, "z": number(-20, np.int8), "w": weights(1, 3, 4, 5)},
        smooth=f"{CLIPPED.replace('y =', 'd =')} y = Div(d, r)",
        limits={**inside(0.015, -20, -128, 127), "r": 0.015 / 0.4},
    ),
    QuantizedCase(
        "QuantizeLinear, DequantizeLinear per channel",
        PAIR,
        opsets=(13, 26),
        constants={"s": S3, "z": number(Z3, np.int8), "w": weights(1, 3, 4, 5)},
        smooth=CLIPPED,
        limits=inside(S3.reshape(ALONG), np.reshape(Z3, ALONG), -128, 127),
    ),
    QuantizedCase(
        "QuantizeLinear, DequantizeLinear along the last axis",
        PAIR.replace("Linear(", "Linear<axis=-1>("),
        shape=(2, 4, 3),
        opsets=(13, 26),
        constants={"s": S3, "z": number(Z3, np.int8), "w": weights(1, 4, 3)},
        smooth=CLIPPED,
        limits=inside(S3, Z3, -128, 127),
    ),
    QuantizedCase(
        "QuantizeLinear, DequantizeLinear in blocks",
        PAIR.replace("Linear(", "Linear<axis=2, block_size=2>("),
        shape=(2, 3, 5),
        opsets=(21, 26),
        symbolic=(),
        images=False,
        constants={
            "s": np.linspace(0.006, 0.02, 18).reshape(2, 3, 3),
            "z": number(np.arange(-40, 50, 5).reshape(2, 3, 3).tolist(), np.int8),
            "w": weights(1, 3, 5),
        },
        smooth=CLIPPED,
        limits=inside(
            np.repeat(np.linspace(0.006, 0.02, 18).reshape(2, 3, 3), 2, 2)[..., :5],
            np.repeat(np.arange(-40, 50, 5).reshape(2, 3, 3), 2, 2)[..., :5],
            -128,
            127,
        ),
    ),
    QuantizedCase(
        "QuantizeLinear, DequantizeLinear of uint16",
        PAIR,
        opsets=(21, 26),
        constants={"s": 4e-5, "z": number(30000, np.uint16), "w": weights(1, 3, 4, 5)},
        smooth=CLIPPED,
        limits=inside(4e-5, 30000, 0, 65535),
    ),
    QuantizedCase(
        "numbers of one grid on another of its extent",
        "q = QuantizeLinear(A, s, z) d = DequantizeLinear(q, s, z) p = GlobalAveragePool(d)"
        " r = QuantizeLinear(p, s, z) f = DequantizeLinear(r, s, z) y = Mul(f, w)",
        opsets=(10, 26),
        constants={"s": 0.0131, "z": number(103, np.uint8), "w": weights(1, 3, 1, 1)},
        smooth="low = Max(A, lo) c = Min(low, hi) p = GlobalAveragePool(c) y = Mul(p, w)",
        limits=inside(0.0131, 103, 0, 255),
    ),
    QuantizedCase(
        "moved as integers",
        "q = QuantizeLinear(A, s, z) t = Transpose<perm=[0, 2, 3, 1]>(q) r = Reshape(t, shape)"
        " v = Slice(r, one, big, one) d = DequantizeLinear(v, s, z) y = Mul(d, w)",
        opsets=(13, 26),
        constants={
            "s": 0.0131,
            "z": number(103, np.uint8),
            "shape": [0, -1],
            "one": [1],
            "big": [100],
            "w": weights(1, 59),
        },
        smooth="low = Max(A, lo) c = Min(low, hi) t = Transpose<perm=[0, 2, 3, 1]>(c)"
        " r = Reshape(t, shape) v = Slice(r, one, big, one) y = Mul(v, w)",
        limits=inside(0.0131, 103, 0, 255),
    ),
    QuantizedCase(
        "joined as integers",
        "q = QuantizeLinear(A, s, z) n = Neg(A) m = QuantizeLinear(n, s, z)"
        " j = Concat<axis=1>(q, m) d = DequantizeLinear(j, s, z) y = Mul(d, w)",
        opsets=(13, 26),
        constants={"s": 0.0131, "z": number(103, np.uint8), "w": weights(1, 6, 4, 5)},
        smooth="low = Max(A, lo) c = Min(low, hi) n = Neg(A) low2 = Max(n, lo) c2 = Min(low2, hi)"
        " j = Concat<axis=1>(c, c2) y = Mul(j, w)",
        limits=inside(0.0131, 103, 0, 255),
    ),
    QuantizedCase(
        "Relu before QuantizeLinear",
        "a = Relu(A) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) y = Mul(d, w)",
        opsets=(10, 26),
        constants={"s": 0.0131, "z": number(-10, np.int8), "w": weights(1, 3, 4, 5)},
        smooth=CLIPPED,
        limits=inside(0.0131, -10, -10, 127),
    ),
    QuantizedCase(
        "Clip between two steps before QuantizeLinear",
        "a = Clip(A, min, max) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z)"
        " y = Mul(d, w)",
        opsets=(11, 26),
        constants={
            "s": 0.02,
            "z": number(100, np.uint8),
            "min": -0.708,
            "max": 1.313,
            "w": weights(1, 3, 4, 5),
        },
        smooth=CLIPPED,  # round(-0.708 / 0.02) = -35, round(1.313 / 0.02) = 66
        limits=inside(0.02, 100, 65, 166),
    ),
    QuantizedCase(
        "HardSigmoid before QuantizeLinear",
        "a = HardSigmoid<alpha = 0.4>(A) q = QuantizeLinear(a, s, z)"
        " d = DequantizeLinear(q, s, z) y = Mul(d, w)",
        opsets=(10, 26),
        constants={"s": 1 / 300, "z": number(0, np.uint8), "w": weights(1, 3, 4, 5)},
        smooth="b = Mul(A, k) e = Add(b, h) low = Max(e, lo) c = Min(low, hi) y = Mul(c, w)",
        limits={**inside(1 / 300, 0, 0, 255), "k": 0.4, "h": 0.5},
    ),
    QuantizedCase(
        "activation that something else reads, too",
        "a = Relu(A) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) b = Mul(d, w)"
        " y = Add(a, b)",
        opsets=(10, 26),
        constants={"s": 0.0091, "z": number(0, np.uint8), "w": weights(1, 3, 4, 5)},
        smooth="a = Relu(A) c = Min(a, hi) b = Mul(c, w) y = Add(a, b)",
        limits={"hi": 254.5 * 0.0091},
    ),
    QuantizedCase(
        "MaxPool on the grid",
        "q = QuantizeLinear(A, s, z) d = DequantizeLinear(q, s, z)"
        " p = MaxPool<kernel_shape=[2, 2]>(d) r = QuantizeLinear(p, s, z)"
        " f = DequantizeLinear(r, s, z) y = Mul(f, w)",
        opsets=(10, 26),
        constants={"s": 0.0131, "z": number(103, np.uint8), "w": weights(1, 3, 3, 4)},
        smooth="low = Max(A, lo) c = Min(low, hi) p = MaxPool<kernel_shape=[2, 2]>(c)"
        " y = Mul(p, w)",
        limits=inside(0.0131, 103, 0, 255),
    ),
    QuantizedCase(
        "DynamicQuantizeLinear",
        "q, s, z = DynamicQuantizeLinear(A) d = DequantizeLinear(q, s, z) y = Mul(d, w)",
        opsets=(11, 26),
        constants={"w": weights(1, 3, 4, 5)},
        smooth="y = Mul(A, w)",
        images=False,
    ),
    QuantizedCase(
        "ConvInteger",
        "q = QuantizeLinear(A, s, z) i = ConvInteger<pads=[1, 1, 1, 1]>(q, k, z, zk)"
        " f = Cast<to=TYPE>(i) t = Mul(s, sk) y = Mul(f, t)",
        opsets=(10, 26),
        constants={
            "s": 0.0131,
            "z": number(103, np.uint8),
            "k": np.random.default_rng(3).integers(0, 256, (2, 3, 3, 3)).astype(np.uint8),
            "zk": number(120, np.uint8),
            "sk": 0.01,
        },
        smooth="low = Max(A, lo) c = Min(low, hi) y = Conv<pads=[1, 1, 1, 1]>(c, kernel)",
        limits={
            **inside(0.0131, 103, 0, 255),
            "kernel": 0.01
            * (np.random.default_rng(3).integers(0, 256, (2, 3, 3, 3)).astype(np.float64) - 120),
        },
    ),
    QuantizedCase(
        "MatMulInteger of one zero point per column",
        "q = QuantizeLinear(A, s, z) i = MatMulInteger(q, k, z, zk) f = Cast<to=TYPE>(i)"
        " g = Mul(f, sk) y = Mul(g, s)",
        shape=(2, 4, 3),
        opsets=(10, 26),
        constants={
            "s": 0.0131,
            "z": number(103, np.uint8),
            "k": np.arange(-7, 8).reshape(3, 5).astype(np.int8),
            "zk": number([1, -2, 3, 0, 2], np.int8),
            "sk": np.array([0.1, 0.2, 0.3, 0.4, 0.5]),
        },
        smooth="low = Max(A, lo) c = Min(low, hi) y = MatMul(c, m)",
        limits={
            **inside(0.0131, 103, 0, 255),
            "m": (np.arange(-7, 8).reshape(3, 5) - np.array([1, -2, 3, 0, 2]))
            * np.array([0.1, 0.2, 0.3, 0.4, 0.5]),
        },
    ),
    QuantizedCase(
        "MatMulInteger of two operands",
        "q = QuantizeLinear(A, s, z) t = Transpose<perm=[0, 2, 1]>(q)"
        " i = MatMulInteger(q, t, z, z) f = Cast<to=TYPE>(i) g = Mul(f, s) y = Mul(g, s)",
        shape=(2, 4, 3),
        opsets=(10, 26),
        constants={"s": 0.5, "z": number(7, np.uint8)},
        smooth="t = Transpose<perm=[0, 2, 1]>(A) y = MatMul(A, t)",
        images=False,
        values="steps",  # which are on the grid
    ),
    *(
        QuantizedCase(
            f"QuantizeLinear, DequantizeLinear of {name}",
            PAIR,
            opsets=(21, 26),
            constants={"s": 0.21, "z": zero, "w": weights(1, 3, 4, 5)},
            smooth=CLIPPED,  # a value on a bound is not taken to be clipped
            limits=inside(0.21, zero.astype(int), low, high, half=-0.5),
        )
        for name, zero, low, high in (
            ("int4", number(-2, ml_dtypes.int4), -8, 7),
            ("uint4", number(9, ml_dtypes.uint4), 0, 15),
        )
    ),
    QuantizedCase(
        "QuantizeLinear, DequantizeLinear of float8",
        PAIR,
        opsets=(19, 26),
        constants={
            "s": 0.003,
            "z": number(0, ml_dtypes.float8_e4m3fn),
            "w": weights(1, 3, 4, 5),
        },
        smooth=CLIPPED,
        limits=inside(0.003, 0, -448, 448, half=0.0),
    ),
]  # fmt: skip
