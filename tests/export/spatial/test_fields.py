from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_gradcam.export.spatial.fields import Field, joined, regroup, shrunk, sliced, taken

SHAPES = [
    ((2, 3, 4), (2, 12)),
    ((2, 12), (2, 3, 4)),
    ((2, 3, 4, 5), (6, 4, 5, 1)),
    ((1, 2, 1, 3), (2, 3)),
    ((2, 3), (1, 2, 1, 3, 1)),
    ((4, 6), (2, 2, 3, 2)),
    ((4, 6), (6, 4)),
    ((2, 3, 4), (4, 3, 2)),
    ((5,), (5, 1, 1)),
]


@st.composite
def field_of(draw: st.DrawFn, shape: tuple[int, ...]) -> Field:
    """A field of a tensor of this shape that varies along some of its axes."""
    sizes = [size if draw(st.booleans()) else 1 for size in shape]
    return np.arange(math.prod(sizes), dtype=float).reshape(sizes)


@given(st.data(), st.sampled_from(SHAPES))
def test_regrouping_is_reshaping(
    data: st.DataObject, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    old, new = shapes
    field = data.draw(field_of(old))
    expected = np.broadcast_to(field, old).reshape(new)
    np.testing.assert_array_equal(np.broadcast_to(regroup(field, old, new), new), expected)


def test_regrouping_keeps_small_what_does_not_vary() -> None:
    row = np.arange(56.0).reshape(1, 1, 56, 1)
    tokens = regroup(row, (2, 64, 56, 56), (2, 64, 3136))
    assert tokens.shape == (1, 1, 3136)
    assert regroup(tokens, (2, 64, 3136), (2, 64, 56, 56)).shape == (1, 1, 56, 1)


def test_shapes_of_different_size() -> None:
    with pytest.raises(ValueError, match="cannot be reshaped"):
        regroup(np.zeros((1, 1)), (2, 3), (5,))


def test_concatenation_of_what_varies_and_what_does_not() -> None:
    field = joined([np.full((1, 1), np.nan), np.array([[0.0, 1.0]])], [1, 2], 1)
    np.testing.assert_array_equal(field, [[np.nan, 0, 1]])
    assert joined([np.ones((1, 1)), np.ones((1, 1))], [3, 4], 1).shape == (1, 1)


def test_picking_along_an_axis() -> None:
    field = np.arange(4.0).reshape(1, 4)
    np.testing.assert_array_equal(taken(field, np.array([[3, 0]]), 1), [[[3, 0]]])
    assert taken(field, np.array([3, 0]), 0).shape == (1, 4)
    np.testing.assert_array_equal(sliced(field, 1, slice(3, None, -2)), [[3, 1]])
    assert sliced(field, 0, slice(1, 3)).shape == (1, 4)


def test_shrinking_finds_the_axes_that_do_not_vary() -> None:
    field = np.broadcast_to(np.array([1.0, np.nan]).reshape(2, 1), (2, 5))
    assert shrunk(field).shape == (2, 1)
    assert shrunk(np.ones((2, 5), bool)).shape == (1, 1)
