"""Compare the heat maps of quantized classifiers with those of the float models they come from.

In: ``models/`` and ``photos/`` of the folder that ONNX_GRADCAM_SHARED names (default: shared/
beside the repository), and models/efficientnet_lite0.onnx, which ``python tools/make_models.py``
builds.
Out: docs/quantized-agreement.md. Every second photo calibrates, the others are compared.

``python tools/quantized_agreement.py`` needs the package with its extras ``cpu`` and ``export``;
the models are quantized by onnxruntime.quantization.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime
from onnx import version_converter
from onnxruntime import quantization as ort_quantization

# run as a script, Python has put tools/ on the path, not the repository
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnx_gradcam
from onnx_gradcam.export.builders import reverse
from onnx_gradcam.gradients import clipping, quantization
from onnx_gradcam.preprocessing import Preprocessing, resolve_preprocessing
from onnx_gradcam.runtime.photo import read_photo
from onnx_gradcam.runtime.preprocess import preprocess
from tools.pointing_game import play
from tools.pointing_targets import mosaic_targets

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNX_GRADCAM_SHARED") or REPOSITORY.parent / "shared")
TOP = 0.2
BACKGROUND = "background"
MOSAICS = 20
"""So many of the pointing game's mosaics are played, each with four classes."""

Array = np.ndarray[Any, np.dtype[Any]]
Quantize = Callable[[Path, Path, "Network", Sequence[Path]], None]


@dataclass(frozen=True)
class Network:
    """A float model and how it is fed.

    Attributes:
        name: for the table.
        model: its file.
        photos: folder of the photos.
        recipe: their preprocessing.
        layout: of the model's input.
        labels: class names, for the pointing game; None plays none.
        ways: how it is quantized; a path is a file that is there.
    """

    name: str
    model: Path
    photos: Path
    recipe: Preprocessing
    layout: str
    labels: list[str] | None
    ways: dict[str, Quantize | Path]


# -- quantization --------------------------------------------------------------------------------


class _Reader(ort_quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, network: Network, name: str, photos: Sequence[Path]) -> None:
        self._feeds = iter(
            {
                name: preprocess(read_photo(p), network.recipe, network.layout, np.dtype("f4"))[0][
                    None
                ]
            }
            for p in photos
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def static(form: str, *, per_channel: bool = False, signed: bool = False) -> Quantize:
    """Return how to quantize with calibration: weights int8, activations uint8 or int8."""

    def write(source: Path, output: Path, network: Network, photos: Sequence[Path]) -> None:
        name = onnx.load(source).graph.input[0].name
        types = ort_quantization.QuantType
        ort_quantization.quantize_static(
            source,
            output,
            _Reader(network, name, photos),
            quant_format=ort_quantization.QuantFormat[form],
            per_channel=per_channel,
            activation_type=types.QInt8 if signed else types.QUInt8,
            weight_type=types.QInt8,
            extra_options={"ActivationSymmetric": signed},
        )

    return write


def dynamic(source: Path, output: Path, _network: Network, _photos: Sequence[Path]) -> None:
    """Quantize weights, and activations at run time."""
    operators = ["Conv", "Gemm", "MatMul"]
    types = ort_quantization.QuantType
    ort_quantization.quantize_dynamic(
        source, output, op_types_to_quantize=operators, weight_type=types.QUInt8
    )


WAYS: dict[str, Quantize | Path] = {
    "QDQ": static("QDQ"),
    "QDQ, per channel": static("QDQ", per_channel=True),
    "QDQ, int8": static("QDQ", per_channel=True, signed=True),
    "QOperator": static("QOperator"),
    "QOperator, per channel": static("QOperator", per_channel=True),
    "dynamic": dynamic,
}


def prepared(source: Path, folder: Path) -> Path:
    """Return the float model in opset 13 or later, its BatchNormalizations in the convolutions."""
    model = onnx.load(source)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 8)
    (opset,) = (o.version for o in model.opset_import if not o.domain)
    if opset < 13:
        model = version_converter.convert_version(model, 13)
    path = folder / f"{source.stem}.float.onnx"
    onnx.save(model, path)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / f"{source.stem}.basic.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return folder / f"{source.stem}.basic.onnx"


# -- comparison ------------------------------------------------------------------------------------


def ranks(values: Array) -> Array:
    """Return the rank of each value; equal ones share theirs."""
    _, place, count = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return np.asarray(((ends - count + ends - 1) / 2)[place.ravel()])


def spearman(left: Array, right: Array) -> float:
    """Return the rank correlation of two maps, 0 where one of them is constant."""
    a, b = ranks(left), ranks(right)
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def overlap(left: Array, right: Array) -> float:
    """Return the intersection over union of the largest fifths of two maps."""
    count = max(1, round(TOP * left.size))
    a, b = (set(np.argsort(-m.ravel(), kind="stable")[:count].tolist()) for m in (left, right))
    return len(a & b) / len(a | b)


