"""`onnx-gradcam report`: results of a batch as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnx_gradcam.cli.output import examples

if TYPE_CHECKING:
    from onnx_gradcam.report import ReportSummary


@click.command(
    "report",
    short_help="Show results of a batch in one HTML page.",
    epilog=examples(
        "onnx-gradcam report results",
        "onnx-gradcam report results -o page.html --limit 500",
        "onnx-gradcam report results --against results-layercam --against results-old-model",
    ),
)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The page.  [default: DIR/report.html]",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="DIR",
    multiple=True,
    help="Results of the same images, to show beside; repeat it. Drift is from the first one.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Most images to show; of more, every n-th.  [default: 5000]",
)
@click.option("--force", is_flag=True, help="Replace a page that is there.")
def command(
    folder: Path, output: Path | None, against: tuple[Path, ...], limit: int | None, force: bool
) -> None:
    """Write one HTML page that shows the results of a batch, for any browser, with no network.

    DIR is a folder that onnx-gradcam batch wrote. Pictures are those that it kept (--thumbnails),
    else they are made from the images, where these still are.
    """
    from onnx_gradcam.report import DEFAULT_LIMIT, write_report

    summary = write_report(folder, output, against, limit=limit or DEFAULT_LIMIT, force=force)
    click.echo(_told(summary))


def _told(summary: ReportSummary) -> str:
    facts = [f"{summary.images} images"]
    facts += [f"{summary.left_out} left out"] if summary.left_out else []
    facts += [f"{summary.failed} failed"] if summary.failed else []
    facts += [f"{summary.without_picture} without a picture"] if summary.without_picture else []
    facts += [f"{count} compared" for count in summary.compared]
    facts += [f"mean drift {summary.mean_drift:.3f}"] if summary.mean_drift is not None else []
    return f"{', '.join(facts)} -> {summary.file} ({summary.size / 1e6:.1f} MB)"
