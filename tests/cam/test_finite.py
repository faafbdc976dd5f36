from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.cam import all_finite
from onnx_gradcam.cam.finite import finite_float32

RANDOM = np.random.default_rng(8)
SIZE = 2 * 8192 + 100
"""Two pieces that are added up at once, and a rest."""


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 8191, 8192, 2 * 8192 - 1, 2 * 8192, SIZE - 1])
def test_a_single_value_anywhere_is_found(place: int, value: float) -> None:
    values = RANDOM.normal(size=SIZE).astype(np.float32)
    assert all_finite(values)
    values[place] = value
    assert not all_finite(values)
    assert not all_finite(values.reshape(4, -1))
    assert not all_finite(np.repeat(values, 2)[::2])
    assert not all_finite(values.astype(np.float64))
    assert not all_finite(values.astype(np.float16))


def test_infinities_that_cancel_are_found() -> None:
    values = np.zeros(SIZE, np.float32)
    values[[3, 5]] = np.inf, -np.inf
    assert not all_finite(values)


@pytest.mark.parametrize("count", [4, SIZE])
def test_large_values_whose_sum_overflows_are_finite(count: int) -> None:
    values = np.full(count, np.finfo(np.float32).max)
    assert all_finite(values)
    np.testing.assert_array_equal(finite_float32(values), values)


def test_no_values_are_finite() -> None:
    assert all_finite(np.zeros((0, 3), np.float32))


def test_what_is_not_finite_is_replaced() -> None:
    largest = np.finfo(np.float32).max
    values = np.array([np.nan, np.inf, -np.inf, 1e300, 2])
    assert finite_float32(values).tolist() == [0, largest, -largest, largest, 2]
    clean = np.ones(3, np.float32)
    assert finite_float32(clean) is clean
