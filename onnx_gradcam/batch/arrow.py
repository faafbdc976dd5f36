"""pyarrow, imported when it is needed, and what is asked of it here."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from onnx_gradcam.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from types import ModuleType


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


def opened_table(table: str) -> Any:
    """Return an open ``pyarrow.parquet.ParquetFile`` that reads ahead no further than it must.

    Raises:
        UsageError: there is none.
    """
    arrow = import_pyarrow()
    try:
        return arrow.parquet.ParquetFile(table, buffer_size=1 << 20, pre_buffer=False)
    except (OSError, arrow.ArrowException) as error:
        raise UsageError(f"cannot read the table {table}: {error}; get it anew") from error


def python_values(column: Any) -> list[Any]:
    """Return the values of an Arrow array; texts that are no UTF-8 as `os.fsdecode` has them."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast(import_pyarrow().binary()).to_pylist()
        return [None if value is None else os.fsdecode(value) for value in raw]
    return values


def within(value: Any, parts: tuple[str, ...]) -> Any:
    """Return what is inside nested structures, None where one of them is missing."""
    for part in parts:
        value = None if value is None else value.get(part)
    return value


def inner_parts(outer: str, column: str) -> tuple[str, ...]:
    """Return what to look up in the column `outer` for what is called ``outer.a.b``."""
    return () if column == outer else tuple(column[len(outer) + 1 :].split("."))
