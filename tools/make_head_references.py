"""Writes tests/cam/head_references.npz and the two networks: maps of methods that run the head.

The tests compare what the loader makes of the exported networks with these arrays, so that they
need neither torch nor the libraries. Environment: Python 3.11, torch 2.13.0 (CPU), grad-cam 1.5.7,
openvino 2026.4.1, openvino_xai 1.1.0, onnx::

    pip install torch==2.13.0 grad-cam==1.5.7 openvino==2026.4.1 onnx
    pip install --no-deps openvino_xai==1.1.0
    PYTHONPATH=. python tools/make_head_references.py

Networks: ``head_cnn.onnx``, in which a convolution ``signed`` has a ReLU ``map`` behind it, and
``head_vit.onnx``, a vision transformer with a class token. Keys: ``{network}/images``,
``{network}/classes``, and per case ``{network}/{layer}/{method}/raw`` and ``.../cam``.

- ``ablationcam``: pytorch-grad-cam, all images in one call, one channel ablated at a time. With
  more of them at once it ablates each by 1e7 more than the one before, where A has both signs.
- ``reciprocam``: openvino_xai on the ONNX file; ``cam`` is what it scales to bytes, at the size of
  the layer. In the transformer it is that of its variant for torch, without Gaussian.
- ``vitreciprocam``: openvino_xai's variant for torch, which masks the output of norm1 alone. Its
  variant for OpenVINO also masks the residual beside it, at two places of the graph.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import openvino
import openvino.opset10
import torch
from numpy.typing import NDArray

from tools.torch_models import import_with_torchvision

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "cam"
CLASSES = 5
Array = NDArray[Any]


class Cnn(torch.nn.Module):  # type: ignore[misc]
    """A classifier whose head is not linear and tells places apart."""

    size = (12, 14)

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        torch.manual_seed(2)
        self.stem = torch.nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.signed = torch.nn.Conv2d(6, 10, 3, padding=1)
        self.map = torch.nn.ReLU()
        self.mix = torch.nn.Conv2d(10, 6, 2)
        self.head = torch.nn.Linear(6 * 5 * 6, CLASSES)
        with torch.no_grad():  # so that maps differ between classes and images
            self.signed.weight *= 3
            self.mix.weight *= 3
            self.head.weight *= 4

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return y ``(N, K)``."""
        features = self.map(self.signed(torch.tanh(self.stem(images))))
        return self.head(torch.tanh(self.mix(features)).flatten(1))


