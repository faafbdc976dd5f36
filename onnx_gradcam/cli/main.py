"""The entry point: a group that loads each command when it is called and turns errors to one line.

Flows in: arguments. Flows out: results on stdout, one line per error on stderr, an exit code
(`onnx_gradcam.errors` lists them).
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from onnx_gradcam import __version__
from onnx_gradcam.cli.output import examples
from onnx_gradcam.errors import OnnxGradCamError
from onnx_gradcam.extras import missing_dependency

COMMANDS = {
    "inspect": "onnx_gradcam.cli.inspect",
    "export": "onnx_gradcam.cli.export",
    "check": "onnx_gradcam.cli.check",
    "explain": "onnx_gradcam.cli.explain",
    "batch": "onnx_gradcam.cli.batch",
    "report": "onnx_gradcam.cli.report",
    "evaluate": "onnx_gradcam.cli.evaluate",
    "methods": "onnx_gradcam.cli.methods",
    "doctor": "onnx_gradcam.cli.doctor",
    "setup-builder": "onnx_gradcam.cli.setup_builder",
}
"""Command -> the module that holds it as `command`, in the order of work."""

SHORT_HELP = {
    "inspect": "Show scores, candidate layers and what can be exported.",
    "export": "Write MODEL with its explanation inside.",
    "check": "Prove that an exported file is right.",
    "explain": "Write heat maps of photos.",
    "batch": "Explain very many images into tables.",
    "report": "Show results of a batch in one HTML page.",
    "evaluate": "Measure how faithful the heat maps are.",
    "methods": "List the CAM methods, their papers and needs.",
    "doctor": "Find conflicting packages and print the fix.",
    "setup-builder": "Install the onnxruntime-training gradient builder.",
}
"""Command -> its line in the help of the group, for which no command is imported."""

INTERNAL_ERROR = 1
INTERRUPTED = 130
TRACEBACK_VARIABLE = "ONNX_GRADCAM_TRACEBACK"


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in the order of work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, None when there is none."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SHORT_HELP.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; in standalone mode exit with the documented codes."""
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            _flush_or_hush()
        except Exception as error:
            if not standalone_mode:
                raise
            sys.exit(_report(error))
        if not standalone_mode:
            return result
        sys.exit(result if isinstance(result, int) else 0)


def _report(error: Exception) -> int:
    """Print one line on stderr and return the exit code."""
    if isinstance(error, click.exceptions.Abort):
        return INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    if isinstance(error, ModuleNotFoundError):
        error = missing_dependency(error) or error
    if isinstance(error, click.ClickException):
        message, code = _usage_line(error), error.exit_code
    elif isinstance(error, OnnxGradCamError):
        message, code = str(error), error.exit_code
    else:
        message, code = _internal_line(error), INTERNAL_ERROR
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
    click.echo("error: " + " ".join(message.split()), err=True)
    return code


def _usage_line(error: click.ClickException) -> str:
    """Return click's message, with the command whose help explains it."""
    context = getattr(error, "ctx", None)
    see = f" (see: {context.command_path} --help)" if context else ""
    return error.format_message().rstrip(".") + see


def _internal_line(error: Exception) -> str:
    hint = f"set {TRACEBACK_VARIABLE}=1 to see where"
    return f"internal error: {type(error).__name__}: {error} ({hint})"


def _flush_or_hush() -> None:
    """Flush now: a reader that is gone must not show as a traceback when Python shuts down."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(INTERNAL_ERROR)


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "onnx-gradcam export model.onnx -o model.cam.onnx --preprocess imagenet",
        "onnx-gradcam explain model.cam.onnx photo.jpg -o heatmaps",
    )
    + """

Exit codes: 0 ok, 1 internal error, 2 usage, 3 invalid or unsupported model, 4 verification
failed, 5 something asked for is not installed or not present, 6 some images of several failed,
130 interrupted, 143 ended by SIGTERM.
""",
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def main() -> None:
    """Grad-CAM heat maps from plain ONNX files."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # errors are ours to report, in one line
