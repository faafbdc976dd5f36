"""`onnx-gradcam explain`: where an exported model looked on photos."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from onnx_gradcam.cli.arrays import (
    input_option,
    read_inputs,
    read_mask,
    read_vectors,
    read_weights,
)
from onnx_gradcam.cli.how import explain_options, how_options
from onnx_gradcam.cli.output import examples
from onnx_gradcam.errors import BatchError


@click.command(
    "explain",
    short_help="Write heat maps of photos.",
    epilog=examples(
        "onnx-gradcam explain model.cam.onnx cat.jpg -o heatmaps --top-k 3",
        "onnx-gradcam explain model.cam.onnx scan.npy -o heatmaps --input age=age.npy",
        "onnx-gradcam explain model.cam.onnx cat.jpg dog.jpg -o heatmaps --class tabby --class 207",
        "onnx-gradcam explain model.cam.onnx photos/ -o heatmaps --pictures none",
    ),
)
@click.argument("exported", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="Where the pictures and raw maps go; created when missing.",
)
@how_options
@click.option(
    "--above",
    type=float,
    metavar="P",
    help="Explain every class with a score above P, as of a model of several labels.",
)
@click.option(
    "--weight",
    "weights",
    metavar="NAME|INDEX=W",
    multiple=True,
    help="Explain a weighted sum of classes, --weight cat=1 --weight dog=-1 what tells them apart;"
    " for files exported with --weights.",
)
@click.option(
    "--mask",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where the scores of a class are summed, a .npy file or a picture of the size of the score"
    " map; for files exported with --objective segmentation.",
)
@click.option(
    "--box",
    "boxes",
    type=int,
    metavar="INDEX",
    multiple=True,
    help="The box to explain, -k for the k-th highest score; for files exported with --objective"
    " detection.",
)
@click.option(
    "--embedding",
    type=click.Path(path_type=Path),
    metavar="FILE.npy",
    help="What the model's output is compared with; for files exported with --objective"
    " similarity.",
)
@input_option("Values for another input of the model; repeat it for several.")
@click.option(
    "--pictures",
    type=click.Choice(["png", "jpg", "none"]),
    default="png",
    show_default=True,
    help="How pictures are written; none writes raw maps alone, which is fastest.",
)
@click.option("--force", is_flag=True, help="Overwrite files of an earlier run.")
def command(
    exported: Path,
    images: tuple[Path, ...],
    output: Path,
    classes: tuple[str, ...],
    top_k: int | None,
    above: float | None,
    weights: tuple[str, ...],
    mask: Path | None,
    boxes: tuple[int, ...],
    embedding: Path | None,
    method: str | None,
    eigen_smooth: bool,
    aug_smooth: bool,
    layers: tuple[str, ...],
    fuse_layers: str,
    seed: int,
    settings: tuple[str, ...],
    device: str,
    inputs: tuple[str, ...],
    pictures: str,
    threads: int | None,
    force: bool,
) -> int:
    """Write, for each image, a picture of where the model looked and the raw map of each class.

    For cat.jpg: DIR/cat.cam.png, all classes in one panel, and DIR/cat.cam-INDEX.npy per class.
    A folder stands for the images in it, several images are explained at a time.
    A .npy file holds an array as the model takes it: an image, sound or volume, or a batch of them.
    Prints index, score and name of each class, and why where its map shows nothing.
    """
    from onnx_gradcam import load
    from onnx_gradcam.photo_files import FailedPhoto, explain_photos, photos_of
    from onnx_gradcam.pipeline import divide

    failed = 0
    photos = photos_of(images)
    division = divide(len(photos), method, threads)
    explainer = load(exported, device=device, session_options=division.session_options())
    results = explain_photos(
        explainer,
        photos,
        output,
        classes=classes,
        top_k=top_k,
        above=above,
        method=method,
        **explain_options(eigen_smooth, aug_smooth, layers, fuse_layers, seed, settings),
        pictures=None if pictures == "none" else pictures,
        force=force,
        workers=division.workers_on(explainer.providers),
        extra_inputs=read_inputs(inputs),
        weights=read_weights(weights),
        mask=read_mask(mask),
        box=boxes or None,
        embedding=read_vectors(embedding),
    )
    with closing(results):  # so that Ctrl-C ends its threads
        for result in results:
            if not isinstance(result, FailedPhoto):
                click.echo(result.summary())
            elif len(photos) == 1:
                raise result.error
            else:
                failed += 1
                click.echo(f"error: {result.error}", err=True)
    return BatchError.exit_code if failed else 0