class Block(torch.nn.Module):  # type: ignore[misc]
    """A transformer block with norms before attention and network, as in ViT."""

    def __init__(self, width: int) -> None:
        """Draw the weights."""
        super().__init__()
        self.norm1 = torch.nn.LayerNorm(width)
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.project = torch.nn.Linear(width, width)
        self.norm2 = torch.nn.LayerNorm(width)
        self.wide = torch.nn.Linear(width, 2 * width)
        self.narrow = torch.nn.Linear(2 * width, width)
        with torch.no_grad():
            self.qkv.weight *= 3
            self.project.weight *= 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return tokens ``(N, T, C)``."""
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        attention = torch.softmax(q @ k.transpose(1, 2) * q.shape[-1] ** -0.5, dim=-1)
        x = x + self.project(attention @ v)
        return x + self.narrow(torch.tanh(self.wide(self.norm2(x))))


class Vit(torch.nn.Module):  # type: ignore[misc]
    """A vision transformer with a class token."""

    size = (16, 16)

    def __init__(self, width: int = 12) -> None:
        """Draw the weights."""
        super().__init__()
        torch.manual_seed(3)
        self.patches = torch.nn.Conv2d(3, width, 4, stride=4)
        self.token = torch.nn.Parameter(torch.randn(1, 1, width))
        self.places = torch.nn.Parameter(torch.randn(1, 17, width))
        self.blocks = torch.nn.Sequential(Block(width), Block(width))
        self.norm = torch.nn.LayerNorm(width)
        self.head = torch.nn.Linear(width, CLASSES)
        with torch.no_grad():
            self.head.weight *= 4

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return y ``(N, K)``."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


def main() -> None:
    """Write the files."""
    arrays: dict[str, Array] = {}
    for name, network in (("cnn", Cnn().eval()), ("vit", Vit().eval())):
        torch.manual_seed(5)
        images, classes = torch.randn(2, 3, *network.size), [3, 1]
        path = FOLDER / f"head_{name}.onnx"
        export(network, images, path)
        arrays |= {f"{name}/images": images.numpy(), f"{name}/classes": np.array(classes)}
        arrays |= (cnn_maps if name == "cnn" else vit_maps)(network, images, classes, path)
    output = FOLDER / "head_references.npz"
    np.savez_compressed(output, allow_pickle=False, **arrays)
    print(f"{output}: {len(arrays)} arrays, {output.stat().st_size} bytes")


def export(network: torch.nn.Module, images: torch.Tensor, path: Path) -> None:
    """Write a network as ONNX, of any batch size."""
    axes = {"image": {0: "N"}, "logits": {0: "N"}}
    torch.onnx.export(
        network,
        (images,),
        str(path),
        dynamo=False,
        opset_version=17,
        dynamic_axes=axes,
        input_names=["image"],
        output_names=["logits"],
    )


def cnn_maps(
    network: torch.nn.Module, images: torch.Tensor, classes: list[int], path: Path
) -> dict[str, Array]:
    """Return the maps of the convolutional network."""
    found: dict[str, Array] = {}
    for layer in ("map", "signed"):
        target = getattr(network, layer)
        found |= as_arrays(f"cnn/{layer}/ablationcam", ablation(network, target, images, classes))
    found |= as_arrays("cnn/map/reciprocam", recipro_openvino(path, "Relu", images, classes))
    return found


def vit_maps(
    network: torch.nn.Module, images: torch.Tensor, classes: list[int], path: Path
) -> dict[str, Array]:
    """Return the maps of the transformer."""
    del path
    target = network.blocks[1].norm1
    found = as_arrays("vit/norm1/ablationcam", ablation(network, target, images, classes))
    for method, gaussian in (("reciprocam", False), ("vitreciprocam", True)):
        maps = recipro_torch(network, "blocks.1.norm1", images, classes, gaussian)
        found |= as_arrays(f"vit/norm1/{method}", maps)
    return found


def as_arrays(key: str, maps: tuple[Array, Array]) -> dict[str, Array]:
    """Return raw and final maps under their names."""
    return dict(zip((f"{key}/raw", f"{key}/cam"), maps, strict=True))


def ablation(
    network: torch.nn.Module, target: torch.nn.Module, images: torch.Tensor, classes: list[int]
) -> tuple[Array, Array]:
    """Return raw maps ``(N, h, w)`` and final ones ``(N, H, W)`` of pytorch-grad-cam."""
    library = import_with_torchvision("pytorch_grad_cam")
    layers = import_with_torchvision("pytorch_grad_cam.ablation_layer")
    targets = import_with_torchvision("pytorch_grad_cam.utils.model_targets")
    options: dict[str, Any] = {"model": network, "target_layers": [target], "batch_size": 1}
    if isinstance(network, Vit):
        options["ablation_layer"] = layers.AblationLayerVit()
        options["reshape_transform"] = lambda x: x[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    raw: list[Array] = []
    with library.AblationCAM(**options) as cam:
        compute = cam.get_cam_image

        def record(*args: Any, **kwargs: Any) -> Any:
            raw.append(np.asarray(compute(*args, **kwargs)))
            return raw[-1]

        cam.get_cam_image = record
        cams = cam(images, [targets.ClassifierOutputTarget(c) for c in classes])
    return raw[0], np.asarray(cams)


def recipro_openvino(
    path: Path, operator: str, images: torch.Tensor, classes: list[int]
) -> tuple[Array, Array]:
    """Return raw and scaled maps ``(N, h, w)`` of openvino_xai on an ONNX file."""
    method = openvino_xai("recipro_cam").ReciproCAM
    model = openvino.Core().read_model(path)
    node = next(op for op in model.get_ordered_ops() if op.get_type_name() == operator)
    each = []
    for scaled in (False, True):
        explain = method(model, target_layer=node.get_friendly_name(), embed_scaling=scaled)
        maps = [explain.generate_saliency_map(image[None].numpy()) for image in images]
        each.append(np.stack([m[0, c] for m, c in zip(maps, classes, strict=True)]))
    return each[0], each[1] / np.float32(255)


def recipro_torch(
    network: torch.nn.Module, layer: str, images: torch.Tensor, classes: list[int], gaussian: bool
) -> tuple[Array, Array]:
    """Return raw maps ``(N, h, w)`` of openvino_xai on a transformer in torch, and those scaled."""
    method = openvino_xai("torch").TorchViTReciproCAM
    explain = method(network, target_layer=layer, embed_scaling=False, use_gaussian=gaussian)
    maps = [explain.generate_saliency_map(image[None].numpy()) for image in images]
    raw = np.stack([m[0, c] for m, c in zip(maps, classes, strict=True)])
    low, high = (f(axis=(1, 2), keepdims=True) for f in (raw.min, raw.max))
    return raw, (raw - low) / (high - low)


def openvino_xai(name: str) -> Any:
    """Return a module of openvino_xai, which still looks for parts of OpenVINO under old names."""
    old = ModuleType("openvino.runtime")
    vars(old).update(vars(openvino))
    openvino.runtime = old
    sys.modules |= {"openvino.runtime": old, "openvino.runtime.opset10": openvino.opset10}
    old.opset10 = openvino.opset10  # type: ignore[attr-defined]
    return import_with_torchvision(f"openvino_xai.methods.white_box.{name}")


if __name__ == "__main__":
    main()
