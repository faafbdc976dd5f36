"""Gradients of objectives are those of pytorch-grad-cam's targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.export.exported_objective import Exported
from tests.export.objective_seeds import BOXES, CLASSES, EMBEDDING, MASK

REFERENCES = dict(np.load(Path(__file__).with_name("objective_references.npz")))
ASKED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "softmax": ("logits", {}, {"class": CLASSES}),
    "binary": ("single logit", {}, {"class": [0, 1]}),
    "segmentation": ("segmenter", {}, {"class": CLASSES, "mask": MASK[None]}),
    "detection": ("detector", {"class_channels": "4:"}, {"class": CLASSES, "box": BOXES}),
    "similarity": ("embedder", {}, {"embedding": EMBEDDING}),
}


@pytest.mark.parametrize("kind", list(ASKED))
def test_gradients_are_those_of_pytorch_grad_cams_targets(tmp_path: Path, kind: str) -> None:
    body, options, seeds = ASKED[kind]
    found = Exported(tmp_path, body, objective=kind, **options).run(**seeds)
    for name in ("activations", "gradients"):
        expected = REFERENCES[f"{kind}/{name}"]
        size = np.abs(expected).max()
        np.testing.assert_allclose(found[f"cam_{name}"] / size, expected / size, atol=1e-5)
