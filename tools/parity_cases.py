"""What `parity` compares: networks, target layers and images; needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Case:
    """A network, its target layer as a module path, and its images.

    Attributes:
        network: name in torchvision, or in timm where there is an `arrange`.
        layer: module path.
        images: number of images.
        size: of the images.
        arrange: lays the layer's output out as a map, as pytorch-grad-cam's documentation does
            for transformers (its ``reshape_transform``); None for maps.
        options: of the network.
        reruns: whether to compare the methods that run the network for each channel, too.
    """

    network: str
    layer: str
    images: int
    size: tuple[int, int]
    arrange: Callable[[torch.Tensor], torch.Tensor] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    reruns: bool = False


def tokens(prefix: int, height: int, width: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what lays tokens behind `prefix` class tokens out as ``(N, C, height, width)``."""
    return lambda x: x[:, prefix:].reshape(len(x), height, width, -1).permute(0, 3, 1, 2)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Return a map with its channels moved forward."""
    return x.permute(0, 3, 1, 2)


CASES = (
    Case("resnet18", "layer4", 2, (224, 224)),
    Case("resnet18", "layer4", 3, (64, 64), reruns=True),
    Case("resnet18", "layer4", 2, (97, 131)),
    Case("resnet18", "layer2", 2, (96, 96)),
    Case("squeezenet1_1", "features", 2, (95, 127)),
    Case("mobilenet_v2", "features", 2, (128, 128)),
    Case("mobilenet_v3_small", "features", 2, (96, 64)),
    Case("efficientnet_b0", "features", 2, (96, 96)),
    Case("densenet121", "features.denseblock4", 2, (96, 96)),
    Case("densenet121", "features.transition3.relu", 2, (96, 96)),
    Case("shufflenet_v2_x1_0", "conv5", 2, (101, 99)),
    Case("regnet_y_400mf", "trunk_output", 2, (96, 96)),
    Case("convnext_tiny", "features", 2, (96, 96)),
    Case("googlenet", "inception5b", 2, (96, 96)),
    *(
        Case("vit_tiny_patch16_224", f"blocks.{block}.norm1", 2, (96, 96), tokens(1, 6, 6),
             {"img_size": 96, "depth": 6}, reruns=block == 5)
        for block in (5, 2)
    ),
    Case("deit_tiny_distilled_patch16_224", "blocks.3.norm1", 2, (64, 96), tokens(2, 4, 6),
         {"img_size": (64, 96), "depth": 4}),
    Case("vit_small_patch14_reg4_dinov2", "blocks.2.norm1", 2, (70, 70), tokens(5, 5, 5),
         {"img_size": 70, "depth": 3, "num_classes": 50}),
    Case("swin_tiny_patch4_window7_224", "norm", 2, (128, 96), channels_last,
         {"img_size": (128, 96), "window_size": 4, "depths": (2, 2, 2, 2)}),
)  # fmt: skip


def blotches(count: int, size: tuple[int, int]) -> torch.Tensor:
    """Return seeded random images with structure at several scales, ``(count, 3, H, W)``."""
    generator = torch.Generator().manual_seed(count)
    images = torch.zeros(count, 3, *size)
    for side in (2, 4, 8, 16, 32):
        coarse = torch.randn(count, 3, side, side, generator=generator)
        images += torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    return images
