"""torchvision and timm networks with seeded random weights, and their ONNX files; needs torch."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from tools.torch_oracle import declare_torchvision_operators

_declare_once = cache(declare_torchvision_operators)


def import_with_torchvision(name: str) -> Any:
    """Return torchvision or a module that needs it, its compiled operators declared first."""
    _declare_once()
    return import_module(name)


def randomised(name: str, **options: Any) -> torch.nn.Module:
    """Return a classifier in evaluation mode, always with the same weights.

    Of torchvision, or of timm where torchvision has none of that name.

    Batch norms and layer scales are drawn anew, so that signals neither die nor explode; in-place
    activations are switched off, they would overwrite what a hook has seen.
    """
    models = import_with_torchvision("torchvision.models")
    torch.manual_seed(0)
    if hasattr(models, name):
        if name in {"googlenet", "inception_v3"}:
            options["init_weights"] = False
        model: torch.nn.Module = getattr(models, name)(weights=None, **options).eval()
    else:
        model = import_with_torchvision("timm").create_model(name, **options).eval()
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
        if isinstance(module, torch.nn.LayerNorm):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
        if isinstance(getattr(module, "gamma", None), torch.nn.Parameter):
            module.gamma.data.uniform_(0.2, 1.0, generator=generator)
        if isinstance(module, torch.nn.Linear) and not module.weight.any():  # a ViT's classifier
            module.weight.data.normal_(0, 0.02, generator=generator)
        if hasattr(module, "layer_scale"):
            module.layer_scale.data.uniform_(0.2, 1.0, generator=generator)
        if hasattr(module, "inplace"):
            module.inplace = False
    return model


def calibrate(model: torch.nn.Module, images: torch.Tensor) -> None:
    """Give batch norms the statistics of these images, layer by layer, as training would.

    Random weights with other statistics make feature maps that are nearly constant over space.
    """
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(images)
    model.eval()


def export_torch(model: torch.nn.Module, images: torch.Tensor, path: Path) -> None:
    """Write the model as ONNX, opset 17, with a free batch size and its weights as they are."""
    torch.onnx.export(
        model,
        (images,),
        str(path),
        dynamo=False,
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,  # keeps BatchNormalization apart from Conv
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )
