"""Writes tests/cam/fusion_references.npz: target layers fused by pytorch-grad-cam and torchcam.

The tests compare `onnx_gradcam.cam.fuse` with these arrays, so that they need neither. The mean is
that of pytorch-grad-cam, which takes several ``target_layers``; the maximum that of torchcam's
``fuse_cams`` at the image's size, of maps made by its own Grad-CAM. Environment: Python 3.11,
torch 2.13.0 (CPU), grad-cam 1.5.7, torchcam 0.5.0, numpy::

    pip install torch==2.13.0 grad-cam==1.5.7 torchcam==0.5.0
    PYTHONPATH=. python tools/make_fusion_references.py

Keys: ``{layer}/activations``, ``{layer}/gradients`` for layers 0 and 1, ``{method}/mean`` for three
methods, ``gradcam/max``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tools.parity_oracle import METHODS
from tools.torch_models import import_with_torchvision

OUTPUT = Path(__file__).resolve().parents[1] / "tests" / "cam" / "fusion_references.npz"
CLASSES = [2, 0]


def network() -> torch.nn.Sequential:
    """Return a small network; its layers 1 and 3 are the targets."""
    torch.manual_seed(4)
    conv = [torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.Conv2d(6, 8, 3, stride=2, padding=1)]
    body = [conv[0], torch.nn.ReLU(), conv[1], torch.nn.ReLU(), torch.nn.Flatten()]
    head = torch.nn.Linear(8 * 5 * 6, 4)
    head.weight.data *= 1000  # so that the epsilons of the two packages, 1e-7 and 1e-8, do not show
    return torch.nn.Sequential(*body, head).eval()


def main() -> None:
    """Write the file."""
    model = network()
    layers = [model[1], model[3]]
    images = torch.randn(2, 3, 9, 12)
    arrays: dict[str, NDArray[Any]] = {}
    targets = import_with_torchvision("pytorch_grad_cam.utils.model_targets")
    for method in ("gradcam", "layercam", "hirescam"):
        with METHODS[method](model=model, target_layers=layers) as cam:
            arrays[f"{method}/mean"] = cam(
                images, [targets.ClassifierOutputTarget(c) for c in CLASSES]
            )
            seen = cam.activations_and_grads
            for number in range(len(layers)):
                arrays[f"{number}/activations"] = np.asarray(seen.activations[number])
                arrays[f"{number}/gradients"] = np.asarray(seen.gradients[number])
    torchcam = import_with_torchvision("torchcam.methods")
    with torchcam.GradCAM(model, target_layer=layers) as extractor:
        cams = extractor(CLASSES, model(images))
        fused = extractor.fuse_cams(cams, (9, 12))
    arrays["gradcam/max"] = fused.detach().numpy()
    np.savez_compressed(OUTPUT, allow_pickle=False, **arrays)
    print(f"{OUTPUT}: {len(arrays)} arrays, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
