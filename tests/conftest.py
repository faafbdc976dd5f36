"""What every test can ask for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[1] / "models"
BUILDER = Path(sys.prefix) / "builder"  # where `make test` and `make demo` install it

if BUILDER.is_dir():
    os.environ.setdefault("ONNX_GRADCAM_BUILDER", str(BUILDER))


@pytest.fixture(autouse=True)
def _no_debugging_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with the settings that users have."""
    monkeypatch.delenv("ONNX_GRADCAM_TRACEBACK", raising=False)


@pytest.fixture(autouse=True)
def _builder_where_needed(request: pytest.FixtureRequest) -> None:
    """Skip tests marked `needs_builder` only where onnxruntime-training cannot be had."""
    if request.node.get_closest_marker("needs_builder"):
        from onnx_gradcam.export.builders.environment import builder_status

        status = builder_status()
        if not status.available:
            pytest.skip(f"{status.problem}")


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """The folder of models that the repository keeps."""
    return MODELS
