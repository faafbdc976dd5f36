"""Agreement with pytorch-grad-cam 1.5.7, frozen by tools/make_cam_references.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_gradcam.cam import Need, compute, get_method, heat_maps, method_names

REFERENCES = np.load(Path(__file__).parent / "references.npz")
UNSIGNED = ("eigencam", "eigengradcam")
CASES = [
    tuple(key.split("/")[:2]) for key in REFERENCES if key.endswith("/raw") and ":aug" not in key
]


def test_there_is_a_reference_for_every_method_and_smoothing() -> None:
    names = method_names({Need.GRADIENTS, Need.SEED})
    smoothed = [f"{name}:eigen" for name in names if get_method(name).smooths]
    wanted = {*names, *smoothed} - {"cam", "activationmap"}  # they have none
    assert {key for case, key in CASES if case == "odd"} == wanted
    assert REFERENCES["wide/kpcacam/raw"].size > 200, "found by Lanczos, there and here"


@pytest.mark.parametrize(("case", "key"), CASES)
def test_maps_agree_with_pytorch_grad_cam(case: str, key: str) -> None:
    name, _, smooth = key.partition(":")
    reference: NDArray[np.float32] = REFERENCES[f"{case}/{key}/raw"]
    activations, gradients = REFERENCES[f"{case}/activations"], REFERENCES[f"{case}/gradients"]
    raw = compute(name, activations, gradients, eigen_smooth=bool(smooth))
    if smooth or name in UNSIGNED:  # there, the sign depends on the linear algebra library
        raw = raw * np.sign((raw * reference).sum(axis=(1, 2), keepdims=True))
    nothing_unusual = key == "fem" and case == "tiny"
    assert (np.abs(reference).max() > 1e-4) != nothing_unusual
    np.testing.assert_allclose(raw, reference, rtol=0, atol=1e-6 * np.abs(reference).max())
    cams = heat_maps(raw, REFERENCES[f"{case}/size"].tolist())
    np.testing.assert_allclose(cams, REFERENCES[f"{case}/{key}/cam"], rtol=0, atol=1e-6)


def test_a_wrong_map_would_be_noticed() -> None:
    activations, gradients = (REFERENCES[f"odd/{part}"] for part in ("activations", "gradients"))
    right = REFERENCES["odd/gradcam/cam"]
    wrong = heat_maps(compute("gradcam", activations, gradients * 1.01 + 1e-4), right.shape[1:])
    assert np.abs(wrong - right).max() > 1e-4
