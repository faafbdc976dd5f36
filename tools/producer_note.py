"""What is known of a producer's file beside the file itself: a JSON document of the same name."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Note:
    """Where a file comes from.

    Attributes:
        producer: program and version.
        what: the network.
        group: heading of the table it is listed under.
    """

    producer: str
    what: str
    group: str


_TF = "TensorFlow, tf2onnx"
KNOWN = {
    "cifar10_resnet20": Note("PyTorch", "ResNet-20, option A shortcuts", "Trained"),
    "fer_mini_xception": Note(f"Keras, {_TF}", "mini-Xception, no linear head", "Trained"),
    "mlperf_resnet8_cifar10": Note(f"Keras, {_TF}", "ResNet-8 of MLPerf Tiny", "Trained"),
    "mobilenet_v2_float": Note("TFLite, tf2onnx", "MobileNetV2", "Trained"),
    "mobilenet_v2_int8": Note("TFLite, tf2onnx", "MobileNetV2, int8", "Trained"),
    "squeezenet_fp16_imagenet": Note("Windows ML", "SqueezeNet 1.1, float16", "Trained"),
    "squeezenet_fp32_imagenet": Note("Windows ML", "SqueezeNet 1.1", "Trained"),
    "vit_ibp_cifar10": Note("PyTorch", "small ViT with batch norms", "Trained"),
}
"""Trained files of the shared folder, which have no document."""


def write_note(model: Path, note: Note) -> None:
    """Write the note of a model file."""
    text = json.dumps(asdict(note), indent=2)
    model.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def read_note(model: Path) -> Note:
    """Return the note of a model file; one that knows nothing where there is none."""
    path = model.with_suffix(".json")
    if not path.is_file():
        return KNOWN.get(model.stem) or Note("unknown", model.stem, "Other")
    return Note(**json.loads(path.read_text(encoding="utf-8")))
