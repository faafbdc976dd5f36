from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.examples import OPTIONS, write_results


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of seven images, and one image that fails."""
    return write_results(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def other(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images by another method."""
    from tests.batch.examples import batch

    folder = tmp_path_factory.mktemp("other") / "eigen"
    model, images = results.parent / "model.cam.onnx", results.parent / "images"
    batch(model, images, folder, replace(OPTIONS, method="eigencam", top_k=2))
    return folder
