"""Bit identity, rounding, and everything that is more than rounding."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.export.verification.compare_outputs import Difference, compare_outputs


def difference(before: object, after: object) -> Difference:
    (found,) = compare_outputs({"y": before}, {"y": after})
    return found


def test_equal_bytes_are_identical_nan_included() -> None:
    values = np.array([1.0, np.nan, -np.inf], np.float32)
    assert difference(values, values.copy()).identical


def test_minus_zero_is_not_identical_but_within_rounding() -> None:
    found = difference(np.array([0.0]), np.array([-0.0]))
    assert not found.identical
    assert found.within_rounding


@pytest.mark.parametrize(
    ("dtype", "relative", "accepted"),
    [
        (np.float32, 2e-5, True),
        (np.float32, 1e-3, False),
        (np.float16, 4e-3, True),
        (np.float16, 5e-2, False),
        (np.float64, 1e-6, False),
    ],
)
def test_rounding_is_relative_to_the_largest_value(
    dtype: type, relative: float, accepted: bool
) -> None:
    before = np.array([1.0, -100.0], dtype)
    found = difference(before, (before + np.array([100 * relative, 0])).astype(dtype))
    assert not found.identical
    assert found.within_rounding == accepted
    assert found.relative == pytest.approx(relative, rel=0.2)
    assert found.proves_equal == (accepted and dtype == np.float16)


@pytest.mark.parametrize(
    ("dtype", "step", "accepted"),
    [(np.uint8, 1, True), (np.uint8, 3, False), (np.int64, 1, False)],
)
def test_integers(dtype: type, step: int, accepted: bool) -> None:
    before = np.array([3, 200], dtype)
    assert difference(before, (before + step).astype(dtype)).within_rounding == accepted


@pytest.mark.parametrize(
    ("after", "note"),
    [
        (None, "is missing"),
        (np.zeros((2, 1), np.float32), "was float32"),
        (np.zeros(2, np.float64), "is float64"),
        (np.array([0, np.nan], np.float32), "NaN or infinite"),
        ([{0: 1.0}], "differs"),
    ],
)
def test_other_differences_are_named(after: object, note: str) -> None:
    found = difference(np.zeros(2, np.float32), after)
    assert not found.within_rounding
    assert note in str(found)


def test_sequences_of_maps_are_compared_by_value() -> None:
    assert difference([{0: 0.5}], [{0: 0.5}]).identical
    assert not difference([{0: 0.5}], [{0: 0.25}]).within_rounding
    strings = np.array(["a", "b"], object)
    assert difference(strings, strings.copy()).identical
    assert not difference(strings, strings[::-1]).identical
