"""Inputs are made up for every type, and open sizes are guessed in a sensible order."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.verification.probe_inputs import (
    InputSpec,
    ValueRange,
    candidate_shapes,
    draw,
    has_open_batch,
    value_ranges,
)
from onnx_gradcam.preprocessing import PRESETS


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (("N", 3, 224, 224), (2, 3, 224, 224)),
        ((1, 3, 32, 32), (1, 3, 32, 32)),
        ((None, 3, "H", "W"), (2, 3, 224, 224)),
        (("N", "H", "W", 3), (2, 224, 224, 3)),
        (("N", 64, 64, 1), (2, 64, 64, 1)),
        (("N", "C", "L"), (2, 3, 16000)),
    ],
)
def test_first_guess(shape: tuple[int | str | None, ...], expected: tuple[int, ...]) -> None:
    specs = (InputSpec("x", "tensor(float)", shape),)
    assert next(candidate_shapes(specs, "x", 2)) == {"x": expected}


def test_known_shapes_are_tried_once_and_open_ones_in_turn() -> None:
    fixed = (InputSpec("x", "tensor(float)", ("N", 3, 8, 8)),)
    assert len(list(candidate_shapes(fixed, "x", 2))) == 1
    free = (InputSpec("x", "tensor(float)", ("N", 3, None, None)),)
    sizes = [shapes["x"][2] for shapes in candidate_shapes(free, "x", 2)]
    assert sizes[:3] == [224, 32, 64]


def test_other_inputs_follow_the_symbols_of_the_image() -> None:
    specs = (
        InputSpec("x", "tensor(float)", ("N", 3, "H", "W")),
        InputSpec("mask", "tensor(bool)", ("N", "H", "other")),
    )
    assert next(candidate_shapes(specs, "x", 2))["mask"] == (2, 224, 1)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("tensor(float)", np.float32),
        ("tensor(float16)", np.float16),
        ("tensor(double)", np.float64),
        ("tensor(uint8)", np.uint8),
        ("tensor(int64)", np.int64),
        ("tensor(bool)", np.bool_),
    ],
)
def test_values_are_of_the_type_and_deterministic(kind: str, dtype: type) -> None:
    specs = (InputSpec("x", kind, (1, 3, 4, 4)),)
    first, second = (
        draw(specs, {"x": (1, 3, 4, 4)}, "x", ValueRange(0, 255), 1)["x"] for _ in range(2)
    )
    assert first.dtype == dtype
    assert first.shape == (1, 3, 4, 4)
    np.testing.assert_array_equal(first, second)


def test_strings_cannot_be_made_up() -> None:
    specs = (InputSpec("x", "tensor(string)", (1,)),)
    with pytest.raises(UnsupportedModelError, match=r"'x' of type tensor\(string\)"):
        draw(specs, {"x": (1,)}, "x", ValueRange(), 0)


def test_the_stored_preprocessing_gives_the_range() -> None:
    first = value_ranges(PRESETS["imagenet"].to_dict())[0]
    assert first.low == pytest.approx(-2.1179, abs=1e-3)
    assert first.high == pytest.approx(2.64, abs=1e-3)
    assert value_ranges(None)[0] == ValueRange()


def test_open_batch() -> None:
    assert has_open_batch((InputSpec("x", "tensor(float)", ("N", 3)),), "x")
    assert not has_open_batch((InputSpec("x", "tensor(float)", (1, 3)),), "x")
