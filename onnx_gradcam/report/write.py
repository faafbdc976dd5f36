"""`write_report`: folders of results in, one HTML file out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_gradcam import __version__
from onnx_gradcam.errors import UsageError
from onnx_gradcam.files import refuse_existing, write_whole
from onnx_gradcam.render import (
    COLORMAPS,
    DEFAULT_COLORMAP,
    DEFAULT_OPACITY,
    OPAQUE_FROM,
    color_table,
)
from onnx_gradcam.report.block import block_of
from onnx_gradcam.report.page import PICTURES_PER_PIECE, page
from onnx_gradcam.report.results import ImageRows, Results, read_results
from onnx_gradcam.report.thumbnails import thumbnails

DEFAULT_LIMIT = 5000
"""Images in a page: what browsers open in a moment, also on phones."""

NAME = "report.html"


@dataclass(frozen=True)
class ReportSummary:
    """What was written.

    Attributes:
        file: the page.
        images: how many images it shows.
        left_out: how many explained images it does not show.
        failed: how many images of the batch failed.
        without_picture: how many of those it shows have no picture.
        size: bytes of the page.
        compared: for each further folder, how many of the images are there, too.
        mean_drift: from the first further folder; None where it is not defined.
    """

    file: Path
    images: int
    left_out: int
    failed: int
    without_picture: int
    size: int
    compared: tuple[int, ...]
    mean_drift: float | None


def write_report(
    folder: Path,
    output: Path | None = None,
    against: Sequence[Path] = (),
    *,
    limit: int = DEFAULT_LIMIT,
    force: bool = False,
) -> ReportSummary:
    """Write a page that shows results of a batch; it needs nothing else to be looked at.

    Args:
        folder: what `onnx-gradcam batch` wrote, finished or not.
        output: the page; None for ``report.html`` in the folder.
        against: results of the same images by other methods or models, to show beside; drift is
            from the first of them.
        limit: most images to show; of more, every n-th.
        force: the page may exist.

    Raises:
        UsageError: a folder holds no results, is damaged, or has no image in common with `folder`.
        OutputError: the page exists (without `force`), or cannot be written there.
        WriteError: the disk is full.
        MissingDependencyError: pyarrow is not installed.
    """
    file = output or folder / NAME
    results = read_results(folder)
    refuse_existing(file, force)
    further = [read_results(each) for each in against]
    images, failures = results.spread(limit), results.failures()
    others = [_same_images(each, images, results) for each in further]
    names = _names([folder, *against])
    block = block_of(results, images, further, others, names)
    pictures = list(thumbnails(results, images, others))
    left_out = results.images - results.errors - len(images)
    facts = {
        **block.facts,
        "version": __version__,
        "left_out": left_out,
        "without_picture": pictures.count(b""),
        "failures": [[image.path, image.error] for image in failures],
        "failed": results.errors,
        "complete": bool(results.manifest.get("complete")),
        "pictures_per_piece": PICTURES_PER_PIECE,
        "colors": {
            "table": color_table(DEFAULT_COLORMAP).ravel().tolist(),
            "ends": COLORMAPS[DEFAULT_COLORMAP],
            "opaque_from": OPAQUE_FROM,
            "opacity": DEFAULT_OPACITY,
        },
    }
    write_whole(
        file,
        page(f"Heat maps: {names[0]}", facts, block.arrays, block.maps, pictures),
        force=force,
    )
    return ReportSummary(
        file=file,
        images=len(images),
        left_out=left_out,
        failed=results.errors,
        without_picture=pictures.count(b""),
        size=file.stat().st_size,
        compared=tuple(len(other) for other in others),
        mean_drift=block.mean_drift,
    )


def _same_images(
    other: Results, images: Sequence[ImageRows], results: Results
) -> dict[str, ImageRows]:
    """Return the images that another folder has, too, by path.

    Raises:
        UsageError: it has none of them.
    """
    found = other.of_paths([image.path for image in images])
    if images and not found:
        raise UsageError(
            f"{other.folder} has none of the images of {results.folder}, which are told by their"
            f" paths, such as {images[0].path}; explain the same inputs, from the same folder"
        )
    return found


def _names(folders: Sequence[Path]) -> list[str]:
    """Return what to call folders: their names, or all that was given where two are alike."""
    short = [folder.resolve().name or str(folder) for folder in folders]
    return [
        name if short.count(name) == 1 else str(folder)
        for name, folder in zip(short, folders, strict=True)
    ]
