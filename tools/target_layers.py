"""List which layer ``--layer auto`` picks per architecture family, and write docs/target-layers.md.

Environment: that of `gradient_agreement`. Weights do not matter; sizes are those of publication.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from onnx_gradcam.export.inspection import inspect_model  # noqa: E402
from onnx_gradcam.export.score import format_shape  # noqa: E402
from tools.torch_models import export_torch, randomised  # noqa: E402

FAMILIES = {
    "alexnet": 224,
    "vgg16": 224,
    "resnet50": 224,
    "resnext50_32x4d": 224,
    "wide_resnet50_2": 224,
    "squeezenet1_1": 224,
    "densenet121": 224,
    "googlenet": 224,
    "inception_v3": 299,
    "mobilenet_v2": 224,
    "mobilenet_v3_large": 224,
    "mnasnet1_0": 224,
    "efficientnet_b0": 224,
    "efficientnet_v2_s": 224,
    "shufflenet_v2_x1_0": 224,
    "regnet_y_400mf": 224,
    "convnext_tiny": 224,
    "vit_b_16": 224,
    "deit_tiny_distilled_patch16_224": 224,
    "vit_small_patch14_reg4_dinov2": 518,
    "beit_base_patch16_224": 224,
    "cait_xxs24_224": 224,
    "swin_t": 224,
    "swin_v2_t": 256,
    "maxvit_t": 224,
    "mixer_s16_224": 224,
    "pvt_v2_b0": 224,
    "mobilevit_s": 256,
    "levit_128s": 224,
}
"""torchvision or timm architecture -> side of its input in pixels."""

OPTIONS = {"vit_small_patch14_reg4_dinov2": {"num_classes": 1000}}
"""What timm needs to be told: DINOv2 comes without a classifier."""

HEADER = """# What `--layer auto` picks

Written by `tools/target_layers.py` from architectures of torchvision and timm (opset 17). The rule
is in [how-it-works.md](how-it-works.md); `onnx-gradcam inspect` shows all candidates of your model.

Of transformers whose class token alone is classified it picks what the last attention reads, the
first normalisation of the last block: behind it patch tokens have no gradient. Tokens are laid out
on their grid; class, distillation and register tokens are left out. More architectures:
[zoo.md](zoo.md).

| architecture | layer | A | computed by | read by |
|---|---|---|---|---|
"""


def row(name: str, size: int, folder: Path) -> str:
    """Return the table row of one architecture."""
    model = randomised(name, **OPTIONS.get(name, {}))
    path = folder / "model.onnx"
    export_torch(model, torch.zeros(1, 3, size, size), path)
    report = inspect_model(path)
    assert report.recommended is not None, report.reason
    layer = report.candidates[report.recommended]
    readers = report.reason.rpartition("read by ")[2].rstrip(")")
    if "attention" in report.reason:
        readers = "the last attention"
    shape = format_shape(layer.channels_first)
    return f"| {name} | `{layer.tensor}` | {shape} | {layer.op_type} | {readers} |"


def main() -> None:
    """Write the table."""
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(name, size, Path(folder)) for name, size in FAMILIES.items()]
    print("\n".join(rows))
    (ROOT / "docs" / "target-layers.md").write_text(HEADER + "\n".join(rows) + "\n", "utf-8")


if __name__ == "__main__":
    main()
