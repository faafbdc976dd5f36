"""Compare the gradients of both builders with PyTorch autograd, and write docs/gradients.md.

Environment of its own (nothing of it is a dependency of the project or its tests)::

    python -m venv oracle && oracle/bin/pip install torch==2.13.0 numpy onnx onnxruntime pillow
    oracle/bin/pip install --no-deps torchvision
    oracle/bin/python tools/gradient_agreement.py

Per architecture and layer, for both builders:

- *float32*: the exported file on onnxruntime against autograd, both in float32;
- *float64*: the exported graph evaluated by ONNX's reference implementation in float64 against
  autograd in float64. Here nothing rounds, so that units at a kink of ReLU do not fall on
  different sides in the two engines, which in float32 they do.

The light models of the onnx wheel have no PyTorch source: there the reference is central
differences, in float64, along the gradient and along random directions.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from onnx_gradcam.errors import OnnxGradCamError  # noqa: E402
from onnx_gradcam.export.graph import Graph  # noqa: E402
from onnx_gradcam.export.inspection import inspect_model  # noqa: E402
from onnx_gradcam.export.pipeline import export_model  # noqa: E402
from onnx_gradcam.export.score import find_score  # noqa: E402
from tools.float64_model import float64_evaluator  # noqa: E402
from tools.light_models import light_model, light_model_names  # noqa: E402
from tools.torch_models import export_torch, randomised  # noqa: E402
from tools.torch_oracle import TorchOracle  # noqa: E402

Array = NDArray[Any]
BUILDERS = ("onnxruntime-training", "reverse")
TOLERANCE = 1e-4
ARCHITECTURES = {
    "resnet50": 64,
    "vgg16": 224,
    "mobilenet_v3_large": 64,
    "efficientnet_b0": 64,
    "densenet121": 64,
    "convnext_tiny": 64,
    "alexnet": 224,
    "squeezenet1_1": 64,
    "inception_v3": 147,
    "googlenet": 64,
    "mobilenet_v2": 64,
    "shufflenet_v2_x1_0": 64,
    "regnet_y_400mf": 64,
}
"""torchvision architecture -> side of the input in pixels."""


@dataclass(frozen=True)
class Row:
    """One line of the table: relative errors per builder (None where it refused)."""

    model: str
    layer: str
    shape: tuple[int, ...]
    float32: dict[str, float | None]
    float64: dict[str, float | None]
    reference: str


def relative(value: Array, reference: Array) -> float:
    """Return |value - reference| / |reference| in the Euclidean norm.

    Raises:
        ValueError: the reference is zero: nothing could be compared.
    """
    size = float(np.linalg.norm(reference))
    if size == 0:
        raise ValueError("the reference gradient is zero: nothing to compare with")
    return float(np.linalg.norm(value - reference)) / size


def export(
    model: onnx.ModelProto | Path, layer: str, builder: str, folder: Path
) -> tuple[onnx.ModelProto | None, str]:
    """Return the exported model, or None and the reason for which the builder refused."""
    output = folder / "exported.onnx"
    try:
        export_model(model, output, layer=layer, gradient_builder=builder, force=True, verify=False)
    except OnnxGradCamError as error:
        return None, str(error)
    return onnx.load(output), ""


def run_float32(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    """Return all outputs on stock onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def run_float64(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    """Return all outputs of the float64 version on ONNX's reference implementation."""
    wide = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in feeds.items()}
    evaluator = float64_evaluator(model)
    return dict(zip(evaluator.output_names, evaluator.run(None, wide), strict=True))