def opened(model: Path, folder: Path, network: Network, layer: str | int = "auto") -> Any:
    """Return an exported and loaded model."""
    path = folder / "exported.onnx"
    onnx_gradcam.export_model(
        model,
        path,
        layer=layer,
        preprocess=network.recipe,
        labels=network.labels,
        gradient_builder="reverse",
        force=True,
        verify=False,
    )
    return onnx_gradcam.load(path, device="cpu")


def pointing(explainer: Any, network: Network) -> str:
    """Return how many maxima of the heat maps of mosaics lie on the photo of the class."""
    if network.labels is None:
        return ""
    names = [label for label in network.labels if label != BACKGROUND]
    targets = islice(mosaic_targets(network.photos, names), MOSAICS * 4)
    hits = [play(explainer, target, "gradcam").hit for target in targets]
    return f"{sum(hits)} of {len(hits)}"


def compared(network: Network, folder: Path) -> Iterator[str]:
    """Yield the rows of a network: the float model, then each quantized one."""
    photos = sorted(p for p in network.photos.iterdir() if p.suffix != ".txt")
    calibration, compared_photos = photos[::2], photos[1::2]
    source = prepared(network.model, folder)
    explainer = opened(source, folder, network)
    expected = [explainer.explain_image(photo) for photo in compared_photos]
    yield f"| {network.name} | float | | | | {pointing(explainer, network)} |"
    for way, quantize in network.ways.items():
        path = folder / "quantized.onnx"
        if isinstance(quantize, Path):
            path = quantize
        else:
            quantize(source, path, network, calibration)
        explainer = opened(path, folder, network)
        same, correlations, overlaps = [], [], []
        for photo, reference in zip(compared_photos, expected, strict=True):
            found = explainer.explain_image(photo, [-1, int(reference.classes[0])])
            same.append(found.classes[0] == reference.classes[0])
            correlations.append(spearman(found.raw_maps[1], reference.raw_maps[0]))
            overlaps.append(overlap(found.raw_maps[1], reference.raw_maps[0]))
        yield (
            f"| {network.name} | {way} | {sum(same)} of {len(same)} | {np.mean(correlations):.3f}"
            f" ({np.min(correlations):.2f}) | {np.mean(overlaps):.2f} |"
            f" {pointing(explainer, network)} |"
        )


# -- the rule of clipping -----------------------------------------------------------------------


def exact_bounds(flow: clipping.Flow, node: onnx.NodeProto) -> clipping.Bounds:
    """Return the bounds of PyTorch's fake_quantize, which are tested on the float input."""
    low, high = clipping.RANGES[flow.dtype(node.output[0])]
    return clipping.Bounds(low - 0.5, high + 0.5, of_result=False)


def rule_rows(network: Network, source: Path, model: Path, folder: Path) -> Iterator[str]:
    """Yield how far gradients by either rule are from each other, and from the float model's.

    Args:
        network: where the photos are.
        source: the float model.
        model: the quantized one.
        folder: for exported files.
    """
    photos = sorted(p for p in network.photos.iterdir() if p.suffix != ".txt")[1::2][:10]
    count = len(onnx_gradcam.inspect_model(model).candidates)
    known = {name for node in onnx.load(source).graph.node for name in node.output}
    for share in (1.0, 0.75, 0.5, 0.25):
        layer = "auto" if share == 1 else int(count * share)
        explainer = opened(model, folder, network, layer)
        target = explainer.metadata.target.removesuffix("_DequantizeLinear_Output")
        read = [explainer.explain_image(photo) for photo in photos]
        with (
            mock.patch.object(quantization, "bounds", exact_bounds),
            mock.patch.object(reverse, "folded_gradient", return_value=None),
        ):
            explainer = opened(model, folder, network, layer)
        exact = [explainer.explain_image(p, r.classes) for p, r in zip(photos, read, strict=True)]
        from_float = ["", ""]
        if target in known:
            explainer = opened(source, folder, network, target)
            wanted = [
                explainer.explain_image(p, r.classes) for p, r in zip(photos, read, strict=True)
            ]
            from_float = [f"{distance(found, wanted):.1%}" for found in (read, exact)]
        maps = [spearman(r.raw_maps, e.raw_maps) for r, e in zip(read, exact, strict=True)]
        depth = "auto" if share == 1 else f"candidate {layer} of {count}"
        size = "x".join(map(str, exact[0].raw_maps.shape[1:]))
        yield (
            f"| {network.name} | {depth}, {size} | {distance(read, exact):.1%} |"
            f" {np.mean(maps):.3f} ({np.min(maps):.2f}) | {from_float[0]} | {from_float[1]} |"
        )


