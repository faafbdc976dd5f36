"""Write the gradients of PyTorch's fake quantization, for `tests/gradients/test_quantization.py`.

Run with an environment that has PyTorch: ``python tools/make_quantization_references.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

FILE = Path(__file__).parents[1] / "tests" / "gradients" / "fake_quantize.npz"

RANGES = {"uint8": (0, 255, 103), "int8": (-128, 127, -20), "uint4": (0, 15, 6), "int4": (-8, 7, 1)}
"""Smallest and largest integer, and a zero point."""


def main() -> None:
    """Write, per type, values on and around every step and bound, and dL/dx of L = sum(k y)."""
    arrays: dict[str, Any] = {}
    for name, (low, high, zero) in RANGES.items():
        scale = np.float32(0.0371)
        steps = np.arange(low - 6, high + 7, 0.25) + 0.05
        x = ((steps - zero) * scale).astype(np.float32)
        weight = np.linspace(0.5, 2, x.size, dtype=np.float32)
        value = torch.tensor(x, requires_grad=True)
        y = torch.fake_quantize_per_tensor_affine(value, float(scale), zero, low, high)
        (y * torch.tensor(weight)).sum().backward()
        assert value.grad is not None
        arrays |= {f"{name}_x": x, f"{name}_weight": weight, f"{name}_y": y.detach().numpy()}
        arrays |= {f"{name}_scale": scale, f"{name}_zero": np.asarray(zero)}
        arrays |= {f"{name}_gradient": value.grad.numpy()}
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
