"""Operators that move values."""

from __future__ import annotations

from typing import Any

from tests.gradients.case import Case, weights

_MAP = (2, 3, 4, 5)
_CROP = "does not crop"
_BIG = 2**31 - 1
_BIGGER = 2**63 - 1

_RESHAPE = [
    Case("Reshape", "r = Reshape(A, k)\n y = Mul(r, r)", _MAP, constants={"k": [0, 3, 20]}),
    Case(
        "Reshape of unknown sizes",
        "r = Reshape(A, k)\n y = Mul(r, r)",
        _MAP,
        constants={"k": [0, 0, -1]},
        symbolic=(0, 2, 3),
    ),
    Case(
        "Reshape without a batch",
        "r = Reshape(A, k)\n y = Mul(r, r)",
        _MAP,
        constants={"k": [-1]},
        images=False,
    ),
    Case(
        "Reshape by allowzero",
        "r = Reshape<allowzero=1>(A, k)\n y = Mul(r, r)",
        _MAP,
        (14, 26),
        {"k": [2, 60]},
        symbolic=(),
        images=False,
    ),
    Case(
        "Reshape to a computed shape",
        "s = Shape(w)\n r = Reshape(A, s)\n y = Exp(r)",
        (2, 3, 4),
        (13, 26),
        inputs={"w": (0, 12)},
    ),
    *(
        Case(
            f"Flatten {axis}",
            f"r = Flatten<axis={axis}>(A)\n y = Mul(r, r)",
            _MAP,
            (first, 26),
            images=axis != 0,
        )
        for axis, first in ((0, 7), (1, 7), (2, 7), (4, 9), (-1, 11))
    ),
    Case("Flatten of unknown sizes", "r = Flatten(A)\n y = Mul(r, r)", _MAP, symbolic=(0, 2, 3)),
    Case("Squeeze-1", "r = Squeeze<axes=[1, 3]>(A)\n y = Mul(r, r)", (2, 1, 3, 1), (7, 12)),
    Case("Squeeze-11", "r = Squeeze<axes=[-1, -3]>(A)\n y = Mul(r, r)", (2, 1, 3, 1), (11, 12)),
    Case("Squeeze-1 of all", "r = Squeeze(A)\n y = Mul(r, r)", (2, 1, 3, 1), (7, 12), symbolic=()),
    Case("Squeeze-13", "r = Squeeze(A, k)\n y = Mul(r, r)", (2, 1, 3, 1), (13, 26), {"k": [-1, 1]}),
    Case(
        "Squeeze-13 of all", "r = Squeeze(A)\n y = Mul(r, r)", (2, 1, 3, 1), (13, 26), symbolic=()
    ),
    Case("Unsqueeze-1", "r = Unsqueeze<axes=[1, 3]>(A)\n y = Mul(r, r)", (2, 3), (7, 12)),
    Case(
        "Unsqueeze-11",
        "r = Unsqueeze<axes=[-1, 0]>(A)\n y = Mul(r, r)",
        (2, 3),
        (11, 12),
        images=False,
    ),
    Case("Unsqueeze-13", "r = Unsqueeze(A, k)\n y = Mul(r, r)", (2, 3), (13, 26), {"k": [-1, 1]}),
    Case("Transpose", "t = Transpose(A)\n y = Mul(t, t)", (2, 3, 4), images=False),
    Case(
        "Transpose to channels last",
        "t = Transpose<perm=[0, 2, 3, 1]>(A)\n y = Mul(t, t)",
        _MAP,
        symbolic=(0, 2, 3),
    ),
    Case(
        "Transpose in a circle",
        "t = Transpose<perm=[2, 0, 1]>(A)\n y = Mul(t, t)",
        (2, 3, 4),
        images=False,
    ),
    Case("Transpose of nothing", "t = Transpose<perm=[0, 1]>(A)\n y = Mul(t, t)", (2, 3)),
]

_STRETCH = [
    Case("Expand", "y = Expand(A, k)", (2, 3, 1), (8, 26), {"k": [1, 3, 4]}),
    Case(
        "Expand to more axes",
        "y = Expand(A, k)",
        (3, 1),
        (8, 26),
        {"k": [2, 3, 4]},
        images=False,
        symbolic=(),
    ),
    Case(
        "Expand by a shape with ones",
        "e = Expand(A, k)\n y = Mul(e, e)",
        (2, 3, 4),
        (8, 26),
        {"k": [1, 1]},
    ),
    Case(
        "Expand to a computed shape",
        "s = Shape(w)\n y = Expand(A, s)",
        (2, 3, 1),
        (13, 26),
        inputs={"w": (0, 3, 4)},
    ),
    Case(
        "Expand to its own shape",
        "s = Shape(A)\n g = GlobalAveragePool(A)\n y = Expand(g, s)",
        (2, 3, 4),
        (13, 26),
    ),
]

