"""Writes tests/cam/references.npz: what pytorch-grad-cam makes of some small networks.

The tests compare the CAM functions with these arrays, so that they need neither torch nor
pytorch-grad-cam. Environment: Python 3.11, torch 2.13.0 (CPU), grad-cam 1.5.7, numpy, and onnx for
the weights of tests/contract_models.py::

    pip install torch==2.13.0 grad-cam==1.5.7 onnx
    PYTHONPATH=. python tools/make_cam_references.py

Keys: ``{case}/activations``, ``{case}/gradients``, ``{case}/size``, and per method
``{case}/{method}/raw`` and ``{case}/{method}/cam``; ``{method}:eigen`` with ``eigen_smooth``. Case
``smooth`` is the network of tests/contract_models.py: ``smooth/{method}:aug/...`` with
``aug_smooth``, ``:aug:eigen`` with both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from onnx_gradcam.cam import get_method
from tests.contract_models import images as contract_images
from tests.contract_models import weights
from tools.parity_oracle import METHODS, reference_maps

OUTPUT = Path(__file__).resolve().parents[1] / "tests" / "cam" / "references.npz"
CASES = {
    "odd": ((2, 3, 11, 14), [1, 0], METHODS),
    "tiny": ((2, 3, 4, 4), [2, 2], METHODS),
    "wide": ((1, 3, 31, 28), [1], ("gradcam", "kpcacam")),
}
"""Case -> shape of the images, the class explained in each, and the methods."""


def main() -> None:
    """Write the file."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for case, (shape, classes, methods) in CASES.items():
        torch.manual_seed(len(case))
        target = torch.nn.Conv2d(3, 6, 3, stride=2, padding=1)
        tail = [torch.nn.ReLU(), torch.nn.Conv2d(6, 6, 2), torch.nn.Tanh(), torch.nn.Flatten()]
        network = torch.nn.Sequential(target, *tail, torch.nn.LazyLinear(3)).eval()
        images = torch.randn(shape)
        network(images)
        for name, eigen in [(name, eigen) for name in methods for eigen in (False, True)]:
            if eigen and not get_method(name).smooths:
                continue
            found = reference_maps(network, target, images, classes, name, eigen_smooth=eigen)
            key = f"{case}/{name}{':eigen' * eigen}"
            arrays[f"{key}/raw"], arrays[f"{key}/cam"] = found.raw, found.cams
            if found.gradients is not None:
                arrays[f"{case}/activations"] = found.activations
                arrays[f"{case}/gradients"] = found.gradients
        arrays[f"{case}/size"] = np.array(shape[2:])
    arrays |= smoothed()
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(OUTPUT, allow_pickle=False, **arrays)
    print(f"{OUTPUT}: {len(arrays)} arrays, {OUTPUT.stat().st_size} bytes")


def smoothed() -> dict[str, np.ndarray[Any, Any]]:
    """Return maps of the network of tests/contract_models.py with ``aug_smooth``."""
    known = {name: torch.from_numpy(w.astype(np.float32)) for name, w in weights().items()}
    target = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), torch.nn.ReLU()
    )
    head = torch.nn.Linear(4, 5)
    target[0].weight.data = known["conv_weight"]
    head.weight.data, head.bias.data = known["W"], known["b"]
    pool = torch.nn.AdaptiveAvgPool2d(1)
    network = torch.nn.Sequential(target, pool, torch.nn.Flatten(), head).eval()
    images, arrays = torch.from_numpy(contract_images(3)), {}
    for name in ("gradcam", "layercam"):
        for eigen in (False, True):
            found = reference_maps(
                network, target, images, [3, 0, 2], name, eigen_smooth=eigen, aug_smooth=True
            )
            key = f"smooth/{name}:aug{':eigen' * eigen}"
            arrays[f"{key}/raw"], arrays[f"{key}/cam"] = found.raw, found.cams
    return arrays


if __name__ == "__main__":
    main()
