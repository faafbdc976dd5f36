"""Real architectures in miniature: A, dy/dA and the CAM against PyTorch autograd.

Fixtures are written by ``tools/zoo.py --slice tests/zoo``; `tools/zoo_slice.py` says what they are.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from onnx_gradcam.cam.methods import gradcam
from onnx_gradcam.export.inspection import inspect_model
from onnx_gradcam.export.pipeline import export_model

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.onnx"))
TOLERANCE = 1e-4
LAYERS = ["auto", "first"]
BUILDERS = ["reverse", pytest.param("auto", marks=pytest.mark.needs_builder)]

Array = NDArray[np.float32]


@cache
def references(name: str) -> dict[str, NDArray]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


def relative(value: Array, reference: Array) -> float:
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def run(path: Path, image: Array, classes: NDArray) -> dict[str, Array]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": image, "cam_class": classes}), strict=True))


def test_there_are_twenty_architectures() -> None:
    assert len(NAMES) >= 20
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 4e6


@pytest.mark.parametrize("name", NAMES)
def test_references_say_something(name: str) -> None:
    for layer in LAYERS:
        for kind in ("activations", "gradients"):
            assert np.abs(references(name)[f"{layer}_{kind}"]).max() > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_the_recommended_layer_is_the_one_that_was_compared(name: str) -> None:
    report = inspect_model(FOLDER / f"{name}.onnx")

    assert report.recommended is not None, report.reason
    recommended = report.candidates[report.recommended].tensor
    assert recommended == str(references(name)["auto_target"])


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", NAMES)
def test_explanation_agrees_with_autograd(
    name: str, layer: str, builder: str, tmp_path: Path
) -> None:
    expected = references(name)
    exported = tmp_path / "model.onnx"
    export_model(
        FOLDER / f"{name}.onnx",
        exported,
        layer=str(expected[f"{layer}_target"]),
        gradient_builder=builder,
        verify=False,  # a proof of its own, tested elsewhere; here PyTorch is the judge
    )
    out = run(exported, expected["image"].astype(np.float32), expected["classes"])

    activations, gradients = (expected[f"{layer}_{k}"] for k in ("activations", "gradients"))
    assert relative(out["cam_activations"], activations) < TOLERANCE
    assert relative(out["cam_gradients"], gradients) < TOLERANCE
    cam = gradcam(out["cam_activations"], out["cam_gradients"])
    assert relative(cam, gradcam(activations, gradients)) < TOLERANCE
