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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnx
import onnxruntime
import torch

from onnx_gradcam import export_model, load
from onnx_gradcam.cam import Need, compute, get_method, heat_maps
from onnx_gradcam.contract import ACTIVATIONS_OUTPUT, CLASS_INPUT, GRADIENTS_OUTPUT
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.score import find_score
from onnx_gradcam.export.target_layer import choose_layer, image_input
from tools.float64_model import float64_evaluator
from tools.parity_cases import CASES, Case, blotches
from tools.parity_oracle import METHODS, RERUNNING, UNSIGNED, ReferenceMaps, reference_maps
from tools.torch_models import calibrate, export_torch, randomised

ROOT = Path(__file__).resolve().parents[1]
Array = NDArray[Any]
TOLERANCE = 1e-5
ROUNDED_THERE = {"kpcacam"}
"""Methods that compute in float32 there and in float64 here: scikit-learn's kernels."""

LEAST_POSITIONS = {"fem": 6}
"""With fewer, no position lies two standard deviations over the mean, and the map is zero."""

SMOOTHED = tuple(f"{name}:eigen" for name in METHODS if get_method(name).smooths)
AVERAGED = "gradcam:aug"
COLUMNS = {
    **{name: (name,) for name in METHODS},
    "eigen_smooth": SMOOTHED,
    "aug_smooth": (AVERAGED,),
    **{name: (name,) for name in RERUNNING},
}
"""Column of the table -> methods, with their smoothing; the worst of them is shown."""


