"""What the objectives of tests/export/objective_models.py are asked for, here and in torch."""

from __future__ import annotations

import numpy as np

IMAGES = np.random.default_rng(5).normal(size=(2, 3, 8, 10)).astype(np.float32)
CLASSES = (2, 4)
BOXES = (7, 13)
MASK = (np.random.default_rng(8).random((8, 10)) < 0.4).astype(np.float32)
EMBEDDING = np.random.default_rng(9).normal(size=(2, 5)).astype(np.float32)
