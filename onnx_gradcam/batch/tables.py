"""Images in Parquet tables: encoded in a column of bytes, or as paths.

A table of a Hugging Face dataset has a column of structures with ``bytes`` and ``path``; either may
be missing in a row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from onnx_gradcam.batch.arrow import import_pyarrow as import_pyarrow
from onnx_gradcam.batch.arrow import inner_parts, opened_table, python_values, within
from onnx_gradcam.batch.columns import value_of
from onnx_gradcam.batch.references import file_bytes, opened
from onnx_gradcam.errors import ImageError, UsageError, nearest_names

PATH_NAMES = ("path", "file_name", "filename")
USUAL_NAMES = ("image", "img", "bytes", "jpg", "jpeg", "png", *PATH_NAMES)
"""Of columns of images, the likeliest first."""

PATHS_AT_A_TIME = 4096


@dataclass(frozen=True)
class RowImage:
    """An image in a row of a table.

    Attributes:
        name: the path in the table, or ``TABLE#ROW``.
        table: the Parquet file.
        column: where in it the image is; ``a.b`` for a part of a structure.
        group: its row group.
        row: its row in that group.
        root: where relative paths start.
        version: changes when what is in the row group does.
    """

    name: str
    table: str
    column: str
    group: int
    row: int
    root: str | None = None
    version: str = ""

    @property
    def identity(self) -> str:
        """What must not change from one run to the next."""
        return f"{self.name}\0{self.group}\0{self.row}\0{self.version}"

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            ImageError: there is none in this row, or none where its path points.
        """
        value = value_of(self.table, self.column, self.group, self.row)
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes) and value:
            return value
        if not value:
            raise ImageError(f"{self.name}: no image in this row of {self.table}")
        path = os.path.join(self.root or "", value)  # noqa: PTH118
        with opened(path, value) as file:
            return file_bytes(file, value)


def rows_of(table: str, column: str | None, root: str | None) -> Iterator[RowImage]:
    """Yield the images of a table.

    Args:
        table: the Parquet file.
        column: where its images are; None finds it.
        root: where relative paths start.

    Raises:
        UsageError: no such table, no such column, or none that holds images.
    """
    arrow = import_pyarrow()
    with opened_table(table) as file:
        schema, metadata = file.schema_arrow, file.metadata
        found = _column(schema, table, column)
        paths = _paths_within(schema, found)
        number = 0
        try:
            for group in range(file.num_row_groups):
                version = _version(metadata.row_group(group), found)
                count = metadata.row_group(group).num_rows
                names = iter([None] * count) if paths is None else _names(file, group, paths)
                for row, name in enumerate(names):
                    text = name or f"{table}#{number}"
                    yield RowImage(text, table, found, group, row, root, version)
                    number += 1
        except (OSError, arrow.ArrowException) as error:
            raise UsageError(f"cannot read the table {table}: {error}; get it anew") from error


def _column(schema: Any, table: str, wanted: str | None) -> str:
    """Return the name of the column that holds images.

    Raises:
        UsageError: there is none, or it cannot be told which.
    """
    every = dict(_fields(schema))
    able = [name for name, kind in every.items() if _kind(kind) is not None]
    if wanted is not None:
        if wanted in able:
            return wanted
        if wanted in every:
            raise UsageError(f"column {wanted!r} of {table} holds neither paths nor bytes")
        raise UsageError(f"no column {wanted!r} in {table}{nearest_names(wanted, every)}")
    able = [name for name in able if name in schema.names] or able
    usual = [name for name in USUAL_NAMES if name in able]
    if usual or len(able) == 1:
        return (usual or able)[0]
    choice = ", ".join(able) or "none that could be one"
    raise UsageError(f"which column of {table} holds the images? Name it with --column: {choice}")


def _fields(fields: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names and types of columns, and of what is in structures, as ``a.b``."""
    for field in fields:
        kind = field.type
        yield f"{before}{field.name}", kind
        if import_pyarrow().types.is_struct(kind):
            yield from _fields(kind, f"{before}{field.name}.")


def _kind(kind: Any) -> str | None:
    """Return ``paths``, ``bytes`` or ``both`` for a type of columns; None for any other."""
    types = import_pyarrow().types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}:
        return "both"
    for found, tests in _KINDS.items():
        if any(getattr(types, test)(kind) for test in tests if hasattr(types, test)):
            return found
    return None


_KINDS = {
    "paths": ("is_string", "is_large_string", "is_string_view"),
    "bytes": ("is_binary", "is_large_binary", "is_binary_view", "is_fixed_size_binary"),
}
"""What a column holds -> the tests of ``pyarrow.types`` for it; old releases lack some."""


def _paths_within(schema: Any, column: str) -> str | None:
    """Return the column, or the part of it, that holds paths; None for bytes alone."""
    kind = _kind(dict(_fields(schema))[column])
    return {"paths": column, "both": f"{column}.path"}.get(kind or "")


def _names(file: Any, group: int, paths: str) -> Iterator[str | None]:
    for batch in file.iter_batches(PATHS_AT_A_TIME, row_groups=[group], columns=[paths]):
        inner = inner_parts(batch.schema.names[0], paths)
        for value in python_values(batch.column(0)):
            yield within(value, inner)


def _version(group: Any, column: str) -> str:
    """Return what changes when a column of a row group does: where it lies, sizes, extremes."""
    facts = []
    for place in range(group.num_columns):
        chunk = group.column(place)
        if f"{chunk.path_in_schema}.".startswith(f"{column}."):
            sizes = chunk.data_page_offset, chunk.total_compressed_size, chunk.num_values
            facts.append(f"{sizes} {_extremes(chunk.statistics)}")
    return hashlib.sha256("\n".join(facts).encode("utf-8", "replace")).hexdigest()[:16]


def _extremes(statistics: Any) -> str:
    try:
        return repr(statistics and (statistics.null_count, statistics.min, statistics.max))
    except UnicodeDecodeError:
        return ""
