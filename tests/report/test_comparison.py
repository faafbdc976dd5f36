from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from onnx_gradcam.batch.rows import stored_map
from onnx_gradcam.batch.schema import Row
from onnx_gradcam.report.comparison import difference, drift, same_class


def row(raw: Any, index: int = 1, name: str = "cat", score: float = 0.5, **more: Any) -> Row:
    crop = {"crop_x": 0.0, "crop_y": 0.0, "crop_width": 60.0, "crop_height": 40.0}
    found = {"class": index, "class_name": name, "score": score, "height": 40, "width": 60, **crop}
    found |= {"map": None} if raw is None else stored_map(np.asarray(raw, np.float32))
    return found | more


RAW = np.array([[0.0, 1.0, 0.25], [0.5, -1.0, 0.75]])


def test_drift_is_one_minus_the_correlation() -> None:
    other = np.array([[1.0, 0.0, 0.5], [0.5, 1.0, -0.75]])
    expected = 1 - np.corrcoef(RAW.ravel(), other.ravel())[0, 1]
    assert expected > 1
    assert drift(row(RAW), row(other)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("other", "expected"), [(RAW, 0), (3 * RAW + 2, 0), (1e-30 * RAW, 0), (-RAW, 2)]
)
def test_a_factor_and_a_constant_are_no_drift(other: Any, expected: float) -> None:
    assert drift(row(RAW), row(other)) == pytest.approx(expected, abs=1e-3)


def test_maps_that_have_nothing_in_common_drift_by_one() -> None:
    one, other = [[1, -1], [1, -1]], [[1, 1], [-1, -1]]
    assert drift(row(one), row(other)) == pytest.approx(1, abs=1e-12)


def test_maps_of_other_sizes_are_compared_on_the_finer_grid() -> None:
    random = np.random.default_rng(3)
    small, large = random.random((4, 6), np.float32), random.random((8, 12), np.float32)
    fine = cv2.resize(small, (12, 8), interpolation=cv2.INTER_LINEAR)
    expected = 1 - np.corrcoef(fine.ravel(), large.ravel())[0, 1]
    assert drift(row(small), row(large)) == pytest.approx(expected, abs=2e-3)
    assert drift(row(large), row(small)) == pytest.approx(expected, abs=2e-3)
    assert expected > 0.3


def test_maps_of_other_parts_of_the_photo_are_compared_where_both_are() -> None:
    """A ramp over the whole photo is the same ramp in a crop of it."""
    whole = row(np.tile(np.arange(12.0), (4, 1)))
    half = row(np.tile(np.arange(6.0), (4, 1)), crop_x=30.0, crop_width=30.0)
    assert drift(whole, half) == pytest.approx(0, abs=0.02)
    mirrored = row(np.tile(np.arange(6.0)[::-1], (4, 1)), crop_x=30.0, crop_width=30.0)
    assert drift(whole, mirrored) == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize(
    "other",
    [
        row(None),
        row(np.zeros((2, 3))),
        row(np.full((2, 3), 0.7)),
        row(RAW, crop_x=60.0),
    ],
    ids=["no map", "zeros", "constant", "nothing in common"],
)
def test_drift_that_is_not_defined_is_none(other: Row) -> None:
    assert drift(row(RAW), other) is None
    assert drift(other, row(RAW)) is None


def test_the_change_of_score_is_this_minus_the_other() -> None:
    found = difference(row(RAW, score=0.75), [row(RAW, 2, "dog"), row(-RAW, score=0.25)])
    assert found is not None
    assert found.change == 0.5
    assert found.drift == pytest.approx(2)
    assert difference(row(RAW), [row(RAW, 2, "dog")]) is None


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        ((1, "cat"), [(0, "dog"), (1, "cat")], 1),
        ((1, "crane"), [(2, "crane"), (1, "crane")], 1),
        ((1, "cat"), [(1, "dog"), (7, "cat")], 1),
        ((1, "cat"), [(1, "dog")], None),
        ((1, "cat"), [(1, "class 1")], 0),
        ((1, "class 1"), [(0, "dog"), (1, "cat")], 1),
        ((1, "class 1"), [(2, "class 2")], None),
    ],
)
def test_which_class_is_the_same(
    mine: tuple[int, str], theirs: list[tuple[int, str]], expected: int | None
) -> None:
    rows = [row(RAW, *each) for each in theirs]
    found = same_class(row(RAW, *mine), rows)
    assert found is (None if expected is None else rows[expected])
