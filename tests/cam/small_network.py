"""The classifier of tools/make_run_references.py, written again in NumPy, as a model to run again.

Image, convolution (its output is A), ReLU, linear layer, tanh, linear layer: y.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

REFERENCES = np.load(Path(__file__).parent / "run_references.npz")
IMAGES = REFERENCES["images"]
CLASSES = REFERENCES["classes"]
SIZE = IMAGES.shape[2:]

Array = NDArray[Any]


def activations(images: Array) -> Array:
    """Return A ``(N, C, h, w)``."""
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    found = np.einsum("nchwij,kcij->nkhw", windows, REFERENCES["conv_weight"])
    return (found + REFERENCES["conv_bias"][:, None, None]).astype(np.float32)


def hidden(a: Array) -> Array:
    """Return what the tanh gives ``(N, 8)``."""
    flat = np.maximum(a, 0).reshape(len(a), 252).astype(np.float64)
    return np.tanh(flat @ REFERENCES["hidden_weight"].T + REFERENCES["hidden_bias"])


def head(a: Array) -> Array:
    """Return y ``(N, K)``."""
    y = hidden(a) @ REFERENCES["head_weight"].T + REFERENCES["head_bias"]
    return y.astype(np.float32)


def gradients(a: Array, weights: Array) -> Array:
    """Return the gradient by A of the sum of all y times `weights` ``(N, K)``."""
    slope = (1 - hidden(a) ** 2) * (weights @ REFERENCES["head_weight"])
    found = (slope @ REFERENCES["hidden_weight"]).reshape(a.shape) * (a > 0)
    return found.astype(np.float32)


class SmallRuns:
    """Runs of the classifier, counted; see `onnx_gradcam.cam.runs.ModelRuns`."""

    def __init__(self, images: Array = IMAGES, classes: Array = CLASSES) -> None:
        self.images = images
        self.classes = classes
        self.scores = head(activations(images))
        self.blocks: list[int] = []
        self.gradient_blocks: list[int] = []

    def __call__(self, images: Array, rows: Array) -> Array:
        assert images.dtype == np.float32
        assert images.shape[1:] == self.images.shape[1:]
        assert rows.shape == images.shape[:1]
        self.blocks.append(len(images))
        return head(activations(images))

    def explain(self, images: Array, rows: Array) -> tuple[Array, Array]:
        assert images.dtype == np.float32
        assert rows.shape == images.shape[:1]
        self.gradient_blocks.append(len(images))
        a = activations(images)
        return a, gradients(a, np.eye(self.scores.shape[1])[self.classes[rows]])


class LinearRuns:
    """y = the images times `weights` ``(K, channels, *size)``, summed."""

    def __init__(self, images: Array, weights: Array, classes: Array) -> None:
        self.images, self.weights, self.classes = images, weights, classes
        self.scores = self(images, np.arange(len(images)))

    def __call__(self, images: Array, rows: Array) -> Array:
        axes = list(range(1, images.ndim))
        return np.tensordot(images, self.weights, (axes, axes)).astype(np.float32)

    def explain(self, images: Array, rows: Array) -> tuple[Array, Array]:
        g = self.weights[self.classes[rows]]
        return images, g.astype(np.float32)
