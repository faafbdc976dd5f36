"""`onnx-gradcam batch`: where an exported model looked on very many images."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from onnx_gradcam.cli.engines import EngineChoice, engine_options, opened_engine
from onnx_gradcam.cli.how import explain_options, how_options
from onnx_gradcam.cli.output import examples
from onnx_gradcam.errors import BatchError


@click.command(
    "batch",
    short_help="Explain very many images into tables.",
    epilog=examples(
        "onnx-gradcam batch model.cam.onnx photos/ -o results",
        "onnx-gradcam batch model.cam.onnx 'shards/*.tar' -o results --top-k 3 --overlays jpg",
        "onnx-gradcam batch model.cam.onnx images.parquet -o results --column image --coco",
        "find photos -name '*.jpg' | onnx-gradcam batch model.cam.onnx - -o results",
        "onnx-gradcam batch model.cam.onnx photos/ -o results --engine ray --ray-address auto",
    ),
)
@click.argument("exported", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="Where the tables go; created when missing. A run that was stopped goes on there.",
)
@how_options
@click.option("--column", metavar="NAME", help="The column of a table that holds the images.")
@click.option(
    "--root",
    metavar="DIR",
    help="Where relative paths in lists and tables start.  [default: the current folder]",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="Box, area and RLE are of where a heat map is at least this share of its maximum.",
)
@click.option(
    "--region",
    type=click.Choice(["largest", "all"]),
    default="largest",
    show_default=True,
    help="Of several such regions the largest one, or all together.",
)
@click.option("--no-maps", is_flag=True, help="Leave the raw maps out of the tables.")
@click.option(
    "--overlays", type=click.Choice(["jpg", "png"]), help="Also write a picture of each image."
)
@click.option("--arrays", is_flag=True, help="Also write raw maps as .npz, in full precision.")
@click.option("--coco", is_flag=True, help="Also write the regions as coco.json.")
@click.option(
    "--thumbnails",
    type=click.IntRange(min=0),
    default=0,
    metavar="PIXELS",
    help="Keep a small JPEG of each image in the tables, for reports where the images are not.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    metavar="N",
    help="Refuse larger images before they are decoded.  [default: 180000000]",
)
@click.option(
    "--max-errors",
    type=click.IntRange(min=0),
    metavar="N",
    help="Stop when more images than this cannot be explained.",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    metavar="N",
    help="Images per part; a run that is killed repeats at most one of them.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images per run of the model.  [default: what the model is fixed to, else 1]",
)
@engine_options
@click.option("--force", is_flag=True, help="Begin anew where DIR holds results.")
def command(
    exported: Path,
    inputs: tuple[str, ...],
    output: Path,
    classes: tuple[str, ...],
    top_k: int | None,
    method: str | None,
    device: str,
    threads: int | None,
    column: str | None,
    root: str | None,
    max_pixels: int | None,
    max_errors: int | None,
    batch_size: int | None,
    engine: str,
    actors: int | None,
    ray_address: str | None,
    cpus_per_actor: float | None,
    gpus_per_actor: float | None,
    no_maps: bool,
    coco: bool,
    force: bool,
    eigen_smooth: bool,
    aug_smooth: bool,
    layers: tuple[str, ...],
    fuse_layers: str,
    seed: int,
    settings: tuple[str, ...],
    **measured: Any,
) -> int:
    """Write a table of where the model looked: a row for each image and class.

    INPUTS are images, folders, globs, lists (.txt), Parquet tables, tars, or - for a list on
    standard input. Results go to DIR/parts/*.parquet, shard by shard; the same command goes on
    where an earlier run ended. An image that cannot be explained is a row that says why.
    """
    from onnx_gradcam.batch import BatchOptions, run_batch
    from onnx_gradcam.batch.sources import Sources
    from onnx_gradcam.cli.progress import Progress
    from onnx_gradcam.cli.signals import ending_when_terminated
    from onnx_gradcam.runtime.photo import MAX_PIXELS, allow_pixels

    allow_pixels(max_pixels or MAX_PIXELS)
    options = BatchOptions(
        classes=classes,
        top_k=top_k,
        method=method,
        how=explain_options(eigen_smooth, aug_smooth, layers, fuse_layers, seed, settings),
        raw_maps=not no_maps,
        max_pixels=max_pixels or MAX_PIXELS,
        batch=batch_size,
        **measured,
    )
    sources = Sources(inputs, column, root).beside(output)
    choice = EngineChoice(
        engine, device, threads, actors, ray_address, cpus_per_actor, gpus_per_actor
    )
    with (
        ending_when_terminated(),
        opened_engine(choice, exported, options) as (explainer, running),
        closing(Progress(sources)) as progress,
    ):
        summary = run_batch(
            exported,
            explainer,
            running,
            sources,
            output,
            options,
            max_errors=max_errors,
            coco=coco,
            force=force,
            on_progress=progress.advance,
        )
    before = f", {summary.done_before} of them before" if summary.done_before else ""
    click.echo(
        f"{summary.images} images{before}, {summary.errors} failed"
        f" -> {click.format_filename(output)}:"
        f" {summary.rows} rows in {summary.parts} parts, {summary.seconds:.1f} s"
    )
    if not summary.errors:
        return 0
    first = f", the first one: {summary.first_error}" if summary.first_error else ""
    click.echo(f"error: {summary.errors} images failed (column error){first}", err=True)
    return BatchError.exit_code
