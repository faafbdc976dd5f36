"""Operators that pick or put single elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gradients.case import Array, Case, weights

_SHAPE = (2, 3, 4)
_NONE = "has no gradient for it"
_ELEMENTS = np.array([[[0, 3, 1], [2, 2, 0], [1, 0, 3]], [[3, 0, 0], [1, 2, 3], [0, 0, 0]]])
_FROM_THE_END = np.array([[[0, -1, 1], [2, -2, 0], [1, 0, 3]], [[-4, 0, 0], [1, 2, 3], [0, 0, 0]]])
_ONE_EACH = np.array([[[0, 3], [2, -1], [1, 0]], [[3, 0], [1, 2], [0, -2]]])
_POINTS = np.array([[[0, 2], [1, 1]], [[1, 0], [1, 1]]])


def _mixed(name: str, body: str, first: int = 11, last: int = 26, **constants: object) -> Case:
    values = {key: np.asarray(v, np.int64) for key, v in constants.items()}
    return Case(name, body, _SHAPE, (first, last), values, images=False, symbolic=())


_PLACES = np.array([[0, 2], [1, 1]])

_SCATTERS = [
    ("Scatter", "Scatter<axis=2>", (9, 10), _ONE_EACH % 4, (2, 3, 2)),
    ("ScatterElements", "ScatterElements<axis=2>", (11, 26), _ONE_EACH, (2, 3, 2)),
    (
        "ScatterElements, added",
        'ScatterElements<axis=-1, reduction="add">',
        (16, 26),
        _ELEMENTS,
        (2, 3, 3),
    ),
    ("ScatterND", "ScatterND", (11, 26), _PLACES, (2, 4)),
    ("ScatterND, added", 'ScatterND<reduction="add">', (16, 26), _PLACES[[0, 1, 0]], (3, 4)),
]


def _scatters(
    name: str, operator: str, opsets: tuple[int, int], index: Array, updates: tuple[int, ...]
) -> list[Case]:
    """Return a case by the data and one by the updates."""
    mixed: dict[str, Any] = {"opsets": opsets, "images": False, "symbolic": ()}
    mixed["training"] = {
        "Scatter": "writes operators of opset 11",
        "ScatterElements, added": "takes it to replace",
        "ScatterND, added": "takes it to replace",
    }.get(name, "")
    return [
        Case(
            f"{name}, the data",
            f"s = {operator}(A, i, u)\n y = Mul(s, s)",
            _SHAPE,
            constants={"i": index, "u": weights(*updates)},
            **mixed,
        ),
        Case(
            f"{name}, the updates",
            f"s = {operator}(d, i, A)\n y = Mul(s, s)",
            updates,
            constants={"i": index, "d": weights(*_SHAPE)},
            **mixed,
        ),
    ]


CASES = [
    _mixed("GatherElements", "g = GatherElements<axis=2>(A, i)\n y = Mul(g, g)", i=_ELEMENTS),
    _mixed(
        "GatherElements, axis -2",
        "g = GatherElements<axis=-2>(A, i)\n y = Mul(g, g)",
        i=np.zeros((2, 5, 4)) + np.arange(5)[:, None] % 3,
    ),
    _mixed(
        "GatherElements from the end",
        "g = GatherElements<axis=2>(A, i)\n y = Mul(g, g)",
        i=_FROM_THE_END,
    ),
    _mixed(
        "GatherElements of fewer",
        "g = GatherElements<axis=2>(A, i)\n y = Mul(g, g)",
        16,
        i=_ELEMENTS[:, :2],
    ),
    Case(
        "GatherElements of computed indices",
        "a = ArgMax<axis=2>(w)\n g = GatherElements<axis=2>(A, a)\n y = Mul(g, g)",
        _SHAPE,
        (13, 26),
        inputs={"w": (0, 3, 4)},
    ),
    *(
        _mixed(f"GatherND, {name}", "g = GatherND(A, i)\n y = Mul(g, g)", first, i=index)
        for name, index, first in (
            ("whole rows", [[0, 1], [1, 2], [0, 1]], 11),
            ("elements", [[0, 1, 3], [1, 2, 0]], 11),
            ("of a grid", _POINTS, 11),
            ("from the end", [[-1, 1, -3], [1, -2, 0]], 11),
        )
    ),
    *(
        Case(
            f"GatherND, batch {batch}, depth {np.shape(index)[-1]}",
            f"g = GatherND<batch_dims={batch}>(A, i)\n y = Mul(g, g)",
            _SHAPE,
            (12, 26),
            {"i": np.asarray(index, np.int64)},
            symbolic=symbolic,
            images=False,
            ad="refuses batch_dims",
        )
        for batch, index, symbolic in (
            (1, [[[0], [2], [2]], [[1], [1], [-1]]], (0,)),
            (1, [[0, 3], [2, -1]], (0, 2)),
            (2, _ELEMENTS[..., None], ()),
        )
    ),
    *(case for scatter in _SCATTERS for case in _scatters(*scatter)),
    *(
        Case(
            f"MaxUnpool, {rank}-D",
            f"p, i = MaxPool<{form}>(A)\n u = MaxUnpool<{form}>(p, i)\n y = Mul(u, u)",
            shape,
            (9, 26),
            training=_NONE,
            symbolic=(),
            images=False,
        )
        for rank, form, shape in (
            (1, "kernel_shape=[2], strides=[2]", (2, 3, 6)),
            (2, "kernel_shape=[2, 2], strides=[2, 2]", (2, 2, 4, 4)),
        )
    ),
    # TopK
    Case("TopK-1", "t, i = TopK<axis=1, k=2>(A)\n y = Mul(t, t)", _SHAPE, (7, 9)),
    Case("TopK-1 of the last axis", "t, i = TopK<k=3>(A)\n y = Mul(t, t)", _SHAPE, (7, 9)),
    Case("TopK-10", "t, i = TopK(A, k)\n y = Mul(t, t)", _SHAPE, (10, 10), {"k": [2]}),
    Case("TopK", "t, i = TopK<axis=1>(A, k)\n y = Mul(t, t)", _SHAPE, (11, 26), {"k": [2]}),
    Case(
        "TopK, the smallest",
        "t, i = TopK<largest=0, axis=-1>(A, k)\n y = Mul(t, t)",
        _SHAPE,
        (11, 26),
        {"k": [3]},
        symbolic=(0, 1, 2),
    ),
]
