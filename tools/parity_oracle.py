"""pytorch-grad-cam as the oracle: raw and final maps of a torch network, and what they came from.

Needs torch and grad-cam, which are not dependencies of the project: see `parity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tools.torch_oracle import declare_torchvision_operators

_torchvision_operators = declare_torchvision_operators()  # before grad-cam imports torchvision
pytorch_grad_cam = import_module("pytorch_grad_cam")
_Target = import_module("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget

METHODS: dict[str, Any] = {
    "gradcam": pytorch_grad_cam.GradCAM,
    "gradcam++": pytorch_grad_cam.GradCAMPlusPlus,
    "hirescam": pytorch_grad_cam.HiResCAM,
    "layercam": pytorch_grad_cam.LayerCAM,
    "xgradcam": pytorch_grad_cam.XGradCAM,
    "eigencam": pytorch_grad_cam.EigenCAM,
}
"""Our name of a method -> their class."""


@dataclass(frozen=True)
class ReferenceMaps:
    """What pytorch-grad-cam found.

    Attributes:
        raw: float32 ``(N, h, w)``, before ReLU, normalisation and resize.
        cams: float32 ``(N, H, W)`` in [0, 1].
        activations: float32 ``(N, C, h, w)``.
        gradients: likewise; None for a method that computes none.
    """

    raw: NDArray[np.float32]
    cams: NDArray[np.float32]
    activations: NDArray[np.float32]
    gradients: NDArray[np.float32] | None


def reference_maps(
    network: torch.nn.Module,
    layer: torch.nn.Module,
    images: torch.Tensor,
    classes: Sequence[int],
    method: str,
) -> ReferenceMaps:
    """Return the maps of one method; the layer's output is the target."""
    raw: list[NDArray[np.float32]] = []

    class Recorder(METHODS[method]):  # type: ignore[misc]
        def get_cam_image(self, *args: Any, **kwargs: Any) -> Any:
            image = super().get_cam_image(*args, **kwargs)
            raw.append(np.float32(image))
            return image

    with Recorder(model=network, target_layers=[layer]) as cam:
        cams = cam(input_tensor=images, targets=[_Target(c) for c in classes])
        kept = cam.activations_and_grads
        activations = kept.activations[0].numpy().astype(np.float32)
        gradients = kept.gradients[0].numpy().astype(np.float32) if kept.gradients else None
    return ReferenceMaps(raw[0], np.float32(cams), activations, gradients)
