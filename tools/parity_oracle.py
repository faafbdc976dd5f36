"""pytorch-grad-cam as the oracle: raw and final maps of a torch network, and what they came from.

Needs torch and grad-cam, which are not dependencies of the project: see `parity`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tools.torch_models import import_with_torchvision

_grad_cam = import_with_torchvision("pytorch_grad_cam")
_targets = import_with_torchvision("pytorch_grad_cam.utils.model_targets")

METHODS: dict[str, Any] = {
    "gradcam": _grad_cam.GradCAM,
    "gradcam++": _grad_cam.GradCAMPlusPlus,
    "hirescam": _grad_cam.HiResCAM,
    "gradcamelementwise": _grad_cam.GradCAMElementWise,
    "layercam": _grad_cam.LayerCAM,
    "xgradcam": _grad_cam.XGradCAM,
    "eigencam": _grad_cam.EigenCAM,
    "eigengradcam": _grad_cam.EigenGradCAM,
    "segeigencam": _grad_cam.SegEigenCAM,
    "kpcacam": _grad_cam.KPCA_CAM,
    "fem": _grad_cam.FEM,
    "randomcam": _grad_cam.RandomCAM,
}
"""Our name of a method -> their class. They have no CAM: see tests/cam/test_cam.py."""

RERUNNING: dict[str, Any] = {"scorecam": _grad_cam.ScoreCAM}
"""Likewise, of those that run the network again for each channel."""

UNSIGNED = {"eigencam", "eigengradcam"}
"""Methods whose sign they leave to the linear algebra library; so does ``eigen_smooth``."""

Array = NDArray[Any]


@dataclass(frozen=True)
class ReferenceMaps:
    """What pytorch-grad-cam found.

    Attributes:
        raw: ``(N, h, w)``, before ReLU, normalisation and resize.
        cams: float32 ``(N, H, W)`` in [0, 1].
        activations: ``(N, C, h, w)``, in the network's precision.
        gradients: likewise; None for a method that computes none.
    """

    raw: Array
    cams: Array
    activations: Array
    gradients: Array | None


def reference_maps(
    network: torch.nn.Module,
    layer: torch.nn.Module,
    images: torch.Tensor,
    classes: Sequence[int],
    method: str,
    arrange: Callable[[torch.Tensor], torch.Tensor] | None = None,
    *,
    eigen_smooth: bool = False,
    aug_smooth: bool = False,
    known: ReferenceMaps | None = None,
) -> ReferenceMaps:
    """Return the maps of one method; the layer's output, arranged as a map, is the target.

    With `aug_smooth`, raw maps are the mean of the six, flipped back, and activations and gradients
    those of the last. Random weights are drawn by seed 0 for each run, the same for all images.
    Activations and gradients may be `known` from another method, which saves running the network.
    """
    raw: list[Array] = []
    options = {"model": network, "target_layers": [layer], "reshape_transform": arrange}
    with {**METHODS, **RERUNNING}[method](**options) as cam:
        compute = cam.get_cam_image

        def record(*args: Any, **kwargs: Any) -> Any:
            image = compute(*args, **kwargs)
            raw.append(np.asarray(image))
            return image

        cam.get_cam_image = record
        if method == "randomcam":
            cam.get_cam_weights = partial(_same_weights, cam.get_cam_weights)
        targets = [_targets.ClassifierOutputTarget(c) for c in classes]
        seen = cam.activations_and_grads
        if known is None:
            cams = cam(images, targets, aug_smooth=aug_smooth, eigen_smooth=eigen_smooth)
        else:
            seen.activations = [torch.from_numpy(known.activations)]
            seen.gradients = [torch.from_numpy(known.gradients)]
            cams = cam.aggregate_multi_layers(
                cam.compute_cam_per_layer(images, targets, eigen_smooth)
            )
        activations = np.asarray(seen.activations[0])
        gradients = np.asarray(seen.gradients[0]) if seen.gradients else None
    runs = [run if index < 3 else run[..., ::-1] for index, run in enumerate(raw)]
    return ReferenceMaps(np.mean(runs, axis=0), np.asarray(cams), activations, gradients)


def _same_weights(draw: Callable[..., Array], *args: Any) -> Array:
    """Return what their RandomCAM draws for one image after a fixed seed, for each image."""
    np.random.seed(0)  # noqa: NPY002 - the generator that they draw from
    *others, gradients = args
    return np.repeat(draw(*others, gradients[:1]), len(gradients), axis=0)
