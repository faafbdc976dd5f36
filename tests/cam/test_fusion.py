"""Several target layers fused: references by make_fusion_references.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnx_gradcam.cam import Painted, fuse, paint
from onnx_gradcam.cam.postprocess import normalise
from onnx_gradcam.errors import UsageError

REFERENCES = np.load(Path(__file__).parent / "fusion_references.npz")
SIZE = (9, 12)


def layers(method: str) -> list[Painted]:
    return [
        paint(method, REFERENCES[f"{n}/activations"], REFERENCES[f"{n}/gradients"], SIZE)
        for n in (0, 1)
    ]


@pytest.mark.parametrize("method", ["gradcam", "layercam", "hirescam"])
def test_the_mean_is_that_of_pytorch_grad_cam(method: str) -> None:
    each = layers(method)
    found = fuse(each, SIZE)
    np.testing.assert_allclose(found.cams, REFERENCES[f"{method}/mean"], rtol=0, atol=1e-6)
    for one in each:
        assert np.abs(found.cams - one.cams).max() > 0.1, "each layer alone is another map"
    assert found.raw is each[0].raw


def test_the_maximum_is_that_of_torchcam() -> None:
    found = fuse(layers("gradcam"), SIZE, "max")
    expected = normalise(REFERENCES["gradcam/max"])  # which does not stretch the result again
    np.testing.assert_allclose(found.cams, expected, rtol=0, atol=2e-6)
    assert np.abs(found.cams - fuse(layers("gradcam"), SIZE).cams).max() > 0.1


def test_a_single_layer_is_left_alone() -> None:
    (one, _) = layers("gradcam")
    assert fuse([one], SIZE, "max") is one


def painted(*values: list[float]) -> Painted:
    maps = np.array(values, np.float32)
    return paint("hirescam", maps[:, None], np.ones_like(maps)[:, None], (maps.shape[1],))


def test_a_layer_that_shows_nothing_counts_as_zeros() -> None:
    dead, alive = painted([-1.0, -2.0, -3.0]), painted([0.0, 1.0, 4.0])
    assert dead.notes[0]
    found = fuse([dead, alive], (3,))
    np.testing.assert_allclose(found.cams, [[0, 0.25, 1]], atol=1e-6)
    assert found.notes == ("",)


def test_rounding_of_a_flat_layer_is_not_stretched() -> None:
    flat = painted([1.0, 1.0, 1.0 + 2e-7])
    found = fuse([flat, painted([2.0, 0.0, 1.0])], (3,))
    np.testing.assert_allclose(found.cams, [[1, 0, 0.5]], atol=1e-6)


def test_the_note_says_what_each_layer_lacks() -> None:
    dead, flat = painted([-1.0, -2.0, -3.0]), painted([2.0, 2.0, 2.0])
    found = fuse([dead, flat], (3,))
    assert found.notes == (
        "no layer shows anything (layer 1: the raw map is nowhere positive, but -3 to -1; layer 2:"
        " the raw map is 2 everywhere, to rounding)",
    )
    assert not found.cams.any()
    assert fuse([dead, dead], (3,)).notes == dead.notes


def test_no_image_at_all() -> None:
    none = paint("eigencam", np.zeros((0, 2, 3), np.float32), None, (5,))
    found = fuse([none, none], (5,))
    assert (found.cams.shape, found.notes) == ((0, 5), ())


def test_only_mean_and_maximum() -> None:
    with pytest.raises(UsageError, match="layers are fused by mean or max, not by 'median'"):
        fuse(layers("gradcam"), SIZE, "median")
