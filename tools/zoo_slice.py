"""Some architectures of the zoo, tiny, as fixtures of the tests: `tests/zoo`.

A fixture is an ONNX file and, as ``.npz``, what PyTorch autograd says of it: the image, the
classes explained, and per layer A and dy/dA in the layout of an exported file. The tests need no
torch.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from onnx_gradcam.export.pipeline import export_model
from tools.zoo_export import INPUT, export_network
from tools.zoo_measure import LAYERS, first_layer, relative, run_explained
from tools.zoo_models import Architecture, images, network
from tools.zoo_oracle import AnyLayoutOracle

Array = NDArray[Any]
_LARGEST_FILE = 150_000  # bytes
_AGREEMENT = 2e-5
"""How well float32 has to agree here: a fixture must not stand at the tolerance of its test."""

_VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_TIMM_VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}

_NARROW = {"layers": (1, 1, 1, 1), "channels": (4, 8, 12, 16), "stem_width": 8}
_SWIN = {
    "img_size": 32,
    "window_size": 4,
    "embed_dim": 12,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "mlp_ratio": 2.0,
}

_TABLE: list[tuple[str, str, int, dict[str, Any]]] = [
    ("timm/resnet18", "legacy", 32, _NARROW),
    ("timm/resnest14d", "legacy", 32, {**_NARROW, "channels": (4, 4, 8, 8)}),
    ("timm/densenet121", "dynamo", 32, {"block_config": (2, 2), "growth_rate": 4}),
    ("timm/convnextv2_atto", "legacy", 64, {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 24)}),
    ("timm/vit_little_patch16_reg4_gap_256", "dynamo", 32, _TIMM_VIT),
    ("timm/deit_tiny_distilled_patch16_224", "legacy", 32, _TIMM_VIT),
    ("timm/beit_base_patch16_224", "dynamo", 32, _TIMM_VIT),
    ("timm/cait_xxs24_224", "legacy", 32, {**_TIMM_VIT, "embed_dim": 16}),
    ("timm/eva02_tiny_patch14_224", "dynamo", 32, _TIMM_VIT),
    ("timm/vit_base_patch16_siglip_224", "legacy", 32, {**_TIMM_VIT, "embed_dim": 16}),
    ("timm/swin_tiny_patch4_window7_224", "dynamo", 32, _SWIN),
    (
        "timm/hiera_tiny_224",
        "dynamo",
        64,
        {"img_size": (64, 64), "embed_dim": 4, "stages": (1, 1, 1, 1), "mlp_ratio": 2.0},
    ),
    ("timm/xcit_nano_12_p16_224", "dynamo", 32, {**_TIMM_VIT, "embed_dim": 16}),
    (
        "timm/mixer_s32_224",
        "dynamo",
        32,
        {"img_size": 32, "patch_size": 8, "num_blocks": 2, "embed_dim": 24},
    ),
    (
        "timm/poolformer_s12",
        "legacy",
        64,
        {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 16)},
    ),
    (
        "timm/focalnet_tiny_srf",
        "dynamo",
        64,
        {"depths": (1, 1), "embed_dim": 8, "focal_levels": (2, 2), "focal_windows": (3, 3)},
    ),
    (
        "timm/edgenext_xx_small",
        "dynamo",
        64,
        {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 16), "heads": (2, 2, 2, 2)},
    ),
    (
        "timm/coatnet_nano_cc_224",
        "dynamo",
        32,
        {
            "img_size": 32,
            "config": {"embed_dim": (8, 16, 32, 32), "depths": (1, 1, 1, 1), "stem_width": 8},
        },
    ),
    (
        "timm/volo_d1_224",
        "dynamo",
        32,
        {
            "img_size": 32,
            "layers": (1, 1, 1, 1),
            "embed_dims": (12, 16, 16, 16),
            "num_heads": (2, 2, 2, 2),
            "stem_hidden_dim": 8,
        },
    ),
    (
        "timm/tnt_s_patch16_224",
        "dynamo",
        32,
        {"img_size": 32, "depth": 2, "embed_dim": 16, "inner_dim": 8, "num_heads_inner": 2}
        | {"num_heads_outer": 2},
    ),
    (
        "torchvision/ShuffleNetV2",
        "dynamo",
        64,
        {"stages_repeats": [2, 2, 1], "stages_out_channels": [8, 16, 24, 32, 32]},
    ),
    (
        "torchvision/MaxVit",
        "dynamo",
        32,
        {
            "input_size": (32, 32),
            "stem_channels": 8,
            "partition_size": 2,
            "block_channels": [8, 16],
            "block_layers": [1, 1],
            "head_dim": 4,
            "stochastic_depth_prob": 0.0,
        },
    ),
    ("transformers/ViT", "legacy", 32, _VIT),
    (
        "transformers/Segformer",
        "dynamo",
        64,
        {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "mlp_ratios": [2, 2, 2, 2]}
        | {"num_attention_heads": [1, 2, 2, 2], "decoder_hidden_size": 16},
    ),
    (
        "transformers/Cvt",
        "dynamo",
        64,
        {"embed_dim": [8, 8, 16], "depth": [1, 2, 3], "num_heads": [1, 2, 2]},
    ),
    (
        "transformers/RegNet",
        "legacy",
        32,
        {"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "embedding_size": 8, "groups_width": 4},
    ),
]


def slice_architectures() -> dict[Architecture, str]:
    """Return the architectures of the tests, each with its exporter."""
    return {
        Architecture(name, name.partition("/")[0], "", size, options): exporter
        for name, exporter, size, options in _TABLE
    }


def write_slice(folder: Path, only: list[str] | None = None) -> list[str]:
    """Write the fixtures and return a line per architecture.

    Args:
        folder: where ``NAME.onnx`` and ``NAME.npz`` go.
        only: parts of names; None takes all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for architecture, exporter in slice_architectures().items():
        if only and not any(part in architecture.name for part in only):
            continue
        try:
            told = _write_fixture(architecture, exporter, folder)
        except Exception as error:  # one line for whatever happens
            told = f"{type(error).__name__}: {error}"
        lines.append(f"{architecture.name}: {told}")
    return lines


