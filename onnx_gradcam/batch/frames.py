"""Images in columns of a data frame: a batch of columns in, rows of the table of results out.

For whatever calls a function with one piece of a data set after the other: Ray Data, Spark, Dask,
pandas. There is no folder of results, no manifest and nothing to resume: that is up to the caller.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.batch.options import BatchOptions
from onnx_gradcam.batch.rows import ImageResult
from onnx_gradcam.batch.schema import Row, table_of
from onnx_gradcam.batch.shards import Shard
from onnx_gradcam.batch.sources import FileImage, GivenImage, LostImage, Reference
from onnx_gradcam.batch.tables import PATH_NAMES, USUAL_NAMES
from onnx_gradcam.batch.worker import ShardWorker
from onnx_gradcam.errors import UsageError, nearest_names
from onnx_gradcam.pipeline import divide
from onnx_gradcam.runtime import load
from onnx_gradcam.runtime.photo import allow_pixels

Columns = Mapping[str, Any]
"""Column -> its values: a dict of arrays or lists, a ``pyarrow.Table``, or a pandas data frame."""


class FrameExplainer:
    """Explains images in columns, one batch after the other, with a session of its own."""

    def __init__(
        self,
        exported: str | os.PathLike[str] | bytes,
        options: BatchOptions | None = None,
        *,
        column: str | None = None,
        name: str | None = None,
        number: str | None = None,
        root: str | None = None,
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        """Load an exported file.

        Args:
            exported: path or bytes.
            options: what is wanted; None for the highest score of each image.
            column: where the images are: paths, encoded images, or pixels (uint8, RGB ``(H, W, 3)``
                or grey ``(H, W)``). None finds it by its name.
            name: a column of what the images are called, for the column ``path`` of the results;
                None for the paths of the batch, where it has any, else COLUMN#NUMBER.
            number: a column of whole numbers, for the column ``image`` of the results; None for
                numbers from 0 in each batch, which say nothing across batches.
            root: where relative paths start.
            device: as in `load`.
            threads: how many to use; None for the number of cores.

        Raises:
            UsageError: options that ask for files, which only a folder of results can hold, or what
                `ShardWorker` refuses.
            OnnxGradCamError: what `load` refuses.
        """
        options = options or BatchOptions()
        if options.overlays or options.arrays:
            raise UsageError(
                "overlays and arrays are files in a folder of results, which onnx-gradcam batch"
                " writes; here take thumbnails and raw_maps, which are columns"
            )
        allow_pixels(options.max_pixels)
        division = divide(None, options.method, threads)
        explainer = load(exported, device=device, session_options=division.session_options())
        self._worker = ShardWorker(explainer, options, division.workers_on(explainer.providers))
        self._column, self._name, self._number = column, name, number
        self._root = root

    def __call__(self, batch: Any) -> Any:
        """Return what is known of the images of a batch, as a ``pyarrow.Table``.

        Args:
            batch: its `Columns`.

        Raises:
            UsageError: a column that is not there or holds no images. One image that cannot be
                explained is a row that says why.
        """
        rows: list[Row] = []
        numbers = self._numbers(batch)
        for result in self.results(self._references(batch)):
            for row in result.rows:
                row["image"] = row["image"] if numbers is None else numbers[row["image"]]
            rows += result.rows
        return table_of(rows)

    def results(self, images: Sequence[Reference]) -> Sequence[ImageResult]:
        """Return what becomes of images, in order; they are numbered from 0."""
        return list(self._worker.results(Shard(0, 0, tuple(images))))

    def _references(self, batch: Columns) -> list[Reference]:
        names = _names(batch)
        column = self._column or _found(names)
        values = _values(batch, column)
        called = self._name or next((n for n in PATH_NAMES if n in names and n != column), None)
        if called is None:
            titles = [v if isinstance(v, str) else None for v in values]
        else:
            titles = [None if v is None else str(v) for v in _values(batch, called)]
        numbers = self._numbers(batch) or range(len(values))
        return [
            self._reference(value, title, column, number)
            for value, title, number in zip(values, titles, numbers, strict=True)
        ]

    def _reference(self, value: Any, title: str | None, column: str, number: int) -> Reference:
        if isinstance(value, Mapping):  # as Hugging Face datasets have it
            title = title or value.get("path")
            value = value.get("bytes") or value.get("path")
        name = title or f"{column}#{number}"
        match value:
            case str():
                return FileImage(str(name), str(Path(self._root or "") / value))
            case bytes() | np.ndarray():
                return GivenImage(name, value)
            case bytearray() | memoryview():
                return GivenImage(name, bytes(value))
            case None:
                return LostImage(name, f"no image in the column {column!r}")
        raise UsageError(
            f"the column {column!r} holds {type(value).__name__}: neither paths, encoded images nor"
            " pixels; name another one with column="
        )

    def _numbers(self, batch: Columns) -> list[int] | None:
        if self._number is None:
            return None
        try:
            return [int(value) for value in _values(batch, self._number)]
        except (TypeError, ValueError) as error:
            raise UsageError(f"the column {self._number!r} holds no whole numbers") from error


def _names(batch: Any) -> list[str]:
    """Return the names of the columns of a batch."""
    return list(getattr(batch, "column_names", None) or batch.keys())


def _found(names: Sequence[str]) -> str:
    """Return the column that holds images.

    Raises:
        UsageError: it cannot be told which.
    """
    usual = [name for name in USUAL_NAMES if name in names]
    if usual or len(names) == 1:
        return (usual or names)[0]
    raise UsageError(f"which column holds the images? Name it with column=: {', '.join(names)}")


def _values(batch: Any, name: str) -> list[Any]:
    """Return the values of a column.

    Raises:
        UsageError: there is none, or its values are not what they were.
    """
    names = _names(batch)
    if name not in names:
        raise UsageError(f"no column {name!r} in the batch{nearest_names(name, names)}")
    column = batch[name]
    if isinstance(column, np.ndarray) and column.dtype.kind == "S":
        raise UsageError(
            f"NumPy drops zeros at the end of the bytes in the column {name!r}; make it an array of"
            " dtype object"
        )
    return column.to_pylist() if hasattr(column, "to_pylist") else list(column)