@dataclass(frozen=True)
class Difference:
    """Largest differences of one method; of `AVERAGED` and `RERUNNING` those of the file only.

    Attributes:
        cam: the exported file on onnxruntime, float32, final maps, absolute.
        raw: likewise, raw maps, relative to the largest value of the map.
        rounding: float32 against float64, final maps: their method, or the exported file where
            that is more.
        functions: our function on their activations and gradients, final maps.
        functions_raw: likewise, raw maps, relative.
        exact: the exported graph evaluated in float64 against their method in float64, final maps.
        float32_there: their own rounding, of a method of `ROUNDED_THERE`; else 0.
    """

    cam: float
    raw: float
    rounding: float
    functions: float = 0.0
    functions_raw: float = 0.0
    exact: float = 0.0
    float32_there: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether one is over the tolerance, or over twice the rounding where that is."""
        functions = max(self.functions, self.functions_raw)
        strict = self.exact > TOLERANCE or functions > max(TOLERANCE, self.float32_there)
        return strict or self.cam > max(TOLERANCE, 2 * self.rounding)


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
        layer, arrange = network.get_submodule(case.layer), case.arrange
        first = reference_maps(network, layer, x, classes, "gradcam", arrange)
        found = {
            AVERAGED: reference_maps(
                network, layer, x, classes, "gradcam", arrange, aug_smooth=True
            )
        }
        for key in (*METHODS, *SMOOTHED):
            name, _, eigen = key.partition(":")
            found[key] = reference_maps(
                network, layer, x, classes, name, arrange, eigen_smooth=bool(eigen), known=first
            )
        for name in RERUNNING if case.reruns else ():
            found[name] = reference_maps(network, layer, x, classes, name, arrange)
        return found

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
    explainer = load(exported, device="cpu")
    explanation = explainer.explain(images.numpy(), classes)
    evaluator = float64_evaluator(onnx.load(exported))
    feeds = {"image": images.double().numpy(), CLASS_INPUT: np.array(classes)}
    wide: Any = evaluator.run([ACTIVATIONS_OUTPUT, GRADIENTS_OUTPUT], feeds)
    given: dict[Need, Any] = {Need.GRADIENTS: wide[1], Need.SEED: 0}
    differences = {}
    for key in (*METHODS, *SMOOTHED):
        name, _, eigen = key.partition(":")
        if wide[0][0, 0].size < LEAST_POSITIONS.get(name, 0):
            continue
        smooth, reference = bool(eigen), single[key]

        def against(raw: Array, other: ReferenceMaps, key: str = key) -> tuple[float, float]:
            return compare(key, raw, heat_maps(raw, case.size), other)

        alone = compute(name, theirs.activations, theirs.gradients, eigen_smooth=smooth)
        cams = explanation.with_method(name, eigen_smooth=smooth).raw_maps
        raw, cam = against(cams, reference)
        rounding = max(against(double[key].raw, reference)[1], against(cams, double[key])[1])
        functions_raw, functions = against(alone, reference)
        exactly = get_method(name).maps(wide[0], given, eigen_smooth=smooth)
        exact = against(exactly, double[key])[1]
        theirs_rounds = against(double[key].raw, reference)[1] if name in ROUNDED_THERE else 0.0
        differences[key] = Difference(
            cam, raw, rounding, functions, functions_raw, exact, theirs_rounds
        )
    for key in (AVERAGED, *(RERUNNING if case.reruns else ())):
        name, _, averaged = key.partition(":")
        ours = explainer.explain(images.numpy(), classes, name, aug_smooth=bool(averaged))
        found = replace(single[key], raw=ours.raw_maps, cams=ours.cams)
        raw, cam = compare(key, found.raw, found.cams, single[key])
        rounding = max(compare(key, m.raw, m.cams, double[key])[1] for m in (single[key], found))
        differences[key] = Difference(cam, raw, rounding)
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


def compare(key: str, raw: Array, cams: Array, reference: ReferenceMaps) -> tuple[float, float]:
    """Return the relative difference of raw maps and the absolute one of final maps.

    What leaves its sign to LAPACK there is compared up to the sign of each map.

    Raises:
        ValueError: the reference is zero or not finite, so that nothing is compared.
    """
    if key in {*UNSIGNED, *SMOOTHED}:
        sign = np.sign((raw * reference.raw).sum(axis=(1, 2), keepdims=True))
        raw, cams = raw * sign, heat_maps(raw * sign, cams.shape[1:])
    scale = np.abs(reference.raw).max(axis=(1, 2), keepdims=True)
    shown = reference.cams.any() or (reference.raw <= 0).all()  # a map may be nowhere positive
    if not (np.isfinite(reference.raw).all() and (scale > 1e-6).all() and shown):
        raise ValueError(f"{key}: the reference map is dead or not finite: {scale.ravel()}")
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
        f" | {' | '.join(COLUMNS)} | raw | float64 | functions |",
        "|---|---|---|---|---|" + "---|" * (len(COLUMNS) + 3),
    ]
    for row in rows:
        found = row.differences
        cells = []
        for keys in COLUMNS.values():
            worst = max((found[k] for k in keys if k in found), key=lambda d: d.cam, default=None)
            cells.append(f"{worst.cam:.0e} ({worst.rounding:.0e})" if worst else "")
        for kind in ("raw", "exact", "functions"):
            cells.append(f"{max(getattr(d, kind) for d in found.values()):.0e}")
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
value of the map. Eigen-CAM, Eigen-Grad-CAM and `eigen_smooth` are compared up to their sign, which
pytorch-grad-cam leaves to the linear algebra library. Of `eigen_smooth` the worst of the methods is
shown, of `aug_smooth` Grad-CAM. FEM of less than six positions is zero, and left out; Score-CAM,
which runs the network once for each channel, is compared on a CNN and on a transformer.

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
  `onnx_gradcam.cam`. Over all, raw maps too: {functions:.0e}, of KPCA-CAM, whose kernel
  scikit-learn computes in float32 there and `onnx_gradcam` in float64.

X-Grad-CAM divides by the sum of a channel over space. Where activations of both signs nearly cancel
(DenseNet before its last ReLU, normalised tokens) it amplifies rounding in any engine.

Explained are the highest score of the first image, the second highest of the second, and so on.
Weights are random and seeded; batch norms are calibrated, so that signals neither die nor explode:
the column *max abs A, G* shows the largest activation and gradient. *auto* marks the layers that
`--layer auto` picks. The transformers are timm's, with pytorch-grad-cam's `reshape_transform`.

"""


if __name__ == "__main__":
    sys.exit(main())
