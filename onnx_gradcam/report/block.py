"""What the page shows, packed for the browser: facts as JSON, numbers and maps as arrays.

All rows of all folders stand one after another: of an image those of the first folder, by rank,
then those of the second. What is null is the value that `ROW_COLUMNS` names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.batch.rows import restored_map, stored_map
from onnx_gradcam.batch.schema import Row
from onnx_gradcam.cam import get_method
from onnx_gradcam.cam.finite import finite_float32
from onnx_gradcam.report.card import card_of
from onnx_gradcam.report.comparison import difference, same_class
from onnx_gradcam.report.results import ImageRows, Results
from onnx_gradcam.runtime.photo import import_cv2

Column = NDArray[Any]

ROW_COLUMNS: Mapping[str, tuple[str, float]] = {
    "score": ("<f4", math.nan),
    "entropy": ("<f4", math.nan),
    "border_peak": ("u1", 2),
    **dict.fromkeys(("peak_x", "peak_y"), ("<i4", -1)),
    **dict.fromkeys(("box_x", "box_y", "box_width", "box_height"), ("<i4", -1)),
    **dict.fromkeys(("crop_x", "crop_y", "crop_width", "crop_height"), ("<f4", math.nan)),
    "map_scale": ("<f4", 1),
    **dict.fromkeys(("map_height", "map_width"), ("<u2", 0)),
}
"""Column of the table -> its dtype in the page, and what stands for null."""

MAP_SIDES = (64, 32, 16)
"""Maps with more rows or columns are shrunk: to the first of these with which all take up at most
`MAP_BYTES`, else to the last."""

MAP_BYTES = 24 * 2**20

SAME, DIFFERS, UNKNOWN = 0, 1, 2
"""Whether the first class of an image is that of the other folder."""


@dataclass(frozen=True)
class Block:
    """The data of a page, without pictures.

    Attributes:
        facts: JSON-ready; ``arrays`` in it says which array is where in `arrays`.
        arrays: little-endian, each starting at a multiple of 8 bytes.
        maps: float16, of all rows, one after another.
        mean_drift: from the first of the other folders; None where it is not defined.
    """

    facts: Mapping[str, Any]
    arrays: bytes
    maps: bytes
    mean_drift: float | None


@dataclass
class _Rows:
    """All rows, and which of them belong to which image of which folder."""

    rows: list[Row] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])
    drifts: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)

    def add(self, rows: Sequence[Row], others: Sequence[Row] = ()) -> None:
        """Add the rows of an image of a folder, and how they differ from those of another."""
        for row in rows:
            found = difference(row, others)
            drift = None if found is None else found.drift
            self.drifts.append(math.nan if drift is None else drift)
            self.changes.append(math.nan if found is None else found.change)
        self.rows += rows
        self.starts.append(len(self.rows))


def block_of(
    results: Results,
    images: Sequence[ImageRows],
    against: Sequence[Results],
    others: Sequence[Mapping[str, ImageRows]],
    names: Sequence[str],
) -> Block:
    """Return the data of a page.

    Args:
        results: the folder that the page is about.
        images: what it shows of it.
        against: the folders to compare with.
        others: for each of them the same images, by path.
        names: what the folders are called, `results` first.

    Raises:
        UsageError: a method that this release does not know.
    """
    packed = _Rows()
    differs = []
    errors: list[dict[str, str]] = [{} for _ in others]
    for place, image in enumerate(images):
        elsewhere = [other.get(image.path) for other in others]
        first = elsewhere[0].rows if elsewhere and elsewhere[0] is not None else ()
        packed.add(image.rows, first)
        differs.append(_differs(image, first))
        for found, failed in zip(elsewhere, errors, strict=True):
            packed.add(found.rows if found is not None else ())
            if found is not None and found.error:
                failed[str(place)] = found.error
    arrays = {
        "number": np.array([image.number for image in images], "<f8"),
        **{name: np.array([i.rows[0][name] for i in images], "<u4") for name in _SIZE},
        "differs": np.array(differs, "u1"),
        "starts": np.array(packed.starts, "<u4"),
        "drift": np.array(packed.drifts, "<f4"),
        "change": np.array(packed.changes, "<f4"),
    }
    classes, of_class = _numbered((row["class"], row["class_name"]) for row in packed.rows)
    notes, of_note = _numbered((row["note"] or "" for row in packed.rows), [""])
    arrays |= {"class": np.array(of_class, "<u4"), "note": np.array(of_note, "<u2")}
    side, maps = _shown_maps(packed.rows)
    shown = [row | own for row, own in zip(packed.rows, maps, strict=True)]
    arrays |= {name: _column(shown, name) for name in ROW_COLUMNS}
    places, data = _packed(arrays)
    facts = {
        "runs": [
            {"name": name, "card": card_of(run), "method": run.method, "errors": failed}
            | {"rectified": get_method(run.method).rectified}
            for name, run, failed in zip(names, (results, *against), ({}, *errors), strict=True)
        ],
        "paths": [image.path for image in images],
        "classes": [list(each) for each in classes],
        "notes": notes,
        "arrays": places,
        "map_side": side,
    }
    drifts = np.array([drift for drift in packed.drifts if not math.isnan(drift)])
    mean = float(drifts.mean()) if len(drifts) else None
    return Block(facts, data, b"".join(row["map"] or b"" for row in maps), mean)


_SIZE = ("height", "width")


def _differs(image: ImageRows, others: Sequence[Row]) -> int:
    if not others:
        return UNKNOWN
    return DIFFERS if same_class(image.rows[0], others[:1]) is None else SAME


def _numbered(values: Iterable[Any], known: Iterable[Any] = ()) -> tuple[list[Any], list[int]]:
    """Return different values in the order of their coming, and which of them each value is."""
    numbers = {value: number for number, value in enumerate(known)}
    each = [numbers.setdefault(value, len(numbers)) for value in values]
    return list(numbers), each


def _column(rows: Sequence[Row], name: str) -> Column:
    dtype, null = ROW_COLUMNS[name]
    return np.array([null if row[name] is None else row[name] for row in rows], dtype)


def _packed(arrays: Mapping[str, Column]) -> tuple[dict[str, list[Any]], bytes]:
    """Return dtype, offset and length of each array, and all arrays as bytes."""
    places: dict[str, list[Any]] = {}
    data = bytearray()
    for name, array in arrays.items():
        data += b"\0" * (-len(data) % 8)
        places[name] = [array.dtype.str.lstrip("<|"), len(data), len(array)]
        data += array.tobytes()
    return places, bytes(data)


def _shown_maps(rows: Sequence[Row]) -> tuple[int, list[Row]]:
    """Return the columns of the maps, and the side to which any were shrunk; 0 for none."""
    shapes = [(row["map_height"] or 0, row["map_width"] or 0) for row in rows]
    side = next((side for side in MAP_SIDES if _bytes_at(shapes, side) <= MAP_BYTES), MAP_SIDES[-1])
    shrunk = any(max(shape) > side for shape in shapes)
    return side if shrunk else 0, list(_small_maps(rows, side))


def _bytes_at(shapes: Iterable[tuple[int, int]], side: int) -> int:
    return sum(2 * min(height, side) * min(width, side) for height, width in shapes)


def _small_maps(rows: Iterable[Row], side: int) -> Iterator[Row]:
    for row in rows:
        height, width = row["map_height"] or 0, row["map_width"] or 0
        if max(height, width) <= side:
            yield {name: row[name] for name in ("map_height", "map_width", "map_scale", "map")}
            continue
        raw = restored_map(row)
        assert raw is not None, "what has a size has elements"
        size = (min(width, side), min(height, side))
        cv2 = import_cv2()
        yield stored_map(cv2.resize(finite_float32(raw), size, interpolation=cv2.INTER_AREA))