_CONCAT = [
    Case(
        "Concat",
        "n = Neg(A)\n c = Concat<axis=1>(n, A, k)\n y = Mul(c, c)",
        (2, 3, 4),
        constants={"k": weights(2, 2, 4)},
        images=False,
        symbolic=(),
    ),
    Case(
        "Concat of the same",
        "c = Concat<axis=1>(A, A)\n y = Mul(c, w)",
        (2, 3, 4),
        inputs={"w": (0, 6, 4)},
    ),
    Case(
        "Concat of axis -1",
        "n = Neg(A)\n c = Concat<axis=-1>(n, A)\n y = Mul(c, w)",
        (2, 3, 4),
        (11, 26),
        inputs={"w": (0, 3, 8)},
    ),
    Case(
        "Concat of axis 0",
        "n = Neg(A)\n c = Concat<axis=0>(k, n, A)\n y = Mul(c, m)",
        (2, 3),
        constants={"k": weights(1, 3), "m": weights(5, 3)},
        images=False,
        symbolic=(),
    ),
    Case("Concat of one", "c = Concat<axis=1>(A)\n y = Mul(c, c)", (2, 3, 4)),
    Case(
        "Concat with an input first",
        "c = Concat<axis=1>(w, A)\n y = Mul(c, v)",
        (2, 3, 4),
        inputs={"w": (0, 2, 4), "v": (0, 5, 4)},
    ),
]

_SPLIT = [
    Case("Split-2 in halves", "a, b = Split<axis=1>(A)\n y = Mul(a, b)", (2, 4, 3), (7, 12)),
    Case(
        "Split-2",
        "a, b, c = Split<axis=2, split=[1, 2, 1]>(A)\n m = Mul(a, b)\n y = Mul(m, c)",
        (2, 3, 4),
        (7, 12),
    ),
    Case(
        "Split-2, one used",
        "a, b = Split<axis=1, split=[1, 3]>(A)\n y = Mul(b, b)",
        (2, 4, 3),
        (7, 12),
    ),
    Case(
        "Split-11, axis -1",
        "a, b = Split<axis=-1, split=[1, 3]>(A)\n y = Mul(a, b)",
        (2, 3, 4),
        (11, 12),
    ),
    Case(
        "Split-2 of axis 0",
        "a, b = Split(A)\n y = Mul(a, b)",
        (2, 3),
        (7, 12),
        images=False,
        symbolic=(),
    ),
    Case(
        "Split-13",
        "a, b, c = Split<axis=1>(A, k)\n m = Mul(a, c)\n y = Mul(m, b)",
        (2, 4, 3),
        (13, 26),
        {"k": [1, 2, 1]},
    ),
    Case(
        "Split-13, one used",
        "a, b, c = Split<axis=1>(A, k)\n y = Mul(b, b)",
        (2, 4, 3),
        (13, 26),
        {"k": [1, 2, 1]},
    ),
    Case(
        "Split-13, axis -1",
        "a, b = Split<axis=-1>(A, k)\n y = Mul(a, b)",
        (2, 3, 4),
        (13, 26),
        {"k": [3, 1]},
    ),
    Case("Split-13 in halves", "a, b = Split<axis=1>(A)\n y = Mul(a, b)", (2, 4, 3), (13, 17)),
    Case(
        "Split-18 in halves",
        "a, b = Split<axis=1, num_outputs=2>(A)\n y = Mul(a, b)",
        (2, 4, 3),
        (18, 26),
    ),
    Case(
        "Split-18 unevenly",
        "a, b, c = Split<axis=1, num_outputs=3>(A)\n m = Mul(a, b)\n y = Add(m, c)",
        (2, 7, 3),
        (18, 26),
        images=False,
    ),
    Case(
        "Split into one", "a = Split<axis=1>(A, k)\n y = Mul(a, a)", (2, 4, 3), (13, 26), {"k": [4]}
    ),
    Case(
        "Split as channel shuffle",
        "a, b = Split<axis=1>(A, k)\n c = Concat<axis=1>(b, a)\n y = Mul(c, w)",
        (2, 4, 3),
        (13, 26),
        {"k": [2, 2], "w": weights(4, 3)},
    ),
]


