"""The drawn pictures: what is said to be in them is in them, and colour tells nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tools.shapes import LABELS, SHAPES, SIZE, draw, draw_random


def test_the_same_seed_draws_the_same_picture() -> None:
    first, again, other = (draw_random(np.random.default_rng(seed), 2) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    assert (first[0] != other[0]).any()
    assert first[0].dtype == np.uint8
    assert first[0].shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("label", LABELS)
def test_every_shape_is_about_the_unit_circle_and_differs_from_the_others(label: str) -> None:
    y, x = np.mgrid[-1.5:1.5:301j, -1.5:1.5:301j]
    inside = SHAPES[label](x, y)
    assert not inside[np.hypot(x, y) > 1.16].any()
    assert 0.1 < inside[np.hypot(x, y) <= 1].mean() < 0.95
    for other in set(LABELS) - {label}:
        overlap = inside & SHAPES[other](x, y)
        assert overlap.sum() < 0.95 * (inside | SHAPES[other](x, y)).sum()


def test_boxes_hold_the_shapes_and_do_not_touch() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        _, placed = draw_random(rng, 3)
        assert len({shape.label for shape in placed}) == 3
        occupied = np.zeros((SIZE, SIZE), int)
        for shape in placed:
            x0, y0, x1, y1 = shape.box
            assert 0 <= x0 < x1 <= SIZE
            assert 0 <= y0 < y1 <= SIZE
            assert min(x1 - x0, y1 - y0) >= 10
            occupied[y0:y1, x0:x1] += 1
        assert occupied.max() == 1


def test_the_box_is_where_the_picture_differs_from_its_ground() -> None:
    """The ground takes its chance first, so the same seed without shapes is the same ground."""
    for seed in range(10):
        ground, nothing = draw(np.random.default_rng(seed), [])
        picture, (shape,) = draw(np.random.default_rng(seed), ["circle"])
        assert nothing == []
        difference = abs(picture.astype(int) - ground).max(axis=2) > 60
        rows, columns = np.flatnonzero(difference.any(1)), np.flatnonzero(difference.any(0))
        x0, y0, x1, y1 = shape.box
        assert (columns[0], rows[0]) == pytest.approx((x0, y0), abs=2)
        assert (columns[-1] + 1, rows[-1] + 1) == pytest.approx((x1, y1), abs=2)


def test_mean_colour_does_not_tell_the_class() -> None:
    rng = np.random.default_rng(4)
    means = {
        label: np.mean([draw(rng, [label])[0].mean((0, 1)) for _ in range(40)], axis=0)
        for label in LABELS
    }
    spread = np.ptp(list(means.values()), axis=0)
    assert spread.max() < 25
