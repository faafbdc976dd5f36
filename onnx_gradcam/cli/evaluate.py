"""`onnx-gradcam evaluate`: how faithful the heat maps of each method are."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_gradcam.cli.arrays import input_option, read_inputs
from onnx_gradcam.cli.output import as_json_text, examples
from onnx_gradcam.errors import BatchError

if TYPE_CHECKING:
    from onnx_gradcam.evaluation import Annotations, Sample
    from onnx_gradcam.runtime import Explainer


@click.command(
    "evaluate",
    short_help="Measure how faithful the heat maps are.",
    epilog=examples(
        "onnx-gradcam evaluate model.cam.onnx photos/*.jpg",
        "onnx-gradcam evaluate model.cam.onnx photos/*.jpg --method gradcam --method layercam"
        " --metric deletion --metric insertion",
        "onnx-gradcam evaluate model.cam.onnx photos/*.jpg --boxes photos/annotations.json --json",
    ),
)
@click.argument("exported", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--metric",
    "metrics",
    metavar="NAME",
    multiple=True,
    help="A metric; repeat it for several. All that can be had unless one is named.",
)
@click.option(
    "--method",
    "methods",
    metavar="NAME",
    multiple=True,
    help="A CAM method, or the floors `noise` and `centre`; gradcam and noise by default.",
)
@click.option(
    "--boxes",
    type=click.Path(path_type=Path),
    metavar="FILE.json|DIR",
    help="Where the objects are: a JSON file, or a folder of Pascal VOC files.",
)
@click.option(
    "--class",
    "wanted",
    metavar="NAME|INDEX",
    help="The class to explain in all images; the highest score, or the label of the boxes.",
)
@click.option(
    "--randomise",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="The model before its export, for the randomisation check; needs the extra [export].",
)
@click.option(
    "--confidence",
    type=click.Choice(["auto", "softmax", "sigmoid", "raw"]),
    default="auto",
    show_default=True,
    help="How scores become confidences; auto leaves probabilities as they are.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Points of the deletion and insertion curves.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of all noise and of the randomised weights.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Images per run of the model.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda|cuda:N",
    help="Where to run; cuda is an error where it does not come up.",
)
@input_option("Values for another input of the model, the same for all images.")
@click.option("--json", "as_json", is_flag=True, help="Print all values as JSON.")
def command(
    exported: Path,
    images: tuple[Path, ...],
    metrics: tuple[str, ...],
    methods: tuple[str, ...],
    boxes: Path | None,
    wanted: str | None,
    randomise: Path | None,
    confidence: str,
    steps: int,
    seed: int,
    batch_size: int,
    device: str,
    inputs: tuple[str, ...],
    as_json: bool,
) -> int:
    """Measure heat maps on images: a table of methods and metrics, the means over the images.

    Arrows say which way is better. An image for which a metric is not defined is left out of its
    mean and counted in brackets. A .npy file holds prepared images as the model takes them.
    """
    from onnx_gradcam import load
    from onnx_gradcam.evaluation import Settings, evaluate, read_annotations
    from onnx_gradcam.evaluation.evaluate import METHODS

    explainer = load(exported, device=device)
    annotations = None if boxes is None else read_annotations(boxes)
    samples, failed = _read(explainer, images, wanted, annotations)
    with _randomised(randomise, explainer, device, seed) as others, _bar() as progress:
        result = evaluate(
            explainer,
            samples,
            methods=methods or METHODS,
            metrics=metrics,
            randomised=others,
            confidence=None if confidence == "auto" else confidence,
            settings=Settings(steps=steps, seed=seed, batch_size=batch_size),
            extra_inputs=read_inputs(inputs),
            progress=progress,
        )
    click.echo(as_json_text(result.to_dict()) if as_json else result.summary())
    return BatchError.exit_code if failed else 0


def _read(
    explainer: Explainer,
    images: tuple[Path, ...],
    wanted: str | None,
    annotations: Annotations | None,
) -> tuple[list[Sample], int]:
    """Return the samples, and how many of several images could not be read."""
    from onnx_gradcam.errors import ImageError
    from onnx_gradcam.evaluation import read_samples

    samples: list[Sample] = []
    failed = 0
    for file in images:
        try:
            samples += read_samples(explainer, file, wanted=wanted, annotations=annotations)
        except ImageError as error:
            if len(images) == 1:
                raise
            failed += 1
            click.echo(f"error: {error}", err=True)
    if not samples:
        raise BatchError(f"none of {len(images)} images could be read")
    return samples, failed


@contextmanager
def _randomised(
    model: Path | None, explainer: Explainer, device: str, seed: int
) -> Iterator[list[Explainer]]:
    """Give the explainer of the model with all layers randomised; none without a model."""
    if model is None:
        yield []
        return
    from onnx_gradcam import load
    from onnx_gradcam.errors import UsageError
    from onnx_gradcam.export.files.model_file import load_model
    from onnx_gradcam.export.randomise import export_randomised

    if load_model(model).sha256 != explainer.metadata.source_sha256:
        raise UsageError(f"{model} is not the model that was exported; give that one")
    with tempfile.TemporaryDirectory() as folder:
        files = export_randomised(
            model,
            Path(folder),
            stages=1,
            seed=seed,
            layer=[layer.target for layer in explainer.metadata.layers],
            score=explainer.metadata.score_output,
            image_input=explainer.metadata.image_input,
            class_input=explainer.metadata.class_input,
        )
        yield [load(file, device=device) for file in files]


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """Give a progress callback that draws a bar; None where nobody looks at a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    bar: Any = click.progressbar(length=1, label="evaluating", file=sys.stderr)

    def progress(done: int, total: int) -> None:
        bar.length = total
        bar.update(done - bar.pos)

    with bar:
        yield progress
