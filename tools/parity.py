"""Compare every heat map with pytorch-grad-cam 1.5.7, and write docs/parity.md.

Environment of its own (nothing of it is a dependency of the project or its tests)::

    python -m venv oracle
    oracle/bin/pip install torch==2.13.0 grad-cam==1.5.7 onnx onnxruntime
    oracle/bin/pip install --no-deps torchvision timm
    oracle/bin/pip install huggingface_hub safetensors
    oracle/bin/python tools/parity.py

Per architecture: the torch model with seeded random weights is exported to ONNX by torch and by
`export_model`, with the tensor that pytorch-grad-cam's target layer computes as the layer. Then,
for each method, both explain the same images and classes. Exits with 1 where a difference is over
the tolerance of 1e-5 (see `Difference.failed`).
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnx
import onnxruntime
import torch

from onnx_gradcam import export_model, load
from onnx_gradcam.cam import compute, get_method, heat_maps
from onnx_gradcam.contract import ACTIVATIONS_OUTPUT, CLASS_INPUT, GRADIENTS_OUTPUT
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.score import find_score
from onnx_gradcam.export.target_layer import choose_layer, image_input
from tools.float64_model import float64_evaluator
from tools.parity_oracle import METHODS, ReferenceMaps, reference_maps
from tools.torch_models import calibrate, export_torch, randomised

ROOT = Path(__file__).resolve().parents[1]
Array = NDArray[Any]
TOLERANCE = 1e-5


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
    """

    network: str
    layer: str
    images: int
    size: tuple[int, int]
    arrange: Callable[[torch.Tensor], torch.Tensor] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def tokens(prefix: int, height: int, width: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what lays tokens behind `prefix` class tokens out as ``(N, C, height, width)``."""
    return lambda x: x[:, prefix:].reshape(len(x), height, width, -1).permute(0, 3, 1, 2)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Return a map with its channels moved forward."""
    return x.permute(0, 3, 1, 2)


CASES = (
    Case("resnet18", "layer4", 2, (224, 224)),
    Case("resnet18", "layer4", 3, (64, 64)),
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
             {"img_size": 96, "depth": 6})
        for block in (5, 2)
    ),
    Case("deit_tiny_distilled_patch16_224", "blocks.3.norm1", 2, (64, 96), tokens(2, 4, 6),
         {"img_size": (64, 96), "depth": 4}),
    Case("vit_small_patch14_reg4_dinov2", "blocks.2.norm1", 2, (70, 70), tokens(5, 5, 5),
         {"img_size": 70, "depth": 3, "num_classes": 50}),
    Case("swin_tiny_patch4_window7_224", "norm", 2, (128, 96), channels_last,
         {"img_size": (128, 96), "window_size": 4, "depths": (2, 2, 2, 2)}),
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """Largest differences of one method.

    Attributes:
        functions: our function on their activations and gradients; final maps, absolute.
        functions_raw: likewise, raw maps, relative to the largest value of the map.
        exact: the exported graph evaluated in float64 against their method in float64, final maps.
        cam: the exported file on onnxruntime, float32, final maps.
        raw: likewise, raw maps, relative.
        rounding: float32 against float64, final maps: their method, or the exported file where
            that is more.
    """

    functions: float
    functions_raw: float
    exact: float
    cam: float
    raw: float
    rounding: float

    @property
    def failed(self) -> bool:
        """Whether one is over the tolerance, or over twice the rounding where that is."""
        strict = max(self.functions, self.functions_raw, self.exact)
        return strict > TOLERANCE or self.cam > max(TOLERANCE, 2 * self.rounding)


@dataclass(frozen=True)
class Row:
    """One case: what was compared, how strong the signals are, and the differences per method.

    `recommended` tells whether ``--layer auto`` picks that layer.
    """

    case: Case
    shape: tuple[int, ...]
    recommended: bool
    activations: float
    gradients: float
    differences: dict[str, Difference]


