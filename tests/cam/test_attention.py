"""Rollout and LeGrad on arrays whose result can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.cam import Need, compute, method_names, require
from onnx_gradcam.cam.attention import TokenMaps
from onnx_gradcam.errors import UnsupportedModelError

ACTIVATIONS = np.zeros((1, 3, 7, 7), np.float32)
"""Of another size than the grid of the tokens: they are not looked at."""

GRID = (1, 2)
CELLS = (2, 1)
"""Row 0 is a class token; the rows of the image lie in reverse."""


def rollout(blocks: list[list[list[float]]], **places: object) -> list[list[float]]:
    values = np.array([blocks], np.float32)
    given = {Need.ATTENTION: TokenMaps(values, GRID, CELLS, **places)}
    raw = compute("rollout", ACTIVATIONS, further=given)
    assert raw.shape == (1, *GRID)
    return raw[0].tolist()


UNIFORM = [[1 / 3] * 3] * 3
TO_FIRST = [[0.0, 1.0, 0.0]] * 3


def test_one_block_is_half_attention_half_identity() -> None:
    attention = [[0.5, 0.2, 0.3], [0.1, 0.8, 0.1], [0.0, 0.4, 0.6]]
    assert rollout([attention], read=(0,)) == [pytest.approx([0.15, 0.1])]
    assert rollout([attention], read=(1, 2)) == [pytest.approx([(0.05 + 0.8) / 2, (0.9 + 0.2) / 2])]


def test_later_blocks_come_first_on_the_way_back() -> None:
    # row 0 of (TO_FIRST + I)/2 is (1/2, 1/2, 0); what is at 1 stays there, the rest is spread
    spread = 0.5 * np.array([4, 1, 1]) / 6 + 0.5 * np.array([1, 4, 1]) / 6
    assert rollout([UNIFORM, TO_FIRST], read=(0,)) == [pytest.approx([spread[2], spread[1]])]
    # the other way round everything goes half to row 1
    last = np.array([4, 1, 1]) / 6
    half = last / 2 + np.array([0, 0.5, 0])
    assert rollout([TO_FIRST, UNIFORM], read=(0,)) == [pytest.approx([half[2], half[1]])]


def test_rows_that_do_not_sum_to_one_are_made_to() -> None:
    twice = (2 * np.array(TO_FIRST)).tolist()
    assert rollout([twice], read=(0,)) == [pytest.approx([0, 2 / 3])]


def test_pooling_by_attention_takes_the_place_of_the_rows_that_are_read() -> None:
    pooling = [[0.0, 0.25, 0.75]] * 3
    assert rollout([UNIFORM, pooling], pooled=True) == [
        pytest.approx([(0.25 * 1 + 0.75 * 4) / 6, (0.25 * 4 + 0.75 * 1) / 6])
    ]


def test_legrad_is_the_mean_of_the_blocks_on_the_grid() -> None:
    values = np.array([[[9, 1, 2], [7, 3, 6]]], np.float32)
    given = {Need.LEGRAD: TokenMaps(values, GRID, CELLS)}
    np.testing.assert_allclose(compute("legrad", ACTIVATIONS, further=given), [[[4, 2]]])


@pytest.mark.parametrize(("name", "need"), [("rollout", "attention"), ("legrad", "gradients of")])
def test_a_file_without_it_names_the_option_of_the_export(name: str, need: str) -> None:
    offered = {Need.GRADIENTS, Need.SEED}
    assert name not in method_names(offered)
    message = f"needs {need}.*; export the model again with --attention {name}, or use another met"
    with pytest.raises(UnsupportedModelError, match=message):
        require(name, offered)
    assert require(name, set(Need)).name == name
