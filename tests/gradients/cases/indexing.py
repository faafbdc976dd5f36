"""Operators that pick values by index."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gradients.case import Case


def _gather(
    name: str, axis: int, index: object, shape: tuple[int, ...] = (2, 3, 4), **more: Any
) -> Case:
    return Case(
        f"Gather {name}",
        f"g = Gather<axis={axis}>(A, k)\n y = Mul(g, g)",
        shape,
        constants={"k": np.asarray(index, np.int64)},
        **more,
    )


CASES = [
    _gather("of the class token", 1, 0),
    _gather("of one", 1, 1),
    _gather("of the last axis", 2, [3]),
    _gather("of several", 1, [2, 0]),
    _gather("of the same twice", 2, [1, 3, 1]),
    _gather("of axis 0", 0, [1], images=False, symbolic=()),
    _gather("from the end", 2, [-1, 0], opsets=(11, 26)),
    _gather("of one from the end", 1, -1, opsets=(11, 26)),
    _gather("of axis -1", -1, [0, 2], opsets=(11, 26)),
    Case(
        "Gather of rows",
        "g = Gather(A, k)\n y = Mul(g, g)",
        (3, 4),
        constants={"k": [0, 2, 0]},
        images=False,
        symbolic=(),
    ),
    # indices that are known at run time alone, or have more than one axis
    _gather("of a matrix of indices", 1, [[0, 1], [1, 2]], opsets=(16, 26)),
    _gather("of a matrix from the end", 2, [[-1], [0], [-1]], opsets=(16, 26)),
    _gather("of unknown size", 0, [1, 0, 1], images=False, opsets=(16, 26)),
    _gather("of one of unknown size", 0, -1, images=False, opsets=(16, 26)),
    Case(
        "Gather of computed indices",
        "i = ArgMax<axis=1, keepdims=0>(w)\n g = Gather<axis=1>(A, i)\n y = Mul(g, g)",
        (2, 3, 4),
        (16, 26),
        inputs={"w": (2, 3)},
        images=False,
    ),
    Case(
        "Gather of the end of a text",
        "i = ArgMax<axis=0, keepdims=0>(w)\n g = Gather<axis=1>(A, i)\n y = Mul(g, g)",
        (2, 3, 4),
        (16, 26),
        inputs={"w": (3,)},
    ),
]
