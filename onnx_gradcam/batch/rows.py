"""An explanation of one image in, its rows of the table out, and the files that go with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.batch.options import BatchOptions
from onnx_gradcam.batch.regions import peak_of, region_of
from onnx_gradcam.batch.schema import Row, called, readable
from onnx_gradcam.photo_files import ENCODERS
from onnx_gradcam.render import encode_jpeg, explanation_panel
from onnx_gradcam.runtime import Explanation
from onnx_gradcam.runtime.photo import Photo, import_cv2
from onnx_gradcam.runtime.preprocess import CropGeometry

THUMBNAIL_QUALITY = 70


@dataclass(frozen=True)
class ImageResult:
    """What is known of one image.

    Attributes:
        rows: one for each class, or one that tells of an error.
        picture: the encoded overlay, where one is wanted.
        maps: raw maps by rank, float32 ``(h, w)``, where they are wanted.
    """

    rows: list[Row]
    picture: bytes | None = None
    maps: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether it could not be explained."""
        return self.rows[0].get("error") is not None

    @property
    def told(self) -> str:
        """What is wrong with it, for people."""
        return f"{self.rows[0]['path']}: {self.rows[0]['error']}"


def failure(number: int, name: str, error: Exception) -> ImageResult:
    """Return the row of an image that could not be explained."""
    text = readable(" ".join(str(error).split()))
    return ImageResult([called(number, name) | {"error": text}])


def rows_of_explanation(
    number: int, name: str, explanation: Explanation, options: BatchOptions
) -> ImageResult:
    """Return what is known of an image.

    Args:
        number: of the image.
        name: what it is called.
        explanation: of this photo, a row for each class; of a class that is asked for twice, the
            first counts.
        options: what to measure, and what to write.
    """
    photo, geometry = explanation.photo, explanation.geometry
    assert photo is not None, "explanations of a batch are made from photos"
    assert geometry is not None, "explanations of a batch are made from photos"
    explained = _explained(explanation)
    once: dict[Any, int] = {}
    for place, row in enumerate(explained):
        once.setdefault((row["class"], row["box"]), place)
    kept = list(once.values())
    rows = []
    for rank, place in enumerate(kept):
        common = called(number, name) | {"rank": rank} | explained[place]
        rows.append(common | _measured(explanation, place, geometry, options))
    if options.thumbnails:
        rows[0]["thumbnail"] = thumbnail(photo, options.thumbnails)
    raw = explanation.raw_maps
    return ImageResult(
        rows,
        _picture(explanation, kept, options.overlays),
        {rank: raw[place] for rank, place in enumerate(kept)} if options.arrays else {},
    )


def _explained(explanation: Explanation) -> list[Row]:
    """Return what was explained in each row; the name of a class is the same for all its boxes."""
    boxes = [None] * len(explanation) if explanation.boxes is None else explanation.boxes.tolist()
    names = zip(explanation.class_names, boxes, strict=True)
    columns = {
        "class": explanation.classes.tolist(),
        "class_name": [name.removesuffix(f", box {box}") for name, box in names],
        "box": boxes,
        "score": explanation.class_scores.tolist(),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _measured(
    explanation: Explanation, place: int, geometry: CropGeometry, options: BatchOptions
) -> Row:
    cam, raw = explanation.cams[place], explanation.raw_maps[place]
    height, width = geometry.photo_size
    note = explanation.notes[place]
    row: Row = {
        "height": height,
        "width": width,
        "area": 0,
        "note": note or None,
        **_crop(geometry),
    }
    if options.raw_maps:
        row |= stored_map(raw)
    region = None
    if not note:
        row["peak_x"], row["peak_y"] = peak_of(cam, geometry)
        row["border_peak"] = peaks_at_border(raw)
        row["entropy"] = entropy_of(raw)
        largest = options.region == "largest"
        region = region_of(cam, geometry, options.threshold, largest=largest)
    if region is not None:
        names = ("box_x", "box_y", "box_width", "box_height")
        row |= dict(zip(names, region.box, strict=True))
        row["area"], row["rle"] = region.area, region.encoded
    return row


def _crop(geometry: CropGeometry) -> Row:
    """Return the extent of what the model saw in pixels of the photo, also beyond it."""
    vertical, horizontal = (
        whole / resized
        for whole, resized in zip(geometry.photo_size, geometry.resized, strict=True)
    )
    return {
        "crop_x": geometry.left * horizontal,
        "crop_y": geometry.top * vertical,
        "crop_width": geometry.crop[1] * horizontal,
        "crop_height": geometry.crop[0] * vertical,
    }


def stored_map(raw: NDArray[np.float32]) -> Row:
    """Return a raw map ``(h, w)`` as columns hold it: float16 of what it is divided by its scale.

    The scale is the largest magnitude, so that nothing overflows and little underflows.
    """
    finite = np.isfinite(raw)
    scale = float(np.abs(raw, where=finite, out=np.zeros_like(raw)).max(initial=0)) or 1.0
    return {
        "map_height": raw.shape[0],
        "map_width": raw.shape[1],
        "map_scale": scale,
        "map": (raw / np.float32(scale)).astype("<f2").tobytes(),
    }


def restored_map(row: Row) -> NDArray[np.float32] | None:
    """Return the raw map of a row, float32 ``(h, w)``, None where it holds none.

    Its elements are right to 2^-11 of the map's largest magnitude.
    """
    if row.get("map") is None:
        return None
    values = np.frombuffer(row["map"], "<f2").astype(np.float32) * np.float32(row["map_scale"])
    return values.reshape(row["map_height"], row["map_width"])


def entropy_of(raw: NDArray[np.float32]) -> float | None:
    """Return how widely the positive part of a map is spread: its entropy over that of a constant.

    0 where all is in one element, 1 where all elements are equal; None where nothing is positive.
    """
    positive = np.maximum(raw, 0, dtype=np.float64)
    total = positive.sum()
    if not total > 0 or raw.size < 2:
        return None
    shares = positive[positive > 0] / total
    return float(-(shares * np.log(shares)).sum() / math.log(raw.size)) + 0.0


def peaks_at_border(raw: NDArray[np.float32]) -> bool | None:
    """Return whether a map is highest in its first or last row or column.

    None where there is no other: a map that is less than three elements high or wide.
    """
    if min(raw.shape) < 3:
        return None
    row, column = np.unravel_index(int(raw.argmax()), raw.shape)
    return bool(row in {0, raw.shape[0] - 1} or column in {0, raw.shape[1] - 1})


def thumbnail(photo: Photo, longest: int) -> bytes:
    """Return a photo as a JPEG whose longer side has at most `longest` pixels."""
    cv2 = import_cv2()
    height, width = photo.shape[:2]
    scale = min(longest / max(height, width), 1.0)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = photo if scale == 1 else cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    return encode_jpeg(small, quality=THUMBNAIL_QUALITY)


def _picture(explanation: Explanation, kept: Sequence[int], ending: str | None) -> bytes | None:
    if ending is None:
        return None
    return ENCODERS[ending](explanation_panel(explanation, list(kept)))
