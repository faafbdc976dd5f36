"""Single values of a column of a table: read forwards in blocks, since neighbours are asked for.

A row group of images may be larger than memory, so it is never there as a whole.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from threading import Lock
from typing import Any

from onnx_gradcam.batch.arrow import (
    import_pyarrow,
    inner_parts,
    opened_table,
    python_values,
    within,
)
from onnx_gradcam.errors import ImageError

BLOCK = 32
"""Rows that are read at a time."""

KEPT_BYTES = 1 << 27
"""So much of what has been read is kept: those who read together are not further apart."""

OPEN = 2
"""Row groups that are read from at a time: over the end of one into the next."""


def value_of(table: str, column: str, group: int, row: int) -> Any:
    """Return one value of a column, as Python has it.

    Args:
        table: the Parquet file.
        column: which column; ``a.b`` for a part of a structure.
        group: a row group.
        row: the row in that group.

    Raises:
        ImageError: the table cannot be read any more, or has no such row.
    """
    key = (table, column, group)
    with _LOCK:
        reader = _READERS.pop(key, None) or _Reader(*key)
        _READERS[key] = reader
        while len(_READERS) > OPEN:
            _, unused = _READERS.popitem(last=False)
            unused.close()
    return reader.value(row)


class _Reader:
    """Reads a column of a row group; what is no longer kept is read anew."""

    def __init__(self, table: str, column: str, group: int) -> None:
        self._table, self._column, self._group = table, column, group
        self._lock = Lock()
        self._forget()

    def close(self) -> None:
        """Forget what has been read; whoever asks once more begins anew."""
        with self._lock:
            self._forget()

    def value(self, row: int) -> Any:
        """Return the value of a row.

        Raises:
            ImageError: it cannot be read.
        """
        with self._lock:
            if self._blocks and row < self._blocks[0][0]:
                self._forget()
            while row >= self._next:
                self._read_on()
            start, values = next(block for block in reversed(self._blocks) if block[0] <= row)
            (value,) = python_values(values.slice(row - start, 1))
        return within(value, self._inner)

    def _forget(self) -> None:
        self._feed: Iterator[Any] | None = None
        self._blocks: deque[tuple[int, Any]] = deque()
        self._inner: tuple[str, ...] = ()
        self._next = self._bytes = 0
        self._failure = ""

    def _read_on(self) -> None:
        """Read the next block.

        Raises:
            ImageError: it cannot be read, or there is none.
        """
        if self._failure:
            raise ImageError(self._failure)
        arrow = import_pyarrow()
        try:
            self._feed = self._feed or self._columns()
            values = next(self._feed)
        except StopIteration:
            self._failure = f"{self._table} has changed while it was read: rows are gone"
        except (OSError, ValueError, KeyError, IndexError, arrow.ArrowException) as error:
            self._failure = f"cannot read {self._table}: {error}"
        if self._failure:
            raise ImageError(self._failure)
        self._blocks.append((self._next, values))
        self._next += len(values)
        self._bytes += values.nbytes
        while self._bytes > KEPT_BYTES and len(self._blocks) > 1:
            self._bytes -= self._blocks.popleft()[1].nbytes

    def _columns(self) -> Iterator[Any]:
        chosen = {"row_groups": [self._group], "columns": [self._column]}
        with opened_table(self._table) as file:
            for batch in file.iter_batches(BLOCK, use_threads=False, **chosen):
                self._inner = inner_parts(batch.schema.names[0], self._column)
                yield batch.column(0)


_READERS: OrderedDict[tuple[str, str, int], _Reader] = OrderedDict()
_LOCK = Lock()
