"""Resize and Upsample."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gradients.case import Case, Constant

_MAP = (2, 3, 4, 5)
_UNKNOWN = (0, 2, 3)


def _resize(
    name: str, attributes: str, scales: list[float], shape: tuple[int, ...] = _MAP, **more: Any
) -> Case:
    inputs = "A, none, k" if more.get("opsets", (11, 26))[0] < 13 else "A, , k"
    constants: dict[str, Constant] = {"k": np.array(scales, np.float32)}
    if "none" in inputs:
        constants["none"] = np.zeros(0, np.float32)
    options = {"opsets": (11, 26), "constants": constants, **more}
    return Case(f"Resize {name}", f"y = Resize{_listed(attributes)}({inputs})", shape, **options)


def _to_sizes(name: str, attributes: str, sizes: list[int], **more: Any) -> Case:
    options = {
        "opsets": (13, 26),
        "constants": {"k": sizes},
        "images": False,
        "symbolic": (),
        **more,
    }
    return Case(f"Resize {name}", f"y = Resize{_listed(attributes)}(A, , , k)", _MAP, **options)


def _listed(attributes: str) -> str:
    return f"<{attributes}>" if attributes else ""


_LINEAR = 'mode="linear"'
_CUBIC = 'mode="cubic"'
_MODES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")

CASES = [
    # repeated elements
    _resize("by 2", "", [1, 1, 2, 2], symbolic=_UNKNOWN),
    _resize("by 2 and 3", 'nearest_mode="round_prefer_ceil"', [1, 1, 2, 3], symbolic=_UNKNOWN),
    _resize(
        "by 3, asymmetric",
        'coordinate_transformation_mode="asymmetric", nearest_mode="floor"',
        [1, 1, 3, 3],
    ),
    _resize("by 2, 1-D", "", [1, 1, 2], (2, 3, 5), symbolic=(0, 2)),
    _resize("by 2, 3-D", "", [1, 1, 2, 1, 2], (1, 2, 3, 2, 3)),
    _to_sizes("to twice the size", "", [2, 3, 8, 10]),
    # nearest, otherwise
    *(
        _resize(
            f"nearest, {mode}, {rounding}",
            f'coordinate_transformation_mode="{mode}", nearest_mode="{rounding}"',
            [1, 1, 1.5, 0.6],
        )
        for mode in _MODES
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    _resize("nearest of channels", "", [1, 2, 1, 1], images=True),
    # linear
    *(
        _resize(
            f"linear, {mode}",
            f'{_LINEAR}, coordinate_transformation_mode="{mode}"',
            [1, 1, 2, 1.6],
            symbolic=symbolic,
            opsets=(11, 26),
        )
        for mode, symbolic in zip(_MODES, (_UNKNOWN, (0,), _UNKNOWN, (0,)), strict=True)
    ),
    _resize("linear, smaller", _LINEAR, [1, 1, 0.5, 0.7]),
    _to_sizes("linear, to sizes", _LINEAR, [2, 3, 7, 3]),
    _to_sizes("linear, to sizes from unknown ones", _LINEAR, [2, 3, 7, 3], symbolic=(2, 3)),
    _resize(
        "linear, symmetric",
        f'{_LINEAR}, coordinate_transformation_mode="half_pixel_symmetric"',
        [1, 1, 1.3, 2],
        opsets=(19, 26),
    ),
    # cubic
    *(
        _resize(
            f"cubic, {mode}",
            f'{_CUBIC}, coordinate_transformation_mode="{mode}"',
            [1, 1, 2, 1.6],
        )
        for mode in _MODES
    ),
    _resize(
        "cubic, of what is inside",
        f"{_CUBIC}, cubic_coeff_a=-0.5, exclude_outside=1",
        [1, 1, 1.7, 0.8],
    ),
    # the rest of the forms
    *(
        Case(
            f"Resize-10 {name}",
            f"y = Resize{_listed(attributes)}(A, k)",
            _MAP,
            (10, 10),
            {"k": np.array(scales, np.float32)},
            symbolic=symbolic,
            ad="takes no form of opset 10",
        )
        for name, attributes, scales, symbolic in (
            ("nearest", "", [1, 1, 2, 1.5], (0,)),
            ("linear", _LINEAR, [1, 1, 2, 4], _UNKNOWN),
            ("by 2", "", [1, 1, 2, 2], _UNKNOWN),
        )
    ),
    Case(
        "Resize-11 to sizes",
        'y = Resize<mode="linear">(A, none, none, k)',
        _MAP,
        (11, 12),
        {"k": [2, 3, 6, 7], "none": np.zeros(0, np.float32)},
        symbolic=(),
        images=False,
    ),
    Case(
        "Resize to a computed size",
        's = Shape(w)\n y = Resize<mode="linear">(A, , , s)',
        _MAP,
        (13, 26),
        inputs={"w": (0, 3, 7, 6)},
        symbolic=_UNKNOWN,
    ),
    Case(
        "Resize of a part",
        'y = Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize",'
        " extrapolation_value=3.0>(A, r, k)",
        _MAP,
        (11, 26),
        {
            "r": np.array([0, 0, 0.25, 0.25, 1, 1, 0.75, 1.5], np.float32),
            "k": np.array([1, 1, 1.25, 0.6], np.float32),
        },
        ad="knows no part of a map",
    ),
    Case(
        "Resize of axes",
        'y = Resize<mode="linear", axes=[-1, 2]>(A, , k)',
        _MAP,
        (18, 26),
        {"k": np.array([1.5, 2], np.float32)},
        symbolic=_UNKNOWN,
    ),
    Case(
        "Resize of axes to sizes",
        'y = Resize<mode="cubic", axes=[2, 3]>(A, , , k)',
        _MAP,
        (18, 26),
        {"k": [7, 9]},
    ),
    *(
        _resize(
            f"{mode}, antialiased",
            f'mode="{mode}", antialias=1',
            [1, 1, 0.5, 0.6],
            opsets=(18, 26),
            training="forgets it",
        )
        for mode in ("linear", "cubic")
    ),
    Case("Upsample-7 nearest", "y = Upsample<scales=[1.0, 1.0, 2.0, 3.0]>(A)", _MAP, (7, 8)),
    Case(
        "Upsample-7 linear",
        'y = Upsample<mode="linear", scales=[1.0, 1.0, 2.0, 1.5]>(A)',
        _MAP,
        (7, 8),
    ),
    Case(
        "Upsample-9 nearest",
        "y = Upsample(A, k)",
        _MAP,
        (9, 9),
        {"k": np.array([1, 1, 2, 2], np.float32)},
        symbolic=_UNKNOWN,
    ),
    Case(
        "Upsample-9 linear",
        'y = Upsample<mode="linear">(A, k)',
        _MAP,
        (9, 9),
        {"k": np.array([1, 1, 2, 3], np.float32)},
        symbolic=_UNKNOWN,
    ),
]