def run_case(case: Case, folder: Path, builder: str) -> Row:
    """Return the differences of one case.

    Raises:
        ValueError: a reference map is zero or not finite, so that nothing is compared.
    """
    model = randomised(case.network, **case.options)
    images = blotches(case.images, case.size)
    calibrate(model, blotches(8, case.size))
    with torch.no_grad():  # the highest scores: after a last ReLU others have no gradient
        order = model(images).argsort(dim=1, descending=True)
    classes = [int(order[i, i]) for i in range(case.images)]

    def references(network: torch.nn.Module, x: torch.Tensor) -> dict[str, ReferenceMaps]:
        layer = network.get_submodule(case.layer)
        return {
            name: reference_maps(network, layer, x, classes, name, case.arrange) for name in METHODS
        }

    single = references(model, images)
    double = references(copy.deepcopy(model).double(), images.double())
    theirs = single["gradcam"]
    if theirs.gradients is None:
        raise ValueError("pytorch-grad-cam computed no gradients")
    source, exported = folder / "model.onnx", folder / "model.cam.onnx"
    export_torch(model, images, source)
    tensor = tensor_of(source, images.numpy(), output_of(model, case.layer, images))
    graph = Graph(onnx.load(source))
    score = find_score(graph)
    recommended = choose_layer(graph, image_input(graph, score), score).tensor == tensor
    export_model(source, exported, layer=tensor, gradient_builder=builder, force=True)
    explanation = load(exported, device="cpu").explain(images.numpy(), classes)
    evaluator = float64_evaluator(onnx.load(exported))
    feeds = {"image": images.double().numpy(), CLASS_INPUT: np.array(classes)}
    wide = evaluator.run([ACTIVATIONS_OUTPUT, GRADIENTS_OUTPUT], feeds)
    differences = {}
    for name, reference in single.items():
        alone = compute(name, theirs.activations, theirs.gradients)
        functions_raw, functions = compare(name, alone, reference, case.size)
        cams = explanation.with_method(name).raw_maps
        raw, cam = compare(name, cams, reference, case.size)
        _, exact = compare(name, get_method(name).function(*wide), double[name], case.size)
        _, theirs_alone = compare(name, double[name].raw, reference, case.size)
        _, ours_alone = compare(name, cams, double[name], case.size)
        rounding = max(theirs_alone, ours_alone)
        differences[name] = Difference(functions, functions_raw, exact, cam, raw, rounding)
    strength = [float(np.abs(a).max()) for a in (theirs.activations, theirs.gradients)]
    return Row(case, theirs.activations.shape, recommended, strength[0], strength[1], differences)


def output_of(model: torch.nn.Module, layer: str, images: torch.Tensor) -> Array:
    """Return what a layer computes, in the network's own layout."""
    seen: list[Array] = []
    hook = model.get_submodule(layer).register_forward_hook(
        lambda _module, _inputs, output: seen.append(output.numpy())
    )
    with torch.no_grad():
        model(images)
    hook.remove()
    return seen[0]


def blotches(count: int, size: tuple[int, int]) -> torch.Tensor:
    """Return seeded random images with structure at several scales, ``(count, 3, H, W)``."""
    generator = torch.Generator().manual_seed(count)
    images = torch.zeros(count, 3, *size)
    for side in (2, 4, 8, 16, 32):
        coarse = torch.randn(count, 3, side, side, generator=generator)
        images += torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    return images


def compare(
    method: str, raw: Array, reference: ReferenceMaps, size: tuple[int, int]
) -> tuple[float, float]:
    """Return the relative difference of raw maps and the absolute one of final maps.

    Eigen-CAM is compared up to the sign of each map, which pytorch-grad-cam leaves to LAPACK.

    Raises:
        ValueError: the reference is zero or not finite, so that nothing is compared.
    """
    if method == "eigencam":
        raw = raw * np.sign((raw * reference.raw).sum(axis=(1, 2), keepdims=True))
    scale = np.abs(reference.raw).max(axis=(1, 2), keepdims=True)
    if not (np.isfinite(reference.raw).all() and (scale > 1e-6).all() and reference.cams.any()):
        raise ValueError(f"{method}: the reference map is dead or not finite: {scale.ravel()}")
    cams = heat_maps(raw, size)
    return (
        float((np.abs(raw - reference.raw) / scale).max()),
        float(np.abs(cams - reference.cams).max()),
    )


