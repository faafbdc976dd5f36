"""Where the objects are: boxes and masks from files, carried onto the model's input.

Two kinds of source: a JSON file of photo name -> objects, each
``{"label": NAME, "box": [x0, y0, x1, y1]}`` (upper ends exclusive) or
``{"label": NAME, "mask": "FILE.png"}`` (beside the JSON file, not zero on the object); and a folder
of Pascal VOC files ``STEM.xml``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from onnx_gradcam.errors import UsageError
from onnx_gradcam.evaluation.prediction import Masks
from onnx_gradcam.runtime.photo import read_photo
from onnx_gradcam.runtime.preprocess import CropGeometry

Size = tuple[int, int]


@dataclass(frozen=True)
class Object:
    """One annotated object: a label, and either a box or the file of a mask.

    Attributes:
        label: what it is called; None where the file does not say.
        box: ``(x0, y0, x1, y1)`` in pixels of the photo, upper ends exclusive.
        mask: an image of the photo's size, not zero on the object.
    """

    label: str | None
    box: tuple[int, int, int, int] | None = None
    mask: Path | None = None

    def on(self, size: Size) -> Masks:
        """Return bool ``size``, true on the object.

        Args:
            size: ``(height, width)`` of the photo.

        Raises:
            UsageError: the mask is of another size, or the object lies outside the photo.
            ImageError: the mask cannot be read.
        """
        if self.mask is None:
            x0, y0, x1, y1 = self.box or (0, 0, 0, 0)
            found = np.zeros(size, np.bool_)
            found[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
        else:
            found = read_photo(self.mask).max(axis=2) > 0
            if found.shape != size:
                raise UsageError(
                    f"mask {self.mask} is of {found.shape[1]} x {found.shape[0]} pixels, its photo"
                    f" of {size[1]} x {size[0]}"
                )
        if not found.any():
            raise UsageError(f"{self.mask or f'box {self.box}'} covers no pixel of its photo")
        return found


@dataclass(frozen=True)
class Annotations:
    """The objects of many photos.

    Attributes:
        source: the file or folder, for messages.
        objects: by the photo's file name (JSON) or stem (VOC).
    """

    source: Path
    objects: Mapping[str, tuple[Object, ...]]

    def of(self, photo: Path) -> dict[str | None, list[Object]]:
        """Return the objects of a photo by their label.

        Raises:
            UsageError: the photo is not annotated.
        """
        found = self.objects.get(photo.name) or self.objects.get(photo.stem)
        if not found:
            raise UsageError(f"{self.source} has no boxes for {photo.name}")
        grouped: dict[str | None, list[Object]] = {}
        for item in found:
            grouped.setdefault(item.label, []).append(item)
        return grouped


def read_annotations(source: Path) -> Annotations:
    """Read a JSON file, or all Pascal VOC files of a folder.

    Raises:
        UsageError: not there, or not of that form.
    """
    if source.is_dir():
        files = sorted(source.glob("*.xml"))
        if not files:
            raise UsageError(f"{source} holds no Pascal VOC files (*.xml)")
        return Annotations(source, {file.stem: tuple(voc_objects(file)) for file in files})
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read boxes {source}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{source} is no JSON file: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{source} must hold an object of photo name -> list of objects")
    return Annotations(
        source,
        {
            name: tuple(_json_object(item, source, name) for item in _listed(items, source, name))
            for name, items in content.items()
        },
    )


def _listed(items: object, source: Path, name: str) -> list[Any]:
    if not isinstance(items, list):
        raise UsageError(f"{source}: {name!r} must hold a list of objects")
    return items


def _json_object(item: Any, source: Path, name: str) -> Object:
    match item:
        case {"box": [x0, y0, x1, y1]} if all(isinstance(v, (int, float)) for v in item["box"]):
            return Object(item.get("label"), box=(int(x0), int(y0), int(x1), int(y1)))
        case {"mask": str(file)}:
            return Object(item.get("label"), mask=source.parent / file)
    raise UsageError(
        f'{source}: an object of {name!r} is neither {{"label": ..., "box": [x0, y0, x1, y1]}} nor'
        ' {"label": ..., "mask": FILE}'
    )


def voc_objects(path: Path) -> list[Object]:
    """Return the objects of a Pascal VOC file, whose pixels count from 1 and ends are inclusive.

    Raises:
        UsageError: it cannot be read, or is no such file.
    """
    try:
        found = []
        for item in ElementTree.parse(path).getroot().iter("object"):
            corners = (item.findtext(f"bndbox/{name}", "") for name in _CORNERS)
            x0, y0, x1, y1 = (round(float(text)) for text in corners)
            found.append(Object(item.findtext("name"), box=(x0 - 1, y0 - 1, x1, y1)))
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise UsageError(f"{path} is no Pascal VOC file: {error}") from error
    return found


_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def mask_on_input(mask: Masks, geometry: CropGeometry) -> Masks:
    """Carry a mask of the photo through resize and centre crop.

    Each pixel of the model's input takes the value at the point of the photo that its centre came
    from; where the crop reaches beyond the photo there is no object.

    Args:
        mask: bool ``(height, width)`` of the photo.
        geometry: what the preprocessing did with the photo.

    Returns:
        bool ``geometry.crop``; all false where the crop left the object out.
    """
    found = mask
    for axis, start in enumerate((geometry.top, geometry.left)):
        length = geometry.photo_size[axis]
        scale = length / geometry.resized[axis]
        positions = np.floor((np.arange(geometry.crop[axis]) + start + 0.5) * scale).astype(int)
        inside = (positions >= 0) & (positions < length)
        taken = np.take(found, positions.clip(0, length - 1), axis)
        found = taken & (inside[:, None] if axis == 0 else inside)
    return found
