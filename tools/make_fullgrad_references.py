"""Writes tests/cam/fullgrad_references.npz: what pytorch-grad-cam's FullGrad makes of a network.

The tests compare the exported file and the method with these arrays, so that they need neither
torch nor pytorch-grad-cam. Environment: Python 3.11, torch 2.13.0 (CPU), grad-cam 1.5.7, numpy, and
onnx for tests/cam/fullgrad_network.py, whose weights are taken::

    pip install torch==2.13.0 grad-cam==1.5.7 onnx
    PYTHONPATH=. python tools/make_fullgrad_references.py

Keys: ``cam``, the heat maps; ``raw``, the sums before the last stretch; ``scores``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.cam.fullgrad_network import CLASSES, EPSILON, images, weights
from tools.torch_models import import_with_torchvision

OUTPUT = Path(__file__).resolve().parents[1] / "tests" / "cam" / "fullgrad_references.npz"


class Network(torch.nn.Module):  # type: ignore[misc]
    """The network of tests/cam/fullgrad_network.py; its layers in the order in which they run."""

    def __init__(self) -> None:
        """Load the weights."""
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 6, 3, padding=1)
        self.bn1 = torch.nn.BatchNorm2d(6, eps=EPSILON)
        self.conv2 = torch.nn.Conv2d(6, 6, 3, padding=1)
        self.conv3 = torch.nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.bn3 = torch.nn.BatchNorm2d(8, eps=EPSILON)
        self.linear = torch.nn.Linear(8, 4)
        known = {name: torch.from_numpy(values) for name, values in weights().items()}
        self.load_state_dict(known, strict=False)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        first = self.bn1(self.conv1(x)).relu()
        second = first + self.conv2(first).relu()
        pooled = torch.nn.functional.max_pool2d(second, 2)
        last: torch.Tensor = self.linear(self.bn3(self.conv3(pooled)).relu().mean((2, 3)))
        return last


def main() -> None:
    """Write the file."""
    fullgrad: Any = import_with_torchvision("pytorch_grad_cam").FullGrad
    targets = import_with_torchvision("pytorch_grad_cam.utils.model_targets")
    model, x = Network(), torch.from_numpy(images())
    raw = []
    with fullgrad(model=model, target_layers=[]) as cam:
        add_up = cam.compute_cam_per_layer

        def record(*args: Any) -> Any:
            maps = add_up(*args)
            raw.append(np.sum(maps, axis=1))
            return maps

        cam.compute_cam_per_layer = record
        cams = cam(x, [targets.ClassifierOutputTarget(c) for c in CLASSES])
    arrays = {"cam": cams, "raw": raw[0], "scores": model(x).detach().numpy()}
    np.savez_compressed(OUTPUT, allow_pickle=False, **arrays)
    print(f"{OUTPUT}: {len(arrays)} arrays, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
