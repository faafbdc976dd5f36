"""A small picture of each image: the one that the batch kept, else one of the image itself.

An image is found again where the batch found it (a file, a tar, a table), from the same current
folder. What cannot be found, or has another size than when it was explained, has no picture.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from onnx_gradcam.batch.rows import thumbnail
from onnx_gradcam.batch.schema import Row, readable
from onnx_gradcam.batch.sources import STANDARD_INPUT, FileImage, Reference, Sources
from onnx_gradcam.errors import ImageError, UsageError
from onnx_gradcam.pipeline.cores import cores
from onnx_gradcam.pipeline.overlap import overlapped
from onnx_gradcam.report.results import ImageRows, Results
from onnx_gradcam.runtime.photo import read_photo

SIZES = ((250, 480), (1000, 320))
"""Up to so many images in a report, the longer side in pixels of pictures that are made for it."""

SMALLEST = 192
"""That of the pictures of more images: about 7 kB each."""


def side_for(images: int) -> int:
    """Return the longer side in pixels of the pictures of so many images."""
    return next((side for most, side in SIZES if images <= most), SMALLEST)


def thumbnails(
    results: Results, images: Sequence[ImageRows], others: Sequence[Mapping[str, ImageRows]] = ()
) -> Iterator[bytes]:
    """Yield a JPEG of each image, in order; no bytes where there is none.

    Args:
        results: where the images are from.
        images: explained ones.
        others: the same images by path in other folders, which may have kept pictures.
    """
    kept = [_kept(image, others) for image in images]
    missing = [image for image, picture in zip(images, kept, strict=True) if not picture]
    found = _references(results, missing)
    side = side_for(len(images))

    def made(place: int) -> bytes:
        image = images[place]
        return kept[place] or _made(found.get(image.number), image.rows[0], side)

    yield from overlapped(made, range(len(images)), cores())


def _kept(image: ImageRows, others: Sequence[Mapping[str, ImageRows]]) -> bytes:
    """Return the picture that a batch kept, also another one of the same image."""
    elsewhere = [other[image.path] for other in others if image.path in other]
    for each in (image, *elsewhere):
        if each.rows and each.rows[0]["thumbnail"] and _size(each) == _size(image):
            picture: bytes = each.rows[0]["thumbnail"]
            return picture
    return b""


def _size(image: ImageRows) -> tuple[int, int]:
    return image.rows[0]["height"], image.rows[0]["width"]


def _references(results: Results, wanted: Sequence[ImageRows]) -> dict[int, Reference]:
    """Return where images are, by number; those that are still where they were."""
    if not wanted:
        return {}
    facts = results.manifest["sources"]
    inputs = tuple(facts.get("inputs") or ())
    sources = Sources(inputs, facts.get("column"), facts.get("root")).beside(results.folder)
    if STANDARD_INPUT in inputs:  # the list is gone; its lines are the paths
        root = facts.get("root") or ""
        return {
            image.number: FileImage(image.path, os.path.join(root, image.path))  # noqa: PTH118
            for image in wanted
        }
    missing: dict[str, list[int]] = {}
    for image in reversed(wanted):
        missing.setdefault(image.path, []).append(image.number)
    found: dict[int, Reference] = {}
    with suppress(UsageError, OSError):  # an input is gone: what was found before it counts
        for reference in sources.references():
            path = readable(reference.name)
            if missing.get(path):
                found[missing[path].pop()] = reference
            if len(found) == len(wanted):
                break
    return found


def _made(reference: Reference | None, row: Row, side: int) -> bytes:
    if reference is None:
        return b""
    try:
        photo = read_photo(reference.read())
    except (ImageError, OSError):
        return b""
    if photo.shape[:2] != (row["height"], row["width"]):
        return b""
    return thumbnail(photo, side)
