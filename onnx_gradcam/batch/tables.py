"""Images in Parquet tables: encoded in a column of bytes, or as paths.

A table of a Hugging Face dataset has a column of structures with ``bytes`` and ``path``; either may
be missing in a row.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_gradcam.errors import ImageError, MissingDependencyError, UsageError, nearest_names

if TYPE_CHECKING:
    from types import ModuleType

USUAL_NAMES = ("image", "img", "bytes", "jpg", "jpeg", "png", "path", "file_name", "filename")
"""Of columns of images, the likeliest first."""


def import_pyarrow() -> ModuleType:
    """Return ``pyarrow``, with ``pyarrow.parquet`` in it.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        pyarrow = import_module("pyarrow")
        import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingDependencyError(
            "tables need the package pyarrow: pip install 'onnx-gradcam[batch]'"
        ) from error
    return pyarrow


@dataclass(frozen=True)
class RowImage:
    """An image in a row of a table.

    Attributes:
        name: the path in the table, or ``TABLE#ROW``.
        table: the Parquet file.
        column: where in it the image is.
        group: its row group.
        row: its row in that group.
        root: where relative paths start.
    """

    name: str
    table: str
    column: str
    group: int
    row: int
    root: str | None = None

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            ImageError: there is none in this row, or none where its path points.
        """
        value = _column_of_group(self.table, self.column, self.group)[self.row].as_py()
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes) and value:
            return value
        if not value:
            raise ImageError(f"{self.name}: no image in this row of {self.table}")
        try:
            return Path(os.path.join(self.root or "", value)).read_bytes()  # noqa: PTH118
        except OSError as error:
            raise ImageError(f"cannot read {value}: {error.strerror or error}") from error


def rows_of(table: str, column: str | None, root: str | None) -> Iterator[RowImage]:
    """Yield the images of a table.

    Args:
        table: the Parquet file.
        column: where its images are; None finds it.
        root: where relative paths start.

    Raises:
        UsageError: no such table, no such column, or none that holds images.
    """
    file = _opened(table)
    with file:
        found = _column(file.schema_arrow, table, column)
        paths = _paths_within(file.schema_arrow.field(found))
        number = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            names: Sequence[Any] = [None] * count
            if paths is not None:
                names = _values(file.read_row_group(group, columns=[paths]), paths)
            for row, name in enumerate(names):
                yield RowImage(name or f"{table}#{number}", table, found, group, row, root)
                number += 1


def _opened(table: str) -> Any:
    """Return an open ``pyarrow.parquet.ParquetFile``.

    Raises:
        UsageError: there is none.
    """
    arrow = import_pyarrow()
    try:
        return arrow.parquet.ParquetFile(table)
    except (OSError, arrow.ArrowException) as error:
        raise UsageError(f"cannot read the table {table}: {error}; get it anew") from error


def _column(schema: Any, table: str, wanted: str | None) -> str:
    """Return the name of the column that holds images.

    Raises:
        UsageError: there is none, or it cannot be told which.
    """
    able = [field.name for field in schema if _kind(field.type) is not None]
    if wanted is not None:
        if wanted in able:
            return wanted
        if wanted in schema.names:
            raise UsageError(f"column {wanted!r} of {table} holds neither paths nor bytes")
        raise UsageError(f"no column {wanted!r} in {table}{nearest_names(wanted, schema.names)}")
    usual = [name for name in USUAL_NAMES if name in able]
    if usual or len(able) == 1:
        return (usual or able)[0]
    choice = ", ".join(able) or "none that could be one"
    raise UsageError(f"which column of {table} holds the images? Name it with --column: {choice}")


def _kind(kind: Any) -> str | None:
    """Return ``paths``, ``bytes`` or ``both`` for a type of columns; None for any other."""
    types = import_pyarrow().types
    if types.is_string(kind) or types.is_large_string(kind):
        return "paths"
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "bytes"
    if types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}:
        return "both"
    return None


def _paths_within(field: Any) -> str | None:
    """Return the column, or the part of it, that holds paths; None for bytes alone."""
    name = str(field.name)
    return {"paths": name, "both": f"{name}.path"}.get(_kind(field.type) or "")


def _values(columns: Any, name: str) -> list[Any]:
    """Return the values of a column, or of the part of a structure."""
    outer, _, inner = name.partition(".")
    if name in columns.column_names:
        outer, inner = name, ""
    values = columns.column(outer).to_pylist()
    return [None if v is None else v.get(inner) for v in values] if inner else values


@lru_cache(maxsize=2)
def _column_of_group(table: str, column: str, group: int) -> Any:
    """Return a column of a row group; neighbours ask for the same one.

    Raises:
        ImageError: the table cannot be read any more.
    """
    arrow = import_pyarrow()
    try:
        with _opened(table) as file:
            return file.read_row_group(group, columns=[column]).column(column).combine_chunks()
    except (OSError, arrow.ArrowException, UsageError) as error:
        raise ImageError(f"cannot read {table}: {error}") from error
