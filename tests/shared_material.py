"""Where the real models and photos lie that are too large, or not ours, to be in the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNX_GRADCAM_SHARED") or REPOSITORY.parent / "shared")


def shared_folder(name: str) -> Path:
    """Return a folder such as ``models`` or ``photos``; skip the test where it is absent."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; set ONNX_GRADCAM_SHARED to the one that holds {name}/")
    return folder
