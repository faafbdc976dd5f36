"""Writes tests/export/objective_references.npz: gradients of pytorch-grad-cam's targets.

The networks of tests/export/objective_models.py are written again in torch, with the same weights;
dy/dA of what pytorch-grad-cam calls targets is taken by autograd in float64. The tests compare the
exported files with these arrays, so that they need neither. Environment: torch 2.13.0 (CPU),
grad-cam 1.5.7, onnx::

    pip install torch==2.13.0 grad-cam==1.5.7 onnx
    PYTHONPATH=. python tools/make_objective_references.py

Keys: ``{objective}/activations`` and ``{objective}/gradients``, float32 ``(2, C, h, w)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx.numpy_helper
import torch

from tests.export.objective_models import objective_model
from tests.export.objective_seeds import BOXES, CLASSES, EMBEDDING, IMAGES, MASK
from tools.torch_models import import_with_torchvision

OUTPUT = Path(__file__).resolve().parents[1] / "tests" / "export" / "objective_references.npz"
targets = import_with_torchvision("pytorch_grad_cam.utils.model_targets")
Tensors = dict[str, torch.Tensor]


def weights(body: str) -> Tensors:
    """Return the weights of a model, float64."""
    graph = objective_model(body).graph
    return {
        tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).astype(np.float64))
        for tensor in graph.initializer
    }


def stem(w: Tensors) -> torch.Tensor:
    """Return A."""
    conv = torch.nn.functional.conv2d
    images = torch.from_numpy(IMAGES.astype(np.float64))
    first = torch.relu(conv(images, w["first_weight"], padding=1))
    return torch.nn.functional.softplus(conv(first, w["second_weight"], padding=1, stride=2))


def hidden(w: Tensors, a: torch.Tensor) -> torch.Tensor:
    """Return the map before the last convolution."""
    return torch.tanh(torch.nn.functional.conv2d(a, w["third_weight"], padding=1))


def classifier(w: Tensors, a: torch.Tensor) -> torch.Tensor:
    """Return logits ``(N, 5)``."""
    return a.mean(dim=(2, 3)) @ w["head"] + w["bias"]


def single(w: Tensors, a: torch.Tensor) -> torch.Tensor:
    """Return a logit ``(N, 1)``."""
    return a.mean(dim=(2, 3)) @ w["single"]


def segmenter(w: Tensors, a: torch.Tensor) -> torch.Tensor:
    """Return scores ``(N, 5, 8, 10)`` of the map before the last convolution."""
    small = torch.nn.functional.conv2d(a, w["class_map"])
    return torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear")


def detector(w: Tensors, a: torch.Tensor) -> torch.Tensor:
    """Return class scores before the sigmoid ``(N, 5, 20)``, of the same map."""
    return torch.nn.functional.conv2d(a, w["class_map"]).flatten(2)


def embedder(w: Tensors, a: torch.Tensor) -> torch.Tensor:
    """Return unit vectors ``(N, 5)``."""
    e = classifier(w, a)
    return e / e.norm(dim=1, keepdim=True)


class SimilarityTarget:
    """Cosine of the output and a vector, as in pytorch-grad-cam's documentation."""

    def __init__(self, vector: np.ndarray[Any, Any]) -> None:
        """Take the vector."""
        self.vector = torch.from_numpy(vector.astype(np.float64))

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        """Return the cosine."""
        return torch.nn.CosineSimilarity(dim=0)(output, self.vector)


class BoxTarget:
    """The score of a class in a box."""

    def __init__(self, category: int, box: int) -> None:
        """Take both."""
        self.category, self.box = category, box

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        """Return the score."""
        return output[self.category, self.box]


CASES: dict[str, tuple[str, Callable[..., torch.Tensor], Sequence[Callable[..., Any]]]] = {
    "softmax": (
        "logits",
        classifier,
        [targets.ClassifierOutputSoftmaxTarget(c) for c in CLASSES],
    ),
    "binary": ("single logit", single, [targets.BinaryClassifierOutputTarget(c) for c in (0, 1)]),
    "segmentation": (
        "segmenter",
        segmenter,
        [targets.SemanticSegmentationTarget(c, MASK.astype(np.float64)) for c in CLASSES],
    ),
    "detection": (
        "detector",
        detector,
        [BoxTarget(c, b) for c, b in zip(CLASSES, BOXES, strict=True)],
    ),
    "similarity": ("embedder", embedder, [SimilarityTarget(e) for e in EMBEDDING]),
}
"""Objective -> model, its part behind A, and a target for each image."""


def main() -> None:
    """Write the file."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for objective, (body, behind, wanted) in CASES.items():
        w = weights(body)
        a = hidden(w, stem(w)) if behind in {segmenter, detector} else stem(w)
        a = a.detach().requires_grad_()
        outputs = behind(w, a)
        sum(target(output) for target, output in zip(wanted, outputs, strict=True)).backward()
        arrays[f"{objective}/activations"] = a.detach().numpy().astype(np.float32)
        assert a.grad is not None
        arrays[f"{objective}/gradients"] = a.grad.numpy().astype(np.float32)
    np.savez_compressed(OUTPUT, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
