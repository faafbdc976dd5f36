"""`onnx-gradcam setup-builder`: install onnxruntime-training where it disturbs nothing."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_gradcam.cli.output import as_json_text, examples


@click.command(
    "setup-builder",
    short_help="Install the onnxruntime-training gradient builder.",
    epilog=examples(
        "onnx-gradcam setup-builder",
        "onnx-gradcam setup-builder --wheel onnxruntime_training_cpu-1.19.2-cp311-...whl",
    ),
)
@click.option(
    "--wheel",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A wheel that was downloaded before, for hosts without a package index.",
)
@click.option(
    "--python",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A Python that a wheel exists for, when this one has none.",
)
@click.option("--force", is_flag=True, help="Install again over what is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the builder's state as JSON.")
def command(wheel: Path | None, python: Path | None, force: bool, as_json: bool) -> None:
    """Install onnxruntime-training, pinned by hash, in a folder of its own.

    It shares its import name with onnxruntime; in a folder of its own the two do not meet. Only
    the export uses it: exported files run without it.
    """
    from onnx_gradcam.environment import describe_builder
    from onnx_gradcam.export.builders.environment import install_builder

    status = install_builder(wheel=wheel, python=python, force=force)
    click.echo(as_json_text(status.to_dict()) if as_json else describe_builder(status))
