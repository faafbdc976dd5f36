"""Writes tests/runtime/resize_references.npz: what Pillow makes of a small photo.

The tests compare the antialiased resize with these arrays, so that they do not need Pillow::

    pip install pillow==13.0.0
    PYTHONPATH=. python tools/make_resize_references.py

Keys: ``photo``, uint8 ``(29, 41, 3)``, and ``{filter}/{height}x{width}``.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

Image: Any = import_module("PIL.Image")
OUTPUT = Path(__file__).resolve().parents[1] / "tests" / "runtime" / "resize_references.npz"
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SIZES = [(10, 14), (7, 7), (29, 13), (45, 60), (1, 1)]


def main() -> None:
    """Write the file."""
    random = np.random.default_rng(29)
    blocks = random.integers(0, 256, (8, 11, 3)).repeat(4, 0).repeat(4, 1)[:29, :41]
    noise = random.integers(-40, 41, (29, 41, 3))
    photo = (blocks + noise).clip(0, 255).astype(np.uint8)
    arrays: dict[str, np.ndarray[Any, Any]] = {"photo": photo}
    image = Image.fromarray(photo)
    for name, resample in FILTERS.items():
        for height, width in SIZES:
            resized = np.asarray(image.resize((width, height), resample))
            arrays[f"{name}/{height}x{width}"] = resized
    arrays["gray"] = np.asarray(image.convert("L"))
    np.savez_compressed(OUTPUT, allow_pickle=False, **arrays)
    print(f"{OUTPUT}: {len(arrays)} arrays, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
