"""The objects that the pointing game points at: photos, and where in them what is.

In: folders of annotated photos. Out: `Target`s, whose masks are true on the object. Boxes come from
Pascal VOC files, from an ``annotations.json`` and by hand; masks from pictures; and mosaics of four
photos give a place to photos that have no annotation but their class.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.runtime.photo import read_photo
from onnx_gradcam.runtime.preprocess import preprocess

ELEPHANTS = ("African elephant", "Indian elephant", "tusker")

HAND_DRAWN: Mapping[str, Mapping[tuple[str, ...], tuple[int, int, int, int]]] = {
    "cat_720p.jpg": {("Egyptian cat", "tiger cat", "tabby"): (118, 78, 894, 720)},
    "owl.jpg": {("great grey owl",): (160, 14, 332, 372)},
    "pets.jpg": {
        ("Italian greyhound",): (104, 4, 262, 296),
        ("Boston bull",): (344, 162, 494, 366),
    },
}
"""Photo in pets/ -> labels -> box ``(x0, y0, x1, y1)`` in its pixels, drawn for this script."""

Mask = npt.NDArray[np.bool_]
Box = Sequence[int]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Target:
    """One object to be pointed at.

    Attributes:
        group: heading under which it is counted.
        name: how to call the photo.
        photo: its path, or its pixels, uint8 RGB ``(height, width, 3)``.
        labels: explain the one of these with the highest score; empty: of all classes.
        mask: bool ``(height, width)`` of the photo, true on the object.
        other: likewise for objects of another class in the photo, or None.
    """

    group: str
    name: str
    photo: Path | Pixels
    labels: tuple[str, ...]
    mask: Mask
    other: Mask | None = None


def box_mask(size: tuple[int, int], boxes: Sequence[Box]) -> Mask:
    """Return where any of the boxes ``(x0, y0, x1, y1)`` is, upper ends exclusive."""
    mask = np.zeros(size, np.bool_)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def voc_boxes(path: Path) -> list[tuple[int, int, int, int]]:
    """Return the boxes of a Pascal VOC file, whose pixels count from 1 and ends are inclusive."""
    found = []
    for box in ElementTree.parse(path).getroot().iter("bndbox"):
        x0, y0, x1, y1 = (int(box.findtext(k, "")) for k in ("xmin", "ymin", "xmax", "ymax"))
        found.append((x0 - 1, y0 - 1, x1, y1))
    return found


def photo_targets(photos: Path) -> Iterator[Target]:
    """Yield the annotated photos for an ImageNet classifier."""
    for photo in sorted((photos / "elephants").glob("*.jpg")):
        height, width = read_photo(photo).shape[:2]
        mask = box_mask((height, width), voc_boxes(photo.with_suffix(".xml")))
        yield Target("elephants (boxes)", photo.name, photo, ELEPHANTS, mask)
    pets = photos / "pets"
    for name, value, labels in (("dog", 0, ("Samoyed",)), ("bird", 3, ())):
        mask = read_photo(pets / f"{name}_segmentation_mask.bmp")[..., 0] == value
        photo = pets / f"{name}_segmentation.bmp"
        yield Target("dog and bird (masks)", photo.name, photo, labels, mask)
    for name, objects in HAND_DRAWN.items():
        yield from _boxed(pets / name, "pets (boxes drawn by hand)", list(objects.items()))


def annotated_targets(folder: Path, group: str) -> Iterator[Target]:
    """Yield the objects of a folder with an annotations.json such as models/tiny_shapes."""
    annotations = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    for name, objects in annotations.items():
        boxes = [((found["label"],), found["box"]) for found in objects]
        count = "one" if len(boxes) == 1 else "two"
        yield from _boxed(folder / name, group.format(count=count), boxes)


def _boxed(
    photo: Path, group: str, objects: Sequence[tuple[tuple[str, ...], Box]]
) -> Iterator[Target]:
    height, width = read_photo(photo).shape[:2]
    masks = [box_mask((height, width), [box]) for _, box in objects]
    for index, (labels, _) in enumerate(objects):
        rest = masks[:index] + masks[index + 1 :]
        other = np.any(rest, axis=0) if rest else None
        yield Target(group, photo.name, photo, labels, masks[index], other)


MOSAIC_TILE = Preprocessing(resize=224, crop=(224, 224), interpolation="bicubic", layout="NHWC")
MOSAIC_STEPS = (0, 13, 25, 38)
"""The photos of one mosaic are this far apart in the row of all, so that they are unlike."""


def mosaic_targets(photos: Path, labels: Sequence[str]) -> Iterator[Target]:
    """Yield each quarter of mosaics of four photos of four classes.

    Every photo is once in every quarter. Its mask is its quarter, the other one the rest.

    Args:
        photos: folder of photos whose names start with the index of their class.
        labels: class names in the model's order.

    Source: arXiv 2109.15035 (the mosaics of the Focus score).
    """
    paths = sorted(photos.iterdir())
    tiles = [
        preprocess(read_photo(path), MOSAIC_TILE, "NHWC", np.dtype(np.uint8))[0] for path in paths
    ]
    quarters = [(0, 0, 224, 224), (224, 0, 448, 224), (0, 224, 224, 448), (224, 224, 448, 448)]
    for first in range(len(paths)):
        chosen = [(first + step) % len(paths) for step in MOSAIC_STEPS]
        rows = [np.hstack([tiles[index] for index in pair]) for pair in (chosen[:2], chosen[2:])]
        mosaic = np.vstack(rows)
        for index, quarter in zip(chosen, quarters, strict=True):
            mask = box_mask((448, 448), [quarter])
            label = (labels[int(paths[index].name[:3])],)
            yield Target("mosaics of four photos", f"mosaic {first}", mosaic, label, mask, ~mask)