def _write_fixture(architecture: Architecture, exporter: str, folder: Path) -> str:
    model = network(architecture)
    x = images(architecture)
    path = folder / f"{architecture.file_stem}.onnx"
    export_network(model, x, path, exporter)
    _strip(path)
    size = path.stat().st_size
    try:
        references, errors = _references(model, x.numpy(), path)
    except Exception:
        path.unlink()
        raise
    np.savez_compressed(path.with_suffix(".npz"), **references)
    large = " (too large)" if size > _LARGEST_FILE else ""
    return f"{exporter}, {size} bytes{large}, float32 differs by {', '.join(errors)}"


def _references(model: nn.Module, x: Array, path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the arrays of a fixture, from autograd in float64, and how float32 agrees.

    Raises:
        ValueError: it does not agree.
        LookupError: torch has no such tensor.
    """
    oracle = AnyLayoutOracle(copy.deepcopy(model).double(), x.astype(np.float64))
    references: dict[str, Any] = {INPUT: x.astype(np.float16)}
    errors = []
    for layer in LAYERS:
        with tempfile.TemporaryDirectory() as scratch:
            exported = Path(scratch) / "exported.onnx"
            name = "auto" if layer == "auto" else first_layer(path)
            report = export_model(path, exported, layer=name, gradient_builder="reverse")
            out = run_explained(exported, x)
        found = list(oracle.gradients(out["cam_activations"], out["cam_classes"]))
        if not found:
            raise LookupError(f"torch has no tensor {report.target}")
        best = min(found, key=lambda f: relative(out["cam_gradients"], f.gradient))
        error = relative(out["cam_gradients"], best.gradient)
        if not error < _AGREEMENT:
            raise ValueError(f"{layer}: dy/dA differs by {error:.1e}")
        errors.append(f"{error:.0e} ({layer})")
        references |= {
            "classes": out["cam_classes"],
            f"{layer}_target": np.array(report.target),
            f"{layer}_activations": best.activations.astype(np.float32),
            f"{layer}_gradients": best.gradient.astype(np.float32),
        }
    return references, errors


def _strip(path: Path) -> None:
    """Remove what exporters note about where a node came from."""
    model = onnx.load(path)
    model.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    onnx.save(model, path)
