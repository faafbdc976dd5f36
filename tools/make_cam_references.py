"""Writes tests/cam/references.npz: what pytorch-grad-cam makes of two small networks.

The tests compare the CAM functions with these arrays, so that they need neither torch nor
pytorch-grad-cam. Environment: Python 3.11, torch 2.13.0 (CPU), grad-cam 1.5.7, numpy::

    pip install torch==2.13.0 grad-cam==1.5.7
    PYTHONPATH=. python tools/make_cam_references.py

Keys: ``{case}/activations``, ``{case}/gradients``, ``{case}/size``, and per method
``{case}/{method}/raw`` and ``{case}/{method}/cam``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools.parity_oracle import METHODS, reference_maps

OUTPUT = Path(__file__).resolve().parents[1] / "tests" / "cam" / "references.npz"
CASES = {"odd": ((2, 3, 11, 14), [1, 0]), "tiny": ((2, 3, 4, 4), [2, 2])}
"""Case -> shape of the images, and the class explained in each."""


def main() -> None:
    """Write the file."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for case, (shape, classes) in CASES.items():
        torch.manual_seed(len(case))
        target = torch.nn.Conv2d(3, 6, 3, stride=2, padding=1)
        tail = [torch.nn.ReLU(), torch.nn.Conv2d(6, 6, 2), torch.nn.Tanh(), torch.nn.Flatten()]
        network = torch.nn.Sequential(target, *tail, torch.nn.LazyLinear(3)).eval()
        images = torch.randn(shape)
        network(images)
        for name in METHODS:
            found = reference_maps(network, target, images, classes, name)
            arrays[f"{case}/{name}/raw"] = found.raw
            arrays[f"{case}/{name}/cam"] = found.cams
            if found.gradients is not None:
                arrays[f"{case}/activations"] = found.activations
                arrays[f"{case}/gradients"] = found.gradients
        arrays[f"{case}/size"] = np.array(shape[2:])
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(OUTPUT, allow_pickle=False, **arrays)
    print(f"{OUTPUT}: {len(arrays)} arrays, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