def pick_layers(model: onnx.ModelProto | Path) -> list[str]:
    """Return the recommended layer, one in the middle, and the first candidate."""
    report = inspect_model(model)
    assert report.recommended is not None, report.reason
    candidates = report.candidates
    indices = dict.fromkeys([report.recommended, len(candidates) // 2, 0])
    return [candidates[i].tensor for i in indices]


def torch_rows(name: str, size: int, folder: Path) -> Iterator[Row]:
    """Yield the rows of a torchvision architecture.

    Raises:
        LookupError: torch computes no tensor that equals A.
    """
    model = randomised(name)
    x = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    path = folder / f"{name}.onnx"
    export_torch(model, torch.from_numpy(x), path)
    feeds: dict[str, Array] = {"image": x, "cam_class": np.array([3, -2], dtype=np.int64)}
    single = TorchOracle(model, x)
    double = TorchOracle(copy.deepcopy(model).double(), x.astype(np.float64))
    layers = pick_layers(path)
    results: dict[str, dict[str, Any]] = {}
    for layer in layers:
        row: dict[str, Any] = {"float32": {}, "float64": {}, "shape": ()}
        for builder in BUILDERS:
            exported, reason = export(path, layer, builder, folder)
            if exported is None:
                print(f"{name} {layer}: {builder}: {reason}", file=sys.stderr)
                row["float32"][builder] = row["float64"][builder] = None
                continue
            for kind, run, oracle in (
                ("float32", run_float32, single),
                ("float64", run_float64, double),
            ):
                out = run(exported, feeds)
                expected, match = oracle.gradient(out["cam_activations"], out["cam_classes"])
                if match > 1e-4:
                    raise LookupError(f"{name} {layer}: A differs by {match:.1e} from torch's")
                row[kind][builder] = relative(out["cam_gradients"], expected)
                row["shape"] = out["cam_activations"].shape
        results[layer] = row
    for layer, row in results.items():
        yield Row(name, layer, row["shape"], row["float32"], row["float64"], "autograd")


def light_rows(name: str, folder: Path) -> Iterator[Row]:
    """Yield the rows of a light model; the reference is central differences in float64."""
    model = light_model(name)
    image = next(i for i in model.graph.input if "data" in i.name and "queue" not in i.name)
    shape = [d.dim_value for d in image.type.tensor_type.shape.dim]
    rng = np.random.default_rng(0)
    feeds = {image.name: rng.standard_normal(shape).astype(np.float32)}
    initialised = {t.name for t in model.graph.initializer}
    for other in model.graph.input:
        if other.name not in initialised and other.name != image.name:
            dims = [d.dim_value for d in other.type.tensor_type.shape.dim]
            feeds[other.name] = np.zeros(dims, np.float32)
    feeds["cam_class"] = np.array([-1], dtype=np.int64)
    for layer in pick_layers(model):
        errors: dict[str, dict[str, float | None]] = {"float32": {}, "float64": {}}
        differences: list[tuple[Array, float]] | None = None
        size: tuple[int, ...] = ()
        for builder in BUILDERS:
            exported, reason = export(model, layer, builder, folder)
            if exported is None:
                print(f"{name} {layer}: {builder}: {reason}", file=sys.stderr)
                errors["float32"][builder] = errors["float64"][builder] = None
                continue
            out = run_float64(exported, feeds)
            gradient = out["cam_gradients"]
            size = gradient.shape
            if differences is None:
                differences = central_differences(model, layer, feeds, gradient, out)
            slopes = np.array([float((gradient * d).sum()) for d, _ in differences])
            measured = np.array([slope for _, slope in differences])
            errors["float64"][builder] = relative(slopes, measured)
            narrow = run_float32(exported, feeds)
            errors["float32"][builder] = relative(narrow["cam_gradients"], gradient)
        yield Row(name, layer, size, errors["float32"], errors["float64"], "central differences")


def central_differences(
    model: onnx.ModelProto, layer: str, feeds: dict[str, Array], gradient: Array, out: Any
) -> list[tuple[Array, float]]:
    """Return directions and the slopes of y^c along them, by float64 central differences."""
    score = find_score(Graph(model))
    tail = _tail_from(model, layer, score.tensor)
    evaluator = float64_evaluator(tail)
    others = {k: v.astype(np.float64) for k, v in feeds.items() if k in evaluator.input_names}
    a = out["cam_activations"]
    chosen = int(out["cam_classes"][0])

    def y(delta: Array) -> float:
        scores = next(iter(evaluator.run(None, {layer: a + delta, **others})))
        return float(np.asarray(scores).reshape(-1)[chosen])

    rng = np.random.default_rng(1)
    smooth = a != 0  # at the zeros of a ReLU that windows of a MaxPool share there is a kink
    noise, signs = rng.standard_normal(a.shape), rng.choice([-1, 1], a.shape)
    directions = [d * smooth for d in (gradient, noise, np.abs(gradient) * signs)]
    result = []
    for direction in directions:
        unit = direction / np.linalg.norm(direction)
        step = 1e-6 * max(1.0, float(np.abs(a).max()))
        result.append((unit, (y(step * unit) - y(-step * unit)) / (2 * step)))
    return result


def _tail_from(model: onnx.ModelProto, layer: str, score: str) -> onnx.ModelProto:
    """Return the model from `layer` to the score, with `layer` as an input."""
    tail = onnx.ModelProto()
    tail.CopyFrom(model)
    graph = tail.graph
    nodes = [n for n in graph.node if layer not in n.output]
    needed, kept = {score}, []
    for node in reversed(nodes):
        if any(o in needed for o in node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    del graph.output[:]
    graph.output.append(onnx.helper.make_empty_tensor_value_info(score))
    weights = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name in needed or i.name in weights]
    del graph.input[:]
    graph.input.extend(inputs)
    graph.input.append(onnx.helper.make_tensor_value_info(layer, onnx.TensorProto.FLOAT, None))
    return tail


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""

    def cell(value: float | None) -> str:
        return "refused" if value is None else f"{value:.1e}"

    lines = [
        "| model | layer | A | reference | training, float32 | reverse, float32"
        " | training, float64 | reverse, float64 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [cell(kind[b]) for kind in (row.float32, row.float64) for b in BUILDERS]
        shape = " x ".join(map(str, row.shape))
        lines.append(
            f"| {row.model} | `{row.layer}` | {shape} | {row.reference} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def merged(new: str, former: str, order: list[str]) -> str:
    """Return the new table with the rows of a former one for models that were not run."""
    head, rule, *rows = new.splitlines()
    run = {row.split("|")[1].strip() for row in rows}
    kept = [r for r in former.splitlines() if r.startswith("| ") and r != head]
    rows += [r for r in kept if r.split("|")[1].strip() not in run]
    return "\n".join(
        [head, rule, *sorted(rows, key=lambda r: order.index(r.split("|")[1].strip()))]
    )


def main() -> int:
    """Print and write the table; exit with 1 when a float64 error exceeds the tolerance."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="*", help="architectures to run")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "gradients.md")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    jobs: dict[str, Callable[[Path], Iterator[Row]]] = {}
    for name, size in ARCHITECTURES.items():
        jobs[name] = partial(torch_rows, name, size)
    jobs |= {name: partial(light_rows, name) for name in light_model_names()}
    rows: list[Row] = []
    for name, job in jobs.items():
        if arguments.only and name not in arguments.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            for row in job(Path(folder)):
                rows.append(row)
                print(table([row]).splitlines()[-1], flush=True)
    worst = [v for row in rows for v in row.float64.values()]
    failed = [v for v in worst if v is None or not v <= TOLERANCE]
    former = arguments.output.read_text("utf-8") if arguments.output.exists() else ""
    text = HEADER + merged(table(rows), former, list(jobs)) + "\n"
    arguments.output.write_text(text, encoding="utf-8")
    print(f"{len(rows)} rows, worst float64 error {max(v for v in worst if v is not None):.1e}")
    return 1 if failed else 0


HEADER = """# Gradients compared with other engines

Written by `tools/gradient_agreement.py`. Relative error of dy^c/dA, `|ours - reference| /
|reference|` (Euclidean norm), for two images (light models: one) and two different classes, at the
recommended layer, at one in the middle, and at the first feature map. *training* and *reverse* are
the two gradient builders.

- *float32*: the exported file on onnxruntime against PyTorch autograd in float32 (light models:
  against the same graph in float64). Below a ReLU or MaxPool two float32 engines disagree about
  the few units that lie within rounding of a kink, and each such unit changes the gradient: this
  is the noise of float32, not of the formulas, as the next columns show.
- *float64*: the same exported graph evaluated in float64 by ONNX's reference implementation,
  against autograd in float64 (light models: against central differences along three directions,
  the gradient among them). Constants of the file are float32, hence about 1e-8.

Weights are random, seeded, and scaled so that signals neither die nor explode.

"""


if __name__ == "__main__":
    sys.exit(main())