def tensor_of(path: Path, images: Array, activations: Array) -> str:
    """Return the name of the tensor of an ONNX model that has these values.

    Raises:
        LookupError: there is none.
    """
    model = onnx.load(path)
    names = [name for node in model.graph.node for name in node.output if name]
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = dict(zip(names, session.run(names, {"image": images}), strict=True))
    scale = float(np.abs(activations).max())
    errors = {
        name: float(np.abs(value - activations).max()) / scale
        for name, value in values.items()
        if getattr(value, "shape", ()) == activations.shape
    }
    best: str | None = min(errors, key=lambda name: errors[name], default=None)
    if best is None or errors[best] > 1e-4:
        raise LookupError(f"no tensor of {path} has the values of the target layer: {errors}")
    return best


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table: final difference and their rounding per method."""
    lines = [
        "| network, layer | images | A | auto | max abs A, G"
        f" | {' | '.join(METHODS)} | raw | float64 | functions |",
        "|---|---|---|---|---|" + "---|" * (len(METHODS) + 3),
    ]
    for row in rows:
        found = row.differences.values()
        cells = [f"{d.cam:.0e} ({d.rounding:.0e})" for d in found]
        cells += [f"{max(getattr(d, k) for d in found):.0e}" for k in ("raw", "exact", "functions")]
        shape, size = " x ".join(map(str, row.shape[1:])), " x ".join(map(str, row.case.size))
        lines.append(
            f"| {row.case.network}, {row.case.layer} | {row.case.images} of {size} | {shape}"
            f" | {'yes' if row.recommended else ''}"
            f" | {row.activations:.2g}, {row.gradients:.2g} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Print and write the table; exit with 1 where a difference is over the tolerance."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="*", help="networks to run; writes no table")
    parser.add_argument("--gradient-builder", default="reverse")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "parity.md")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    rows = []
    for case in CASES:
        if arguments.only and case.network not in arguments.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append(run_case(case, Path(folder), arguments.gradient_builder))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    cells = [d for row in rows for d in row.differences.values()]
    figures = {
        "cells": len(cells),
        "over": sum(d.cam > TOLERANCE for d in cells),
        "failed": sum(d.failed for d in cells),
        "exact": max(d.exact for d in cells),
        "functions": max(max(d.functions, d.functions_raw) for d in cells),
    }
    print(figures)
    if not arguments.only:
        head = HEADER.format(builder=arguments.gradient_builder, **figures)
        arguments.output.parent.mkdir(exist_ok=True)
        arguments.output.write_text(f"{head}{table(rows)}\n", encoding="utf-8")
    return 1 if figures["failed"] else 0


HEADER = """# Heat maps compared with pytorch-grad-cam

Written by `tools/parity.py`: pytorch-grad-cam 1.5.7 on the torch model against the exported file
(gradient builder `{builder}`), with the same weights, images and classes, and the same tensor as
the target layer. Final maps lie in [0, 1]; differences of raw maps are relative to the largest
value of the map. Eigen-CAM is compared up to its sign, which pytorch-grad-cam leaves to the linear
algebra library.

- *One column per method*: largest difference of the final maps in float32, onnxruntime against
  torch, and in brackets the rounding of either: float32 maps against float64 maps of
  pytorch-grad-cam, or of the exported file where that is more. Two engines cannot agree better
  than each agrees with the exact result: of {cells} cells,
  {over} are over 1e-5, and {failed} of these over twice that rounding. *raw*: the same for raw
  maps, the worst of the methods.
- *float64*: nothing rounds here: the exported graph evaluated in float64 by ONNX's reference
  implementation against pytorch-grad-cam in float64, final maps, the worst of the methods. Over
  all: {exact:.0e}.
- *functions*: pytorch-grad-cam's own float32 activations and gradients put into the functions of
  `onnx_gradcam.cam`. Over all, raw maps too: {functions:.0e}.

X-Grad-CAM divides by the sum of a channel over space. Where activations of both signs nearly cancel
(DenseNet before its last ReLU, normalised tokens) it amplifies rounding in any engine.

Explained are the highest score of the first image, the second highest of the second, and so on.
Weights are random and seeded; batch norms are calibrated, so that signals neither die nor explode:
the column *max abs A, G* shows the largest activation and gradient. *auto* marks the layers that
`--layer auto` picks. The transformers are timm's, with pytorch-grad-cam's `reshape_transform`.

"""


if __name__ == "__main__":
    sys.exit(main())