def _slice(
    name: str,
    starts: list[int],
    ends: list[int],
    axes: list[int],
    steps: list[int] | None = None,
    **more: Any,
) -> Case:
    constants = {"start": starts, "end": ends, "axes": axes}
    body = "s = Slice(A, start, end, axes)\n y = Mul(s, s)"
    if steps is not None:
        constants["steps"], body = steps, body.replace("axes)", "axes, steps)")
    refused = steps is not None and set(steps) != {1}
    options = {"opsets": (10, 26), "shape": _MAP, "ad": "refuses steps" if refused else "", **more}
    return Case(f"Slice {name}", body, constants=constants, **options)


_SLICE = [
    Case(
        "Slice-1",
        "s = Slice<axes=[1, 2], starts=[1, 0], ends=[3, 2]>(A)\n y = Mul(s, s)",
        _MAP,
        (7, 9),
        symbolic=(0, 3),
    ),
    Case(
        "Slice-1 from the end",
        "s = Slice<axes=[3, 2], starts=[-3, -4], ends=[-1, 100]>(A)\n y = Exp(s)",
        _MAP,
        (7, 9),
    ),
    Case(
        "Slice-1 without axes",
        "s = Slice<starts=[0, 1], ends=[2147483647, 2]>(A)\n y = Mul(s, s)",
        _MAP,
        (7, 9),
    ),
    Case(
        "Slice without axes",
        "s = Slice(A, start, end)\n y = Mul(s, s)",
        _MAP,
        (10, 26),
        {"start": [0, 1], "end": [_BIG, 3]},
    ),
    _slice("of two axes", [1, 0], [3, 2], [1, 2], symbolic=(0, 3)),
    _slice("to the end", [1, 2], [_BIG, _BIGGER], [1, 3]),
    _slice("from the end", [-3, -100], [-1, 100], [3, 2]),
    _slice("of axis -1", [2], [5], [-1]),
    _slice("of nothing", [0, 0], [_BIGGER, _BIG], [1, 2], symbolic=(0, 2, 3)),
    _slice("in steps of 2", [0], [_BIG], [3], [2]),
    _slice("in steps of 3 and 2", [1, 1], [5, 4], [3, 2], [3, 2]),
    _slice("in steps of 2, ending before the end", [1], [4], [3], [2]),
    _slice("of even rows", [1, 0], [_BIG, _BIG], [2, 3], [2, 2]),
    _slice("backwards", [-1], [-_BIGGER], [3], [-1]),
    _slice("backwards in steps of 2", [3, 2], [0, -100], [3, 2], [-2, -1]),
    _slice("of the first token", [0], [1], [1], shape=(2, 3, 4)),
]

_PAD = [
    Case(
        "Pad-2",
        "p = Pad<pads=[0, 0, 1, 2, 0, 1, 0, 1], value=0.5>(A)\n y = Mul(p, p)",
        _MAP,
        (7, 10),
        symbolic=(0, 2, 3),
    ),
    Case(
        "Pad-2, cropping",
        'p = Pad<mode="constant", pads=[0, 0, -1, 2, 0, 0, 0, -2]>(A)\n y = Mul(p, p)',
        _MAP,
        (7, 10),
        ad=_CROP,
    ),
    Case(
        "Pad-11",
        "p = Pad(A, k)\n y = Mul(p, p)",
        _MAP,
        (11, 26),
        {"k": [0, 0, 1, 2, 0, 1, 0, 1]},
        symbolic=(0, 2, 3),
    ),
    Case(
        "Pad-11 with a value",
        "p = Pad(A, k, f)\n y = Mul(p, p)",
        _MAP,
        (11, 26),
        {"k": [0, 0, 1, 2, 0, 1, 0, 1], "f": 0.5},
    ),
    Case(
        "Pad-11, cropping",
        "p = Pad(A, k)\n y = Mul(p, p)",
        _MAP,
        (11, 26),
        {"k": [0, 0, -1, 2, 0, 0, 0, -2]},
        ad=_CROP,
    ),
    Case(
        "Pad-18 of axes",
        "p = Pad(A, k, , x)\n y = Mul(p, p)",
        _MAP,
        (18, 26),
        {"k": [1, 0, 2, 1], "x": [-1, 1]},
    ),
    Case(
        "Pad-18 of axes, with a value",
        "p = Pad(A, k, f, x)\n y = Mul(p, p)",
        _MAP,
        (18, 26),
        {"k": [1, 2], "f": 0.5, "x": [2]},
    ),
    Case("Pad of nothing", "p = Pad(A, k)\n y = Mul(p, p)", _MAP, (11, 26), {"k": [0] * 8}),
]


CASES = [*_RESHAPE, *_STRETCH, *_CONCAT, *_SPLIT, *_SLICE, *_PAD]
