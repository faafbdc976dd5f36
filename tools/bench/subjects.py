"""The models of the benchmark, and where a torch network has the layer that the ONNX file has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

MAP, TOKENS, CHANNELS_LAST = "map", "tokens", "channels last"
"""How a layer's output lies: ``(N, C, H, W)``; ``(N, 1 + H * W, C)``, a class token first;
``(N, H, W, C)``."""


@dataclass(frozen=True)
class Subject:
    """One model.

    Attributes:
        name: of the torchvision architecture, or of the file.
        file: the ONNX file, where it is not made from the torchvision network.
        modules: ``--layer`` -> path of the module whose output is that tensor.
        forms: ``--layer`` -> how its output lies, where it is no `MAP`.
    """

    name: str
    file: Path | None = None
    modules: Mapping[str, str] = field(default_factory=dict)
    forms: Mapping[str, str] = field(default_factory=dict)


def _torchvision(name: str, deepest: str, first: str, form: str = MAP) -> Subject:
    return Subject(name, modules={"auto": deepest, "0": first}, forms={"auto": form})


SUBJECTS: dict[str, Subject] = {
    subject.name: subject
    for subject in (
        Subject("tiny_shapes", ROOT / "models" / "tiny_shapes.onnx"),
        Subject("efficientnet_lite0", ROOT / "models" / "efficientnet_lite0.onnx"),
        _torchvision("resnet50", "layer4", "conv1"),
        _torchvision("mobilenet_v3_large", "features.16", "features.0.0"),
        _torchvision("efficientnet_b0", "features.8", "features.0.0"),
        _torchvision("densenet121", "relu", "features.conv0"),  # see torch_nets
        _torchvision("convnext_tiny", "features.7", "features.0.0"),
        _torchvision("vgg16", "features.29", "features.0"),
        _torchvision("vit_b_16", "encoder.layers.encoder_layer_11.ln_1", "conv_proj", TOKENS),
        _torchvision("swin_t", "norm", "features.0.0", CHANNELS_LAST),
    )
}
"""In the order of the tables. The two that have a file are the demonstration models."""


class UnknownSubjectError(Exception):
    """Neither a name of `SUBJECTS` nor a file."""


def subject_of(argument: str) -> Subject:
    """Return the subject of that name, or one of a file that only ONNX engines can run.

    Raises:
        UnknownSubjectError: neither a name nor a file.
    """
    known = SUBJECTS.get(argument)
    path = Path(argument)
    if known is None and not path.is_file():
        raise UnknownSubjectError(
            f"{argument!r} is neither a file nor one of {', '.join(SUBJECTS)}; name one of them"
        )
    return known or Subject(path.stem, path)
