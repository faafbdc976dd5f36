"""Architectures of the zoo: their table, and their networks with seeded random weights.

Needs torch, timm, torchvision and transformers (see the head of `zoo`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any
from unittest import mock

import torch
from torch import nn

from tools import zoo_others, zoo_timm
from tools.torch_models import import_with_torchvision

NUM_CLASSES = 10
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_BATCH = 2
_FURTHER_IMAGES = 14


@dataclass(frozen=True)
class Architecture:
    """One network of the zoo.

    Attributes:
        name: unique, e.g. ``timm/resnet18``.
        library: ``timm``, ``torchvision`` or ``transformers``.
        family: what it is a kind of.
        size: side of the input in pixels.
        options: what makes it small.
    """

    name: str
    library: str
    family: str
    size: int
    options: dict[str, Any] = field(hash=False)

    @property
    def file_stem(self) -> str:
        """Return the name as part of a file name."""
        return self.name.replace("/", "-")


def architectures() -> dict[str, Architecture]:
    """Return name -> architecture, timm first."""
    sections = [
        ("timm", zoo_timm.TRANSFORMERS),
        ("timm", zoo_timm.HYBRIDS),
        ("timm", zoo_timm.CONVOLUTIONS),
        ("torchvision", zoo_others.TORCHVISION),
        ("transformers", zoo_others.TRANSFORMERS),
    ]
    return {
        f"{library}/{name}": Architecture(f"{library}/{name}", library, family, size, options)
        for library, section in sections
        for family, rows in section.items()
        for name, size, options in rows
    }


class _Logits(nn.Module):  # type: ignore[misc]  # torch is not installed for checks
    """A classifier of transformers that takes an image and returns the logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        output = self.model(pixel_values=image)
        return output.logits if hasattr(output, "logits") else output[-1]


def _from_timm(name: str, options: dict[str, Any]) -> nn.Module:
    """Return a network of timm, its options given last: some functions of timm fix their own."""
    import_with_torchvision("torchvision")
    import timm

    others = dict(options)
    changes = others.pop("config", {})
    module = import_module(timm.models.model_entrypoint(name).__module__)
    build = module.build_model_with_cfg

    def build_small(*args: Any, **kwargs: Any) -> nn.Module:
        if changes:
            kwargs["model_cfg"] = _changed(kwargs["model_cfg"], changes)
        return build(*args, **{**kwargs, **others})

    with mock.patch.object(module, "build_model_with_cfg", build_small):
        return timm.create_model(name, num_classes=NUM_CLASSES)


def _changed(config: Any, changes: dict[str, Any]) -> Any:
    return {**config, **changes} if isinstance(config, dict) else replace(config, **changes)


def _from_torchvision(name: str, options: dict[str, Any]) -> nn.Module:
    models = import_with_torchvision("torchvision.models")
    weights = {} if name[0].isupper() else {"weights": None}  # a class, not one of its variants
    return getattr(models, name)(num_classes=NUM_CLASSES, **weights, **options)


def _from_transformers(name: str, options: dict[str, Any]) -> nn.Module:
    transformers = import_with_torchvision("transformers")
    family, _, suffix = name.partition("WithTeacher")
    config = getattr(transformers, f"{family}Config")(num_labels=NUM_CLASSES, **options)
    kind = getattr(transformers, f"{family}ForImageClassification{suffix and 'WithTeacher'}")
    return _Logits(kind(config))


def load_libraries(chosen: Iterable[Architecture]) -> None:
    """Import the libraries of these networks, before processes are forked: it takes seconds."""
    for library in {architecture.library for architecture in chosen}:
        import_with_torchvision(library)


_LIBRARIES = {
    "timm": _from_timm,
    "torchvision": _from_torchvision,
    "transformers": _from_transformers,
}


def images(architecture: Architecture) -> torch.Tensor:
    """Return the images that are explained: random, ``(2, 3, S, S)`` float32, normalised."""
    return _random_images(architecture, _BATCH, seed=2).half().float()  # exact in half precision


def _random_images(architecture: Architecture, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = architecture.size
    return torch.randn(count, 3, size, size, generator=generator)


def network(architecture: Architecture) -> nn.Module:
    """Return the network in evaluation mode, always with the same weights.

    Default initialisations let signals vanish (layer scales of 1e-6, last batch norms of zero,
    heads of zero), so that gradients would be compared with nothing: weights are drawn anew,
    and batch norms take the statistics of some images, those of `images` among them: of few others
    they would be so small in deep networks that these images explode.
    """
    torch.manual_seed(0)
    model = _LIBRARIES[architecture.library](
        architecture.name.partition("/")[2], architecture.options
    ).eval()
    _randomise(model)
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    further = _random_images(architecture, _FURTHER_IMAGES, seed=1)
    _calibrate(model, torch.cat([images(architecture), further]))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def _own_parameters(model: nn.Module) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            yield module, name, value.data


def _randomise(model: nn.Module) -> None:
    """Draw weights whose outputs have about the variance of their inputs; scales around one."""
    generator = torch.Generator().manual_seed(1)
    normalised = any("Norm" in type(module).__name__ for module in model.modules())
    gain = 1.0 if normalised else 2**0.5  # ReLU halves the variance
    for module, name, value in _own_parameters(model):
        products = isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
        if products and name == "weight":
            fan_in = value[0].numel()
            value.normal_(0, gain * fan_in**-0.5, generator=generator)
        elif name == "bias":
            value.normal_(0, 0.1, generator=generator)
        elif name == "weight" and value.dim() == 1:
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.abs().max() < 0.01 or value.std() == 0:  # scales, tokens, position tables
            if value.dim() >= 2 and min(value.shape) > 1:
                value.normal_(0, 0.5, generator=generator)
            else:
                value.uniform_(0.3, 1.0, generator=generator)


def _calibrate(model: nn.Module, batch: torch.Tensor) -> None:
    """Give batch norms the statistics of a batch, layer by layer, as training would."""
    norms = [m for m in model.modules() if isinstance(m, _BATCH_NORMS) and m.track_running_stats]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(batch)
    model.eval()
