"""The regions of a batch as annotations in COCO's format, for tools that read it.

Source: the COCO data format (https://cocodataset.org/#format-data), with a score, as results have.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from onnx_gradcam.batch.arrow import import_pyarrow
from onnx_gradcam.batch.layout import COCO
from onnx_gradcam.errors import OutputError
from onnx_gradcam.files import write_whole

NAME = COCO

_COLUMNS = (
    *("image", "path", "height", "width", "rank", "class", "class_name", "score"),
    *("box_x", "box_y", "box_width", "box_height", "area", "rle"),
)


def write_coco(folder: Path, parts: Sequence[Path]) -> None:
    """Write ``coco.json`` of the parts of a table; one of them at a time is in memory.

    Raises:
        OutputError: a part is damaged.
        WriteError: the disk is full.
    """
    write_whole(folder / NAME, _chunks(parts), force=True)


def _chunks(parts: Sequence[Path]) -> Iterator[bytes]:
    names: dict[int, str] = {}
    yield b'{"info": {"description": "where a model looked"},\n"images": ['
    yield from _joined(_image(row) for row in _rows(parts) if row["rank"] == 0)
    yield b'],\n"annotations": ['
    yield from _joined(_annotations(_rows(parts), names))
    yield b'],\n"categories": ['
    yield from _joined({"id": index, "name": names[index]} for index in sorted(names))
    yield b"]}\n"


def _rows(parts: Sequence[Path]) -> Iterator[dict[str, Any]]:
    arrow = import_pyarrow()
    for part in parts:
        try:
            yield from arrow.parquet.read_table(part, columns=list(_COLUMNS)).to_pylist()
        except (OSError, arrow.ArrowException) as error:
            raise OutputError(
                f"{part} is damaged ({error}); remove it and run the same command again"
            ) from error


def _image(row: dict[str, Any]) -> dict[str, Any]:
    size = {"height": row["height"], "width": row["width"]}
    return {"id": row["image"], "file_name": row["path"], **size}


def _annotations(rows: Iterable[dict[str, Any]], names: dict[int, str]) -> Iterator[dict[str, Any]]:
    number = 0
    for row in rows:
        if row["rle"] is None:
            continue
        number += 1
        names[row["class"]] = row["class_name"]
        yield {
            "id": number,
            "image_id": row["image"],
            "category_id": row["class"],
            "score": row["score"] if math.isfinite(row["score"]) else None,
            "bbox": [row[f"box_{name}"] for name in ("x", "y", "width", "height")],
            "area": row["area"],
            "segmentation": {"size": [row["height"], row["width"]], "counts": row["rle"]},
            "iscrowd": 0,
        }


def _joined(values: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    first = True
    for value in values:
        yield ("\n" if first else ",\n").encode() + json.dumps(value, ensure_ascii=False).encode()
        first = False
