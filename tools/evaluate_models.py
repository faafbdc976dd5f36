"""Evaluate heat maps of real models by every metric, and write docs/evaluation.md.

In: models/ (efficientnet_lite0.onnx, which ``python tools/make_models.py`` builds, and the tiny
one) and the models and photos of the folder that ONNX_GRADCAM_SHARED names (default: shared/
beside the repository). Out: docs/evaluation.md.

``python tools/evaluate_models.py`` needs the package with its extras ``cpu`` and ``export``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# run as a script, Python has put tools/ on the path, not the repository
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnx_gradcam
from onnx_gradcam.errors import OnnxGradCamError
from onnx_gradcam.evaluation import METRICS, Evaluation, Settings, read_annotations, read_samples
from onnx_gradcam.evaluation.evaluate import evaluate
from onnx_gradcam.evaluation.report import ARROWS
from onnx_gradcam.export.randomise import export_randomised
from tools.evaluation_notes import AFTER, AGREEMENT, BEFORE

REPOSITORY = Path(__file__).resolve().parents[1]
MODELS = REPOSITORY / "models"
SHARED = Path(os.environ.get("ONNX_GRADCAM_SHARED") or REPOSITORY.parent / "shared")
ONE_RUN = (
    *("gradcam", "gradcam++", "hirescam", "gradcamelementwise", "layercam", "xgradcam"),
    *("eigencam", "eigengradcam", "segeigencam", "kpcacam", "fem", "shapleycam"),
)
FEW_RUNS = ("finercam", "reciprocam", "vitreciprocam", "smoothgradcam++")
MANY_RUNS = ("ablationcam", "scorecam", "occlusion")
FLOORS = ("randomcam", "noise", "centre")
METHODS = (*ONE_RUN, *FEW_RUNS, *FLOORS)
"""Of every model; those of `MANY_RUNS` where the model is tiny."""

PERCENTILES = (20, 40, 60, 80)


@dataclass(frozen=True)
class Case:
    """One model and the photos that it is evaluated on.

    Attributes:
        title: heading.
        model: the file before its export.
        preprocess: preset or JSON file.
        photos: the photos.
        labels: file of class names, or None.
        boxes: where the objects are, or None.
        methods: what is compared.
    """

    title: str
    model: Path
    preprocess: str | Path
    photos: Sequence[Path]
    labels: Path | None = None
    boxes: Path | None = None
    methods: Sequence[str] = METHODS


def cases(count: int) -> Iterator[Case]:
    """Yield the cases with so many photos, evenly spread over the classes."""
    photos = sorted((SHARED / "photos" / "imagenet").iterdir())
    chosen = [photos[index * len(photos) // count] for index in range(count)]
    shared, tiny = SHARED / "models", MODELS / "tiny_shapes"
    yield Case(
        "Tiny shapes, the repository's own",
        MODELS / "tiny_shapes.onnx",
        tiny / "preprocessing.json",
        sorted(tiny.glob("*.png")),
        tiny / "labels.txt",
        tiny / "annotations.json",
        (*ONE_RUN, *FEW_RUNS, *MANY_RUNS, *FLOORS),
    )
    yield Case(
        "EfficientNet-Lite0", MODELS / "efficientnet_lite0.onnx", "efficientnet-lite", chosen
    )
    yield Case("SqueezeNet 1.1", shared / "squeezenet_fp32_imagenet.onnx", "caffe", chosen)
    yield Case("MobileNetV2", shared / "mobilenet_v2_float.onnx", "pixels", chosen)


def run(case: Case, builder: str, seed: int) -> Evaluation:
    """Export the model and its randomised twin, and evaluate.

    Raises:
        OnnxGradCamError: a model or photo is not there, or cannot be exported or read.
    """
    options: dict[str, Any] = {
        "gradient_builder": builder,
        "preprocess": case.preprocess,
        "labels": case.labels,
        "verify": False,
    }
    further: dict[str, Any] = {"weights": True, "second_order": True}
    with tempfile.TemporaryDirectory() as scratch:
        exported = Path(scratch) / "model.cam.onnx"
        onnx_gradcam.export_model(case.model, exported, **options, **further)
        explainer = onnx_gradcam.load(exported, device="cpu")
        layer = explainer.metadata.target
        twins = export_randomised(
            case.model, Path(scratch), stages=1, seed=seed, layer=layer, **options, **further
        )
        boxes = None if case.boxes is None else read_annotations(case.boxes)
        samples = [
            sample
            for photo in case.photos
            for sample in read_samples(explainer, photo, annotations=boxes)
        ]
        return evaluate(
            explainer,
            samples,
            methods=case.methods,
            randomised=[onnx_gradcam.load(twin, device="cpu") for twin in twins],
            settings=Settings(seed=seed, percentiles=PERCENTILES),
        )


def definitions() -> str:
    """Return the table of the metrics in Markdown."""
    lines = ["| metric | better | what it is | paper | compared with |", "|---|---|---|---|---|"]
    for metric in METRICS.values():
        arxiv = metric.paper.removeprefix("arXiv:")
        cells = [
            f"`{metric.name}`",
            ARROWS[metric.better],
            metric.meaning,
            f"[{arxiv}](https://arxiv.org/abs/{arxiv})",
            AGREEMENT[metric.name],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Evaluate and write the page; return the exit status."""
    parser = argparse.ArgumentParser(description="Evaluate heat maps of real models.")
    parser.add_argument("--photos", type=int, default=6, help="ImageNet photos (default: 6)")
    parser.add_argument("--gradient-builder", default="auto", help="as for export")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs" / "evaluation.md")
    arguments = parser.parse_args()
    parts = [BEFORE.format(definitions=definitions())]
    try:
        for case in cases(arguments.photos):
            start = time.monotonic()
            result = run(case, arguments.gradient_builder, arguments.seed)
            heading = f"### {case.title}, {len(result.samples)} images"
            print(heading, f"{time.monotonic() - start:.0f} s", result.summary(), sep="\n")
            parts += [heading, result.markdown()]
    except (OnnxGradCamError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = "\n\n".join(part.strip() for part in [*parts, AFTER]) + "\n"
    arguments.output.write_text(text, encoding="utf-8")
    print(f"wrote {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
