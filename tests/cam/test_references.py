"""Agreement with pytorch-grad-cam 1.5.7, frozen by tools/make_cam_references.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_gradcam.cam import compute, heat_maps, method_names

REFERENCES = np.load(Path(__file__).parent / "references.npz")
CASES = ["odd", "tiny"]


def signed(name: str, raw: NDArray[Any], reference: NDArray[Any]) -> NDArray[Any]:
    """Give Eigen-CAM the reference's sign, which depends on its LAPACK."""
    if name != "eigencam":
        return raw
    return raw * np.sign((raw * reference).sum(axis=(1, 2), keepdims=True))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", method_names())
def test_maps_agree_with_pytorch_grad_cam(case: str, name: str) -> None:
    reference = REFERENCES[f"{case}/{name}/raw"]
    raw = compute(name, REFERENCES[f"{case}/activations"], REFERENCES[f"{case}/gradients"])
    raw = signed(name, raw, reference)
    assert np.abs(reference).max() > 1e-3
    np.testing.assert_allclose(raw, reference, rtol=0, atol=1e-6 * np.abs(reference).max())
    cams = heat_maps(raw, REFERENCES[f"{case}/size"].tolist())
    np.testing.assert_allclose(cams, REFERENCES[f"{case}/{name}/cam"], rtol=0, atol=1e-6)


def test_a_wrong_map_would_be_noticed() -> None:
    activations, gradients = (REFERENCES[f"odd/{part}"] for part in ("activations", "gradients"))
    right = REFERENCES["odd/gradcam/cam"]
    wrong = heat_maps(compute("gradcam", activations, gradients * 1.01 + 1e-4), right.shape[1:])
    assert np.abs(wrong - right).max() > 1e-4
