"""What every test can ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture(autouse=True)
def _no_debugging_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with the settings that users have."""
    monkeypatch.delenv("ONNX_GRADCAM_TRACEBACK", raising=False)


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """The folder of models that the repository keeps."""
    return MODELS
