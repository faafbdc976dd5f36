"""`onnx-gradcam doctor`: what is installed, what is in conflict, and the fix."""

from __future__ import annotations

import click

from onnx_gradcam.cli.output import examples, show_report
from onnx_gradcam.errors import UnavailableError


@click.command(
    "doctor",
    short_help="Find conflicting packages and print the fix.",
    epilog=examples(
        "onnx-gradcam doctor",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> int:
    """Show which onnxruntime and cv2 are installed, their conflicts, the fix, and the builder.

    Exit code 0 when all is well, 5 when something needs mending.
    """
    from onnx_gradcam.environment import diagnose

    diagnosis = diagnose()
    show_report(diagnosis, as_json=as_json)
    return 0 if diagnosis.healthy else UnavailableError.exit_code
