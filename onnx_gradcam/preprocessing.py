"""How a photo becomes the model's input: the description that travels inside the exported file.

Pure data, shared by export (which stores it) and runtime (which applies it):
resize, centre crop, colour order, then ``(pixel * scale - mean) / std`` per channel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from onnx_gradcam.errors import UsageError, nearest_names

COLORS = ("RGB", "BGR", "GRAY")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "area")
LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True)
class Preprocessing:
    """One deterministic photo-to-tensor recipe.

    Attributes:
        color: channel order the model was trained with: ``RGB``, ``BGR`` or ``GRAY``.
        resize: length of the shorter side, or ``(height, width)``, in pixels; None keeps the size.
        crop: centre crop ``(height, width)`` in pixels after the resize; None crops nothing.
        interpolation: one of `INTERPOLATIONS`.
        antialias: low-pass before shrinking, as Pillow and torchvision do.
        scale: factor on the 0..255 pixel values.
        mean: subtracted after scaling; one value, or one per channel in `color` order.
        std: divided by at the end; one value, or one per channel.
        layout: ``NCHW`` or ``NHWC``; None lets the model's input shape decide.
    """

    color: str = "RGB"
    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    antialias: bool = True
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str | None = None

    def __post_init__(self) -> None:
        """Normalise lists from JSON to tuples and refuse what has no meaning."""
        for name in ("mean", "std"):
            value = getattr(self, name)
            values = value if isinstance(value, (list, tuple)) else (value,)
            object.__setattr__(self, name, tuple(float(v) for v in values))
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        self._require(self.color in COLORS, f"color must be one of {COLORS}")
        self._require(
            self.interpolation in INTERPOLATIONS, f"interpolation must be one of {INTERPOLATIONS}"
        )
        self._require(
            self.layout is None or self.layout in LAYOUTS, f"layout must be one of {LAYOUTS}"
        )
        self._require(isinstance(self.antialias, bool), "antialias must be true or false")
        self._require(isinstance(self.scale, (int, float)), "scale must be a number")
        channels = 1 if self.color == "GRAY" else 3
        for name in ("mean", "std"):
            self._require(
                len(getattr(self, name)) in {1, channels}, f"{name} needs 1 or {channels} values"
            )
        self._require(all(self.std), "std must not be zero")
        self._require(
            self.resize is None or _is_size(self.resize) or _is_pair(self.resize),
            "resize must be a positive integer or a pair of them",
        )
        self._require(
            self.crop is None or _is_pair(self.crop), "crop must be a pair of positive integers"
        )

    def _require(self, condition: bool, message: str) -> None:
        if not condition:
            raise UsageError(f"preprocessing: {message}")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping of all attributes."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Build from a mapping such as `to_dict` returns.

        Raises:
            UsageError: unknown key or a value that has no meaning.
        """
        known = {f.name for f in fields(cls)}
        for key in values:
            if key not in known:
                raise UsageError(f"preprocessing: unknown key {key!r}{nearest_names(key, known)}")
        try:
            return cls(**values)
        except UsageError:
            raise
        except (TypeError, ValueError) as error:
            raise UsageError(f"preprocessing: {error}") from error


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_size, value))


_IMAGENET = Preprocessing(
    resize=256,
    crop=(224, 224),
    scale=1 / 255,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)

PRESETS: dict[str, Preprocessing] = {
    "imagenet": _IMAGENET,
    "imagenet-bicubic": replace(_IMAGENET, interpolation="bicubic"),
    "efficientnet-lite": Preprocessing(
        resize=256, crop=(224, 224), interpolation="bicubic", mean=(127.0,), std=(128.0,)
    ),
    "inception": Preprocessing(resize=256, crop=(224, 224), mean=(127.5,), std=(127.5,)),
    "caffe": Preprocessing(color="BGR", resize=256, crop=(224, 224), mean=(103.94, 116.78, 123.68)),
    "pixels": Preprocessing(resize=256, crop=(224, 224)),
    "unit": Preprocessing(resize=256, crop=(224, 224), scale=1 / 255),
    "cifar10": Preprocessing(
        resize=(32, 32), scale=1 / 255, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)
    ),
}
"""Published recipes by name; size 224 unless the recipe says otherwise."""


def resolve_preprocessing(
    value: Preprocessing | Mapping[str, Any] | str | Path | None,
) -> Preprocessing | None:
    """Return the recipe for a preset name, a JSON file, a mapping or a recipe; None for None.

    Raises:
        UsageError: neither a preset nor a readable JSON file, or a value without meaning.
    """
    if value is None or isinstance(value, Preprocessing):
        return value
    if isinstance(value, Mapping):
        return Preprocessing.from_dict(value)
    if str(value) in PRESETS:
        return PRESETS[str(value)]
    path = Path(value)
    if not path.is_file():
        raise UsageError(
            f"no preprocessing preset or JSON file {str(value)!r}"
            f"{nearest_names(str(value), PRESETS)} (presets: {', '.join(PRESETS)})"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read preprocessing from {path}: {error}") from error
    if not isinstance(content, Mapping):
        raise UsageError(f"preprocessing file {path} must hold a JSON object")
    return Preprocessing.from_dict(content)
