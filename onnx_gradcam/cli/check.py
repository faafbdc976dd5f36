"""`onnx-gradcam check`: prove an exported file again."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_gradcam.cli.arrays import input_option, read_inputs
from onnx_gradcam.cli.output import examples, show_report
from onnx_gradcam.errors import VerificationError


@click.command(
    "check",
    short_help="Prove that an exported file is right.",
    epilog=examples(
        "onnx-gradcam check model.cam.onnx --against model.onnx",
    ),
)
@click.argument("exported", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="The original model; its outputs must be the same.",
)
@input_option("Values to prove it with, for an input that random ones do not do for.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(exported: Path, against: Path | None, inputs: tuple[str, ...], as_json: bool) -> None:
    """Prove an exported file: valid, runs on onnxruntime, gradient against finite differences.

    With --against also: the original outputs are unchanged. Exit code 4 when a proof fails.
    """
    from onnx_gradcam import check_export

    report = check_export(exported, against=against, inputs=read_inputs(inputs) or None)
    show_report(report, as_json=as_json)
    if not report.passed:
        failed = ", ".join(check.name for check in report.failures)
        raise VerificationError(f"{exported} failed: {failed}")
