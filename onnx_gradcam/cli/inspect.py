"""`onnx-gradcam inspect`: what the export would find in a model."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_gradcam.cli.objective import objective_options
from onnx_gradcam.cli.output import examples, show_report


@click.command(
    "inspect",
    short_help="Show scores, candidate layers and what can be exported.",
    epilog=examples(
        "onnx-gradcam inspect model.onnx",
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--score", metavar="NAME", help="Output or tensor to explain, instead of the one found."
)
@click.option(
    "--image-input",
    metavar="NAME",
    help="Input to explain, instead of the first that looks like an image.",
)
@objective_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model: Path,
    score: str | None,
    image_input: str | None,
    objective: str,
    class_axis: int | None,
    class_channels: str | None,
    as_json: bool,
) -> None:
    """Show a model's inputs, scores and candidate layers, and which one the export would take.

    For each layer: its shape, and which builder can differentiate from the score back to it.
    """
    from onnx_gradcam import inspect_model

    report = inspect_model(
        model,
        score=score,
        image_input=image_input,
        objective=objective,
        class_axis=class_axis,
        class_channels=class_channels,
    )
    show_report(report, as_json=as_json)
