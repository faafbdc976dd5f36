"""Operators that repeat, fold, sum or leave out along axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gradients.case import Case, weights

_MAP = (2, 3, 4, 5)
_MODES = "takes constant padding alone"
_NONE = "has no gradient for it"

_TILE = [
    Case(
        "Tile",
        "t = Tile(A, k)\n y = Mul(t, w)",
        (2, 3, 4),
        constants={"k": [1, 2, 3], "w": weights(6, 12)},
    ),
    Case(
        "Tile of size one",
        "y = Tile(A, k)",
        (2, 1, 3, 1),
        constants={"k": [1, 4, 1, 2]},
        symbolic=(0, 2),
    ),
    Case(
        "Tile of unknown sizes",
        "t = Tile(A, k)\n y = Mul(t, t)",
        _MAP,
        constants={"k": [1, 2, 1, 3]},
        symbolic=(0, 2, 3),
    ),
    Case(
        "Tile of the batch",
        "t = Tile(A, k)\n y = Mul(t, w)",
        (2, 3),
        constants={"k": [3, 1], "w": weights(6, 3)},
        images=False,
    ),
    Case("Tile by one", "t = Tile(A, k)\n y = Mul(t, t)", (2, 3), constants={"k": [1, 1]}),
    Case(
        "Tile by a computed count",
        "s = Shape(w)\n t = Tile(A, s)\n y = Mul(t, t)",
        (2, 3),
        (13, 26),
        inputs={"w": (1, 3)},
    ),
]

_BLOCKS = [
    case
    for name, operator, shape, weight, first in (
        ("SpaceToDepth", "SpaceToDepth<blocksize=2>", (2, 3, 4, 6), (12, 2, 3), 7),
        ("DepthToSpace-1", "DepthToSpace<blocksize=2>", (2, 12, 2, 3), (3, 4, 6), 7),
        ("DepthToSpace DCR", 'DepthToSpace<blocksize=2, mode="DCR">', (2, 12, 2, 3), (3, 4, 6), 11),
        ("DepthToSpace CRD", 'DepthToSpace<blocksize=2, mode="CRD">', (2, 12, 2, 3), (3, 4, 6), 11),
    )
    for case in (
        Case(
            f"{name}{of}",
            f"s = {operator}(A)\n y = Mul(s, w)",
            shape,
            (first, 26),
            {"w": weights(*weight)},
            symbolic=symbolic,
            training="has no gradient for it, and its rule wants known sizes" if of else "",
        )
        for of, symbolic in (("", (0,)), (" of unknown sizes", (0, 2, 3)))
    )
]

_ALONG = [
    *(
        Case(
            f"Trilu {name}",
            f"t = Trilu<upper={upper}>({operands})\n y = Mul(t, t)",
            _MAP,
            (14, 26),
            {"k": np.array(offset)} if "k" in operands else {},
            symbolic=(0, 2, 3),
        )
        for name, upper, operands, offset in (
            ("upper", 1, "A", 0),
            ("lower", 0, "A, k", -1),
            ("upper, shifted", 1, "A, k", 2),
        )
    ),
    *(
        Case(
            f"CumSum {name}",
            f"c = CumSum<{attributes}>(A, k)\n y = Mul(c, c)",
            _MAP,
            (11, 26),
            {"k": np.array(axis)},
            symbolic=(0, 2, 3),
            training=_NONE,
        )
        for name, attributes, axis in (
            ("plain", "exclusive=0", 1),
            ("exclusive", "exclusive=1", -1),
            ("reverse", "reverse=1", 2),
            ("exclusive, reverse", "exclusive=1, reverse=1", 3),
        )
    ),
    Case(
        "ReverseSequence",
        "r = ReverseSequence<batch_axis=0, time_axis=1>(A, k)\n y = Mul(r, r)",
        (2, 4, 3),
        (10, 26),
        {"k": [2, 4]},
        symbolic=(),
        images=False,
        training=_NONE,
    ),
    Case(
        "ReverseSequence, time first",
        "r = ReverseSequence(A, k)\n y = Mul(r, r)",
        (4, 3, 2),
        (10, 26),
        {"k": [1, 3, 2]},
        symbolic=(),
        images=False,
        training=_NONE,
    ),
]

_COMPRESS = [
    Case(
        "Compress",
        "c = Compress<axis=1>(A, k)\n y = Exp(c)",
        _MAP,
        (9, 26),
        {"k": np.array([True, False, True])},
        training=_NONE,
    ),
    Case(
        "Compress, axis -1, shorter",
        "c = Compress<axis=-1>(A, k)\n y = Exp(c)",
        _MAP,
        (11, 26),
        {"k": np.array([False, True, True])},
        symbolic=(0, 2, 3),
        training=_NONE,
    ),
    Case(
        "Compress of all",
        "c = Compress(A, k)\n y = Exp(c)",
        (2, 3),
        (9, 26),
        {"k": np.array([False, True, True, False, True])},
        images=False,
        training=_NONE,
    ),
    Case(
        "Compress by a computed condition",
        "l = Less(w, z)\n c = Compress<axis=1>(A, l)\n y = Exp(c)",
        (2, 4, 3),
        (9, 26),
        {"z": 0.9},
        inputs={"w": (4,)},
        training=_NONE,
    ),
]


def _pad(mode: str, pads: list[int], name: str = "", **more: Any) -> Case:
    options: dict[str, Any] = {"opsets": (11, 26), "constants": {"k": pads}, "ad": _MODES, **more}
    return Case(
        f"Pad by {mode}{name}", f'p = Pad<mode="{mode}">(A, k)\n y = Mul(p, p)', _MAP, **options
    )


_PADS = [0, 0, 2, 1, 0, 0, 3, 2]

_PAD = [
    *(_pad(mode, _PADS) for mode in ("reflect", "edge")),
    *(
        _pad(mode, _PADS, " of unknown sizes", symbolic=(0, 2, 3), training=_MODES)
        for mode in ("reflect", "edge")
    ),
    _pad("wrap", _PADS, opsets=(19, 26)),
    *(_pad(mode, [0, 1, 0, 0, 0, 2, 2, 0], " at some ends") for mode in ("reflect", "edge")),
    *(
        _pad(mode, [0, 0, -1, 2, 0, 0, 2, -1], ", cropping", training=_MODES)
        for mode in ("reflect", "edge")
    ),
    *(
        Case(
            f"Pad-2 by {mode}",
            f'p = Pad<mode="{mode}", pads=[0, 0, 1, 0, 0, 1, 2, 3]>(A)\n y = Mul(p, p)',
            _MAP,
            (7, 10),
            ad=_MODES,
        )
        for mode in ("reflect", "edge")
    ),
    Case(
        "Pad by reflect, of axes",
        'p = Pad<mode="reflect">(A, k, , x)\n y = Mul(p, p)',
        _MAP,
        (18, 26),
        {"k": [1, 2, 0, 3], "x": [-1, 2]},
        ad=_MODES,
    ),
    Case(
        "Pad by computed widths",
        "s = Shape(w)\n p = Pad(A, s)\n y = Mul(p, p)",
        (2, 3),
        (13, 26),
        inputs={"w": (1, 2, 1, 3)},
        images=False,
    ),
    *(
        Case(
            f"CenterCropPad {name}",
            f"c = CenterCropPad{axes}(A, k)\n y = Mul(c, c)",
            _MAP,
            (18, 26),
            {"k": shape},
            symbolic=symbolic,
            images=bool(axes),
            training=_NONE,
        )
        for name, axes, shape, symbolic in (
            ("smaller", "<axes=[2, 3]>", [3, 2], (0,)),
            ("larger", "<axes=[-1, -2]>", [8, 7], (0,)),
            ("of all", "", [2, 2, 7, 5], ()),
        )
    ),
]

CASES = [*_TILE, *_BLOCKS, *_ALONG, *_COMPRESS, *_PAD]
