"""Sizes that are known at run time only, beside the batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gradients.case import Case, weights

_MAP = (2, 3, 6, 5)
_UNKNOWN = (0, 2, 3)
_REFUSED = "refuses auto_pad and ceil_mode, and takes some strides wrongly"
_WRONG = ("ceil_mode", "dilations", "strides=[3, 4]")


def _windows() -> list[Case]:
    """Return convolutions and poolings of maps of unknown size."""
    cases = []

    def add(op_type: str, attributes: str, shape: tuple[int, ...] = _MAP, **more: Any) -> None:
        first = 19 if op_type == "AveragePool" and "dilations" in attributes else 10
        wrong = op_type == "AveragePool" and any(text in attributes for text in _WRONG)
        ad = _REFUSED if "SAME" in attributes or wrong else ""
        options: dict[str, Any] = {"opsets": (first, 26), "symbolic": _UNKNOWN, "ad": ad, **more}
        cases.append(
            Case(
                f"{op_type} {attributes} of {shape}",
                f"y = {op_type}<{attributes}>(A)",
                shape,
                **options,
            )
        )

    for op_type in ("MaxPool", "AveragePool"):
        add(op_type, "kernel_shape=[2, 2], strides=[2, 2]")
        add(op_type, "kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]")
        add(op_type, "kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]", (1, 2, 7, 7))
        add(op_type, "kernel_shape=[3, 2], strides=[1, 3], pads=[2, 0, 1, 1]", (1, 2, 7, 8))
        add(op_type, "kernel_shape=[3, 3], pads=[1, 1, 1, 1]")
        add(op_type, "kernel_shape=[2, 3]")
        add(op_type, "kernel_shape=[2, 1], strides=[3, 4]", (1, 2, 8, 7))
        add(op_type, "kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1")
        add(op_type, "kernel_shape=[2, 3], strides=[3, 2], pads=[1, 1, 1, 1], ceil_mode=1")
        add(
            op_type,
            "kernel_shape=[3, 2], strides=[2, 2], dilations=[2, 3], pads=[2, 1, 1, 1]",
            (1, 2, 7, 6),
        )
        for auto in ("SAME_UPPER", "SAME_LOWER"):
            add(op_type, f'kernel_shape=[3, 2], strides=[2, 3], auto_pad="{auto}"')
            add(op_type, f'kernel_shape=[3, 2], strides=[2, 1], auto_pad="{auto}"', (1, 2, 7, 4))
        add(op_type, 'kernel_shape=[3, 3], strides=[2, 2], auto_pad="VALID"')
        add(op_type, "kernel_shape=[3], strides=[2], pads=[1, 0]", (2, 3, 8), symbolic=(0, 2))
        add(
            op_type,
            "kernel_shape=[2, 1, 2], strides=[1, 2, 2]",
            (1, 2, 3, 3, 4),
            symbolic=(0, 2, 3, 4),
        )
        add(
            op_type,
            "kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]",
            (1, 3, 6, 4),
            symbolic=(0, 1, 2, 3),
        )
    add(
        "AveragePool", "kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1"
    )
    add(
        "AveragePool",
        "kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1, ceil_mode=1",
    )
    return cases


def _conv(name: str, attributes: str, shape: tuple[int, ...], weight: tuple[int, ...]) -> Case:
    return Case(
        f"Conv {name}, of unknown size",
        f"y = Conv<{attributes}>(A, w)",
        shape,
        (10, 26),
        {"w": weights(*weight)},
        symbolic=tuple(a for a in range(len(shape)) if a != 1),
        ad="refuses auto_pad",
    )


_CONVOLUTIONS = [
    *(
        _conv(
            f"{auto}, stride {s}, {h}",
            f'auto_pad="{auto}", strides=[{s}, 2]',
            (1, 2, h, 5),
            (3, 2, 3, 2),
        )
        for auto in ("SAME_UPPER", "SAME_LOWER")
        for s, h in ((2, 6), (2, 7), (3, 8))
    ),
    _conv(
        "SAME_UPPER, depthwise",
        'auto_pad="SAME_UPPER", strides=[2, 2], group=3',
        _MAP,
        (3, 1, 3, 3),
    ),
    _conv("SAME_UPPER, 1-D", 'auto_pad="SAME_UPPER", strides=[2]', (2, 3, 7), (2, 3, 3)),
]


def _slice(
    name: str, start: list[int], end: list[int], axes: list[int], steps: list[int], **more: Any
) -> Case:
    options: dict[str, Any] = {"opsets": (11, 26), "symbolic": _UNKNOWN, **more}
    return Case(
        f"Slice {name}, of unknown size",
        "s = Slice(A, start, end, axes, steps)\n y = Mul(s, s)",
        _MAP,
        constants={"start": start, "end": end, "axes": axes, "steps": steps},
        **options,
    )


_BIG = 2**31 - 1

_SLICES = [
    _slice("from 1", [1], [_BIG], [2], [1], opsets=(10, 26)),
    _slice("to -1", [0, 2], [-1, -2], [2, 3], [1, 1], opsets=(10, 26)),
    _slice("of the last", [-1], [_BIG], [3], [1], opsets=(10, 26)),
    _slice("of the first", [0], [1], [2], [1], opsets=(10, 26)),
    _slice("beyond both ends", [-100, 1], [100, 100], [2, 3], [1, 1]),
    _slice("from -4 to 3", [-4], [3], [3], [1]),
    _slice("in steps", [0, 1], [_BIG, _BIG], [2, 3], [2, 3], ad="refuses steps"),
    _slice("in steps from the end", [-4], [-1], [2], [2], ad="refuses steps"),
    _slice("backwards", [-1, 3], [-_BIG, 0], [2, 3], [-1, -2], ad="refuses steps"),
    Case(
        "Slice-1 of unknown size",
        "s = Slice<axes=[2, 3], starts=[1, -3], ends=[2147483647, -1]>(A)\n y = Mul(s, s)",
        _MAP,
        (7, 9),
        symbolic=_UNKNOWN,
    ),
    *(
        Case(
            f"Slice to a computed {what}",
            f"n = Shape(w)\n s = Slice(A, {bounds}, axes)\n y = Mul(s, s)",
            (4, 6, 5),
            (13, 26),
            {"k": k, "axes": [1, 2]},
            inputs={"w": (1, 3)},
            symbolic=symbolic,
        )
        for what, bounds, k, symbolic in (
            ("end", "k, n", [-6, 1], (0, 1, 2)),
            ("start", "n, k", [_BIG, 4], (0, 1, 2)),
            ("start of known sizes", "n, k", [-1, -1], (0,)),
        )
    ),
]

_JOINS = [
    Case(
        "Concat of unknown sizes",
        "n = Neg(A)\n c = Concat<axis=2>(n, A)\n y = Mul(c, c)",
        (2, 3, 4),
        (10, 26),
        symbolic=(0, 2),
        training="writes a Split of computed sizes",
    ),
    Case(
        "Concat of one unknown size, first",
        "c = Concat<axis=1>(A, w)\n y = Mul(c, v)",
        (2, 3, 4),
        inputs={"w": (0, 2, 4), "v": (0, 5, 4)},
        symbolic=(0, 1),
        training="writes a Split of computed sizes",
    ),
    Case(
        "Concat of one unknown size, between",
        "c = Concat<axis=1>(w, A, u)\n y = Mul(c, v)",
        (2, 3, 4),
        (7, 9),
        inputs={"w": (0, 2, 4), "u": (0, 1, 4), "v": (0, 6, 4)},
        symbolic=(0, 1),
        training="needs opset 13 for sizes known at run time only",
    ),
    Case(
        "Concat of axis 0, of unknown size",
        "n = Exp(A)\n c = Concat<axis=0>(n, A)\n y = Mul(c, m)",
        (2, 3),
        (10, 26),
        {"m": weights(4, 3)},
        images=False,
        training="writes a Split of computed sizes",
    ),
    Case(
        "Split of unknown sizes",
        "a, b, c = Split<axis=1>(A, k)\n m = Mul(a, b)\n y = Add(m, c)",
        (2, 4, 3, 2),
        (13, 26),
        {"k": [1, 1, 2]},
        symbolic=_UNKNOWN,
        images=False,
    ),
    Case(
        "Split into parts of unknown size",
        "a, b = Split<axis=2, num_outputs=2>(A)\n y = Mul(b, b)",
        (2, 3, 5),
        (18, 26),
        symbolic=(0, 2),
        training="the unused part has no known size",
    ),
    Case(
        "Reshape of several unknown sizes",
        "s = Shape(A)\n t = Transpose<perm=[0, 2, 3, 1]>(A)\n r = Reshape(t, k)\n y = Mul(r, r)",
        _MAP,
        constants={"k": [0, -1, 3]},
        symbolic=_UNKNOWN,
    ),
    Case(
        "Squeeze of unknown sizes",
        "g = Unsqueeze<axes=[2]>(A)\n s = Squeeze<axes=[2]>(g)\n y = Mul(s, s)",
        (2, 3, 4),
        (7, 12),
        symbolic=(0, 1, 2),
    ),
    Case(
        "Add of sizes known at run time",
        "a = Add(A, w)\n y = Mul(a, a)",
        (1, 3, 4),
        (7, 26),
        inputs={"w": (2, 3, 4)},
        symbolic=(0, 1, 2),
        images=False,
        training="takes sizes for equal of which one is a symbol",
    ),
]


def _gather(name: str, axis: int, index: Any, first: int = 9, **more: Any) -> Case:
    options: dict[str, Any] = {"opsets": (first, 26), "symbolic": (0, 1, 2), **more}
    return Case(
        f"Gather {name}, of unknown size",
        f"g = Gather<axis={axis}>(A, k)\n y = Mul(g, g)",
        (2, 4, 5),
        constants={"k": np.asarray(index, np.int64)},
        **options,
    )


_GATHERS = [
    _gather("of one", 1, 2),
    _gather("of the last", 1, -1, 11),
    _gather("of several", 1, [2, 0]),
    _gather("from the end", 2, [[-1, 0], [3, -1], [-1, 2]], 11),
    _gather("of a matrix", 1, [[2, 0, 1], [1, 2, 2]], images=True),
    *(
        Case(
            f"Gather of computed indices, {name}",
            f"i = ArgMax<axis=1, keepdims=0>(w)\n g = Gather<axis={axis}>(A, i)\n y = Exp(g)",
            (2, 3, 4),
            (9, 26),
            inputs={"w": (2, 3, 3)[:rank]},
            symbolic=symbolic,
            images=False,
        )
        for name, axis, rank, symbolic in (
            ("known sizes", 1, 2, (0,)),
            ("unknown sizes", 2, 2, (0, 1, 2)),
            ("a matrix", 1, 3, (0, 2)),
        )
    ),
]

CASES = [*_windows(), *_CONVOLUTIONS, *_SLICES, *_JOINS, *_GATHERS]
