from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.cam import (
    Need,
    compute,
    get_method,
    heat_maps,
    method_names,
    note_on,
    paint,
)
from onnx_gradcam.cam.registry import evaluate

RANDOM = np.random.default_rng(6)
ACTIVATIONS = np.abs(RANDOM.normal(size=(3, 4, 5, 6))).astype(np.float32)
GRADIENTS = np.repeat(RANDOM.normal(size=(3, 4, 1, 1)), 30, axis=2).reshape(3, 4, 5, 6)


@pytest.mark.parametrize("name", method_names({Need.GRADIENTS, Need.SEED}))
def test_a_map_that_shows_something_is_painted_without_a_note(name: str) -> None:
    painted = paint(name, ACTIVATIONS, np.abs(GRADIENTS), (10, 12))
    assert painted.notes == ("", "", "")
    np.testing.assert_array_equal(painted.raw, compute(name, ACTIVATIONS, np.abs(GRADIENTS)))
    np.testing.assert_array_equal(painted.cams, heat_maps(painted.raw, (10, 12)))
    assert (painted.cams.max(axis=(1, 2)) > 0.99).all()


@pytest.mark.parametrize(
    ("raw", "note"),
    [
        ([[1, np.nan], [0, 2]], "the raw map holds NaN or infinite values"),
        ([[1, np.inf], [0, 2]], "the raw map holds NaN or infinite values"),
        ([[0, 0], [0, 0]], "the raw map is 0 everywhere, to rounding"),
        ([[3, 3], [3, 3]], "the raw map is 3 everywhere, to rounding"),
        ([[3, 3], [3, 3.000001]], "the raw map is 3 everywhere, to rounding"),
        ([[-3, -3], [-3, -1]], "the raw map is nowhere positive, but -3 to -1"),
        ([[-3, 0], [0, 0]], "the raw map is nowhere positive, but -3 to 0"),
        ([[3, 3], [3, 3.0001]], ""),
        ([[-3, 1e-9], [0, 0]], ""),
        ([[1e-20, 2e-20], [0, 0]], ""),
    ],
)
def test_notes(raw: list[list[float]], note: str) -> None:
    assert note_on(np.array(raw, np.float32)) == note


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["activations", "gradients"])
@pytest.mark.parametrize("name", method_names({Need.GRADIENTS, Need.SEED}))
def test_an_image_with_nan_is_reported_and_leaves_the_others(
    name: str, where: str, value: float, dtype: type
) -> None:
    arrays = {"activations": ACTIVATIONS.copy(), "gradients": np.abs(GRADIENTS)}
    arrays[where][1, 2, 3, 3] = value
    arrays["activations"][1, 2, 3, 2] = 0
    if where == "gradients" and not get_method(name).needs_gradients:
        return
    painted = paint(name, arrays["activations"], arrays["gradients"].astype(dtype), (10, 12))
    assert painted.notes == ("", f"the {where} hold NaN or infinite values", "")
    assert np.isnan(painted.raw[1]).all()
    assert not painted.cams[1].any()
    clean = paint(name, ACTIVATIONS, np.abs(GRADIENTS).astype(dtype), (10, 12))
    np.testing.assert_array_equal(painted.cams[::2], clean.cams[::2])


def test_gradients_that_the_method_does_not_look_at_may_be_nan() -> None:
    gradients = np.full_like(ACTIVATIONS, np.nan)
    assert paint("eigencam", ACTIVATIONS, gradients, (10, 12)).notes == ("", "", "")


def test_an_overflow_in_the_formula_is_reported() -> None:
    gradients = np.abs(GRADIENTS).astype(np.float32)
    gradients[0] *= 1e30
    activations = ACTIVATIONS.copy()
    activations[0] *= 1e30
    for name in ("hirescam", "eigengradcam"):
        painted = paint(name, activations, gradients, (10, 12))
        assert painted.notes == ("the raw map holds NaN or infinite values", "", "")
        assert not painted.cams[0].any()


def test_rounding_noise_is_not_stretched_to_a_heat_map() -> None:
    flat = np.full((1, 1, 5, 6), 0.1, np.float32)
    flat[0, 0, 2, 2] = np.nextafter(np.float32(0.1), 1)
    painted = paint("gradcam", flat, np.ones_like(flat), (10, 12))
    assert heat_maps(painted.raw, (10, 12)).max() > 0.05, "what normalising alone would show"
    assert painted.notes == ("the raw map is 0.1 everywhere, to rounding",)
    assert not painted.cams.any()


def test_evidence_against_the_class_alone() -> None:
    painted = paint("gradcam", ACTIVATIONS, -np.abs(GRADIENTS), (10, 12))
    assert all(note.startswith("the raw map is nowhere positive, but -") for note in painted.notes)
    assert not painted.cams.any()
    assert (painted.raw < 0).all()


def test_no_images() -> None:
    painted = paint("gradcam", ACTIVATIONS[:0], GRADIENTS[:0], (10, 12))
    assert painted.cams.shape == (0, 10, 12)
    assert painted.notes == ()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("other", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("where", [0, 1])
def test_a_method_that_shows_overflow_does(where: int, other: float, value: float) -> None:
    """The value may meet any other, and may be the only one of its channel."""
    shown = [name for name in method_names() if get_method(name).shows_overflow]
    assert shown == ["gradcam", "hirescam", "xgradcam"]
    for name in shown:
        for rest in (0.0, 1.0):
            arrays = np.full((2, 2, 3, 2, 2), rest, np.float32)
            arrays[:, 1, 1, 0, 0] = other
            arrays[where, 1, 1, 0, 0] = value
            raw = evaluate(name, *arrays, as_they_are=True)
            assert np.isfinite(raw[0]).all()
            assert not np.isfinite(raw[1]).all(), name
