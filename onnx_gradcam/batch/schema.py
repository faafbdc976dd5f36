"""The columns of a table of results: one row for each image and class, or for an image that failed.

The one place where they are listed: what writes, reads and documents results goes by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from onnx_gradcam.batch.tables import import_pyarrow


class Column(NamedTuple):
    """A column.

    Attributes:
        type: name of a type of pyarrow.
        meaning: what it holds.
        on_error: whether rows of images that failed have it too.
    """

    type: str
    meaning: str
    on_error: bool = False


COLUMNS: Mapping[str, Column] = {
    "image": Column("int64", "number of the image in the order of the inputs, from 0", True),
    "path": Column("string", "what the image is called: its path, TAR/MEMBER or TABLE#ROW", True),
    "path_bytes": Column("binary", "the name as bytes where it is no UTF-8, else null", True),
    "error": Column("string", "why the image could not be explained; null if it could", True),
    "height": Column("int32", "of the photo, upright, in pixels"),
    "width": Column("int32", "likewise"),
    "rank": Column("int32", "which of the classes explained in this image, from 0"),
    "class": Column("int64", "index of the class"),
    "class_name": Column("string", "its label, or class INDEX"),
    "box": Column("int64", "number of the box explained, among all of a detector; null for others"),
    "score": Column("float32", "the model's own output for it, or what else the file explains"),
    "peak_x": Column("int32", "column of the photo where the heat map is highest"),
    "peak_y": Column("int32", "row of it, likewise"),
    "border_peak": Column("bool_", "whether the raw map is highest in its outermost elements"),
    "entropy": Column("float32", "of the positive part of the raw map: 0 one element, 1 uniform"),
    "box_x": Column("int32", "left column of the box around the region"),
    "box_y": Column("int32", "top row"),
    "box_width": Column("int32", "in pixels of the photo"),
    "box_height": Column("int32", "likewise"),
    "area": Column("int64", "pixels of the photo in the region; 0 where it has none"),
    "rle": Column("string", "the region as COCO's compressed RLE, of size (height, width)"),
    "note": Column("string", "why the map shows nothing; null where it shows something"),
    "map_height": Column("int32", "rows of the raw map"),
    "map_width": Column("int32", "columns of the raw map"),
    "map_scale": Column("float32", "what the elements of the raw map are to be multiplied with"),
    "map": Column("binary", "raw map, little-endian float16 in [-1, 1], row by row"),
    "crop_x": Column("float32", "left edge of what the model saw, in pixels of the photo"),
    "crop_y": Column("float32", "top edge; negative, as left may be, where black was added"),
    "crop_width": Column("float32", "its width in pixels of the photo"),
    "crop_height": Column("float32", "its height"),
    "overlay": Column("string", "the picture, from the folder of results; in the first row"),
    "thumbnail": Column("binary", "the photo as a small JPEG, in the first row of an image"),
}

Row = dict[str, Any]


def arrow_schema() -> Any:
    """Return the columns as a ``pyarrow.Schema``; image and path are never null."""
    arrow = import_pyarrow()
    never_null = {"image", "path"}
    return arrow.schema(
        arrow.field(name, getattr(arrow, column.type)(), nullable=name not in never_null)
        for name, column in COLUMNS.items()
    )


def called(number: int, name: str) -> Row:
    """Return the columns that say which image a row is of."""
    row: Row = {"image": number, "path": readable(name)}
    if row["path"] != name:
        row["path_bytes"] = _bytes_of(name)
    return row


def readable(text: str) -> str:
    r"""Return text that has a UTF-8 form: bytes that are none become ``\xe9`` and the like."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _bytes_of(text).decode("utf-8", "backslashreplace")
    return text


def _bytes_of(text: str) -> bytes:
    """Return what `os.fsdecode` has made text of; halves of other surrogate pairs as they are."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def table_of(rows: Sequence[Row]) -> Any:
    """Return rows as a ``pyarrow.Table``; a column that a row leaves out is null there."""
    schema = arrow_schema()
    columns = [[row.get(name) for row in rows] for name in schema.names]
    arrays = [_array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return import_pyarrow().table(arrays, schema=schema)


def _array(values: list[Any], kind: Any) -> Any:
    make = import_pyarrow().array
    try:
        return make(values, kind)
    except UnicodeEncodeError:  # of labels, say
        return make([None if value is None else readable(value) for value in values], kind)
