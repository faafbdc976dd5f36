"""Write PyTorch classifiers as ONNX in the ways people do, for `tools/producers.py`.

Environment: that of `tools/zoo.py` (torch, torchvision, timm, transformers, onnxscript)::

    oracle/bin/python tools/producer_torch.py FOLDER
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.producer_note import Note, write_note  # noqa: E402
from tools.torch_models import import_with_torchvision, randomised  # noqa: E402

SIZE = 64


def main(folder: Path) -> int:
    """Write all files; those that fail are named on stderr."""
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    for name, maker in MAKERS.items():
        path = folder / f"torch_{name}.onnx"
        try:
            note = maker(path)
        except Exception:
            traceback.print_exc()
            print(f"FAILED {name}", file=sys.stderr, flush=True)
        else:
            write_note(path, note)
            print(path, flush=True)
    return 0


def _legacy(model: nn.Module, path: Path, what: str, opset: int, **options: Any) -> Note:
    torch.onnx.export(
        model,
        (_image(),),
        str(path),
        dynamo=False,
        opset_version=opset,
        **{"input_names": ["input"], "output_names": ["output"]} | options,
    )
    return Note(f"PyTorch {version('torch')}, legacy exporter", what, "PyTorch")


def _dynamo(model: nn.Module, path: Path, what: str, opset: int, **options: Any) -> Note:
    torch.onnx.export(
        model,
        (_image(),),
        str(path),
        dynamo=True,
        opset_version=opset,
        verbose=False,
        **{"external_data": False} | options,
    )
    return Note(f"PyTorch {version('torch')}, dynamo exporter", what, "PyTorch")


def _image() -> torch.Tensor:
    return torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def _defaults(path: Path) -> Note:
    """Everything as the tutorial has it: numbered names, a batch of one."""
    model = randomised("mobilenet_v2", width_mult=0.35, num_classes=10)
    return _legacy(model, path, "MobileNetV2, fixed batch", 11, input_names=None, output_names=None)


def _open(path: Path) -> Note:
    axes = {"input": {0: "batch", 2: "h", 3: "w"}, "output": {0: "batch"}}
    model = randomised("mobilenet_v3_small", num_classes=10)
    return _legacy(model, path, "MobileNetV3, open sizes", 17, dynamic_axes=axes)


def _initializers_as_inputs(path: Path) -> Note:
    model = randomised("squeezenet1_1", num_classes=10)
    return _legacy(
        model,
        path,
        "SqueezeNet, `keep_initializers_as_inputs`",
        9,
        keep_initializers_as_inputs=True,
    )


def _unfolded(path: Path) -> Note:
    model = randomised("shufflenet_v2_x0_5", num_classes=10)
    return _legacy(
        model,
        path,
        "ShuffleNetV2, no constant folding, training mode kept",
        13,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
    )


def _softmaxed(path: Path) -> Note:
    model = nn.Sequential(randomised("resnet18", num_classes=10), nn.Softmax(1)).eval()
    return _legacy(model, path, "ResNet-18 and Softmax", 14)


def _labelled(path: Path) -> Note:
    """Two outputs, as deployment wrappers have: the class, and the probability of it and all."""

    class Wrapped(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = randomised("mobilenet_v2", width_mult=0.35, num_classes=10)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            pixels = (x.permute(0, 3, 1, 2) / 255.0 - 0.5) / 0.25
            p = self.net(pixels).softmax(1)
            confidence, label = p.max(1)
            return label, confidence, p

    torch.onnx.export(
        Wrapped().eval(),
        (torch.rand(1, SIZE, SIZE, 3) * 255,),
        str(path),
        dynamo=False,
        opset_version=16,
        input_names=["pixels"],
        output_names=["label", "confidence", "probabilities"],
        dynamic_axes={
            name: {0: "n"} for name in ("pixels", "label", "confidence", "probabilities")
        },
    )
    what = "MobileNetV2 wrapped: preprocessing inside, label, confidence, probabilities"
    return Note(f"PyTorch {version('torch')}, legacy exporter", what, "PyTorch")


def _timm_external(path: Path) -> Note:
    model = import_with_torchvision("timm").create_model("efficientnet_lite0", num_classes=10)
    return _dynamo(model.eval(), path, "timm EfficientNet-Lite0", 18, external_data=True)


def _dynamo_default(path: Path) -> Note:
    model = randomised("resnet18", num_classes=10)
    return _dynamo(model, path, "ResNet-18", 20)


def _dynamo_newest(path: Path) -> Note:
    model = import_with_torchvision("timm").create_model(
        "vit_tiny_patch16_224", img_size=SIZE, patch_size=8, num_classes=10, depth=3
    )
    return _dynamo(model.eval(), path, "timm ViT", 24, dynamic_shapes=({0: torch.export.Dim("N")},))


def _transformers(kind: str, opset: int, **options: Any) -> Callable[[Path], Note]:
    """A classifier of transformers, exported as optimum does: ``pixel_values`` to ``logits``."""

    def make(path: Path) -> Note:
        transformers = import_with_torchvision("transformers")
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(num_labels=10, image_size=SIZE, **options)
        config._attn_implementation = "eager"
        net = getattr(transformers, f"{kind}ForImageClassification")(config).eval()

        class Logits(nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.net = net

            def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
                logits: torch.Tensor = self.net(pixel_values=pixel_values).logits
                return logits

        names = ("batch_size", "num_channels", "height", "width")
        axes = {"pixel_values": dict(enumerate(names)), "logits": {0: "batch_size"}}
        note = _legacy(
            Logits().eval(),
            path,
            f"transformers {kind}, as optimum exports",
            opset,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_axes=axes,
        )
        return Note(note.producer, note.what, "transformers")

    return make


MAKERS: dict[str, Callable[[Path], Note]] = {
    "defaults": _defaults,
    "open": _open,
    "initializers_as_inputs": _initializers_as_inputs,
    "unfolded": _unfolded,
    "softmaxed": _softmaxed,
    "labelled": _labelled,
    "timm_external": _timm_external,
    "dynamo": _dynamo_default,
    "dynamo_vit": _dynamo_newest,
    "hf_vit": _transformers(
        "ViT",
        14,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        patch_size=8,
    ),
    "hf_swin": _transformers(
        "Swin", 14, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4, patch_size=4
    ),
    "hf_resnet": _transformers(
        "ResNet",
        12,
        embedding_size=16,
        hidden_sizes=[16, 32, 64, 96],
        depths=[1, 1, 1, 1],
        layer_type="basic",
    ),
    "hf_convnext": _transformers(
        "ConvNext", 13, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1]
    ),
}

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