def distance(found: Sequence[Any], wanted: Sequence[Any]) -> float:
    """Return the norm of the difference of gradients, relative, mean over explanations."""
    pairs = [(f.gradients, w.gradients) for f, w in zip(found, wanted, strict=True)]
    return float(np.mean([np.linalg.norm(f - w) / np.linalg.norm(w) for f, w in pairs]))


HEADER = """# Heat maps of quantized models

Written by `tools/quantized_agreement.py`, onnxruntime {version}, CPU provider; the models are
quantized by `onnxruntime.quantization` (MobileNetV2: by TensorFlow Lite, trained for it). What the
gradient of a quantized model is: [quantization](quantization.md).

Every second photo calibrates the quantization, the others are compared (MobileNetV2 needs no
calibration): Grad-CAM at the layer that `auto` picks, for the class that the float model ranks
first. *Same first class* counts photos; *Spearman* is the rank correlation of the maps over their
cells, mean (and smallest); *overlap* is the intersection over union of the fifth of the cells with
the highest values, mean. *Pointing game*: [mosaics](pointing-game.md) of four photos, chance is one
in four; the mosaics, the first 20, hold photos of the calibration, too.

| model | quantization | same first class | Spearman | overlap | pointing game |
|---|---|---|---|---|---|
"""

RULE = """
## Clipping, read off the integers

A value on a bound of the integers counts as clipped, and activations are part of the clipping
([why](quantization.md)). *Difference*: from the gradient by the rule of PyTorch's `fake_quantize`,
which compares the float before rounding; the norm of the difference, relative, mean over 10 photos,
and the rank correlation of the heat maps. *From float*: the distance of both from the gradient of
the float model at the same layer, where its name is known. The models: QDQ, per tensor
(MobileNetV2: TFLite).

| model | layer, map | difference | Spearman | from float | `fake_quantize`, from float |
|---|---|---|---|---|---|
"""


def networks(shared: Path) -> list[Network]:
    """Return the float models and how each is quantized."""
    models, photos = shared / "models", shared / "photos"
    imagenet = (photos / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    recipes = {n: resolve_preprocessing(n) for n in ("pixels", "caffe", "cifar10")}
    lite = resolve_preprocessing("efficientnet-lite")
    pixels, caffe, cifar10 = (recipe for recipe in recipes.values() if recipe is not None)
    assert lite is not None
    first, last, classes = "NCHW", "NHWC", photos / "imagenet"
    small = replace(pixels, resize=(32, 32), crop=None)
    return [
        Network("MobileNetV2", models / "mobilenet_v2_float.onnx", classes, pixels, last,
                [BACKGROUND, *imagenet], {"TFLite": models / "mobilenet_v2_int8.onnx"}),
        Network("SqueezeNet 1.1", models / "squeezenet_fp32_imagenet.onnx", classes,
                caffe, first, imagenet, WAYS),
        Network("EfficientNet-Lite0", REPOSITORY / "models" / "efficientnet_lite0.onnx",
                classes, lite, first, imagenet, WAYS),
        Network("ResNet-20, CIFAR-10", models / "cifar10_resnet20.onnx", photos / "cifar10",
                cifar10, first, None, WAYS),
        Network("ResNet-8, CIFAR-10", models / "mlperf_resnet8_cifar10.onnx", photos / "cifar10",
                small, last, None, WAYS),
    ]  # fmt: skip


def main() -> int:
    """Compare, print the rows and write the page; return the exit status."""
    parser = argparse.ArgumentParser(description="Compare heat maps of float and integer models.")
    parser.add_argument("--only", help="names of models that hold this")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of models and photos")
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / "docs" / "quantized-agreement.md"
    )
    arguments = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # advice to optimise the models first
    chosen = [n for n in networks(arguments.shared) if (arguments.only or "") in n.name]
    text = HEADER.format(version=onnxruntime.__version__)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for network in chosen:
            for row in compared(network, folder):
                print(row, flush=True)
                text += f"{row}\n"
        text += RULE
        for network in chosen:
            way = network.ways.get("TFLite", network.ways.get("QDQ"))
            source, path = prepared(network.model, folder), folder / "rule.onnx"
            if isinstance(way, Path):
                path = way
            elif way is not None:
                photos = sorted(p for p in network.photos.iterdir() if p.suffix != ".txt")
                way(source, path, network, photos[::2])
            for row in rule_rows(network, source, path, folder):
                print(row, flush=True)
                text += f"{row}\n"
    arguments.output.write_text(text, encoding="utf-8")
    print(f"wrote {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
