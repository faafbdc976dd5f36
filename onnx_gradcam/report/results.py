"""Folders of results, read: what the batch says of itself, and the rows of some of its images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.batch.manifest import FORMAT, NAME, read_manifest
from onnx_gradcam.batch.parts import PARTS, Part, parts_of
from onnx_gradcam.batch.schema import COLUMNS, Row
from onnx_gradcam.batch.tables import import_pyarrow
from onnx_gradcam.errors import UsageError

UNUSED = {"rle", "overlay", "area"}
"""Columns that the page does not show."""

SHOWN_FAILURES = 1000
"""Failures that the page lists; of more it tells the number."""

_SECTIONS = ("model", "options", "sources")


@dataclass(frozen=True)
class ImageRows:
    """An image of a batch.

    Attributes:
        number: of the image in the batch.
        path: what it is called.
        rows: a row for each explained class, the first rank first; empty where it failed.
        error: why it failed; empty where it did not.
    """

    number: int
    path: str
    rows: tuple[Row, ...]
    error: str = ""


@dataclass(frozen=True)
class Results:
    """A folder of results.

    Attributes:
        folder: where it is.
        manifest: what it says of itself.
        parts: the parts of its table, in order.
    """

    folder: Path
    manifest: Mapping[str, Any]
    parts: tuple[Part, ...]

    @property
    def method(self) -> str:
        """Name of the CAM method."""
        return str(self.manifest["options"]["method"])

    @property
    def images(self) -> int:
        """How many images there are."""
        return sum(part.images for part in self.parts)

    @property
    def errors(self) -> int:
        """How many of them failed."""
        return sum(part.errors for part in self.parts)

    def spread(self, limit: int) -> list[ImageRows]:
        """Return explained images, at most so many: every image, or every n-th one of all.

        Raises:
            UsageError: a part is damaged.
        """
        numbers = np.concatenate([np.empty(0, np.int64), *self._explained_numbers()])
        if len(numbers) > limit:
            numbers = numbers[np.arange(limit) * len(numbers) // limit]
        return list(self._images("image", numbers.tolist()))

    def of_paths(self, paths: Sequence[str]) -> dict[str, ImageRows]:
        """Return the images of these paths that are here; of several of a path the first.

        Raises:
            UsageError: a part is damaged.
        """
        found: dict[str, ImageRows] = {}
        for image in self._images("path", sorted(set(paths))):
            found.setdefault(image.path, image)
        return found

    def failures(self) -> list[ImageRows]:
        """Return images that failed, the first `SHOWN_FAILURES` of them.

        Raises:
            UsageError: a part is damaged.
        """
        failed: list[ImageRows] = []
        for part in self.parts:
            if part.errors and len(failed) < SHOWN_FAILURES:
                table = _read(part, ["image", "path", "error"])
                rows = table.filter(table["error"].is_valid()).to_pylist()
                failed += _grouped(rows)
        return failed[:SHOWN_FAILURES]

    def _explained_numbers(self) -> Iterator[NDArray[np.int64]]:
        for part in self.parts:
            table = _read(part, ["image", "error"])
            yield np.unique(table.filter(table["error"].is_null())["image"].to_numpy())

    def _images(self, column: str, values: Sequence[Any]) -> Iterator[ImageRows]:
        arrow, compute = import_pyarrow(), import_module("pyarrow.compute")
        wanted = arrow.array(values, getattr(arrow, COLUMNS[column].type)())
        for part in self.parts:
            table = _read(part, [name for name in COLUMNS if name not in UNUSED])
            chosen = compute.is_in(table[column], value_set=wanted)
            yield from _grouped(table.filter(chosen).to_pylist())


def read_results(folder: Path) -> Results:
    """Return a folder of results that `onnx-gradcam batch` wrote, finished or not.

    Raises:
        UsageError: it is none, it is empty, damaged, or of another release.
        MissingDependencyError: pyarrow is not installed.
    """
    import_pyarrow()
    if not folder.is_dir():
        kind = "is no folder" if folder.exists() else "does not exist"
        raise UsageError(f"{folder} {kind}; name a folder that onnx-gradcam batch wrote")
    manifest = read_manifest(folder)
    if manifest is None:
        raise UsageError(
            f"{folder} holds no results: there is no {NAME} in it; onnx-gradcam batch writes one"
        )
    _check(manifest, folder)
    parts = tuple(parts_of(folder))
    _check_parts(parts, manifest, folder)
    return Results(folder, manifest, parts)


def _check(manifest: Mapping[str, Any], folder: Path) -> None:
    place = folder / NAME
    if manifest.get("format") != FORMAT:
        raise UsageError(
            f"{place} is of format {manifest.get('format')!r}, and this release reads {FORMAT};"
            " run onnx-gradcam batch again, or take the release that wrote it"
        )
    missing = [name for name in _SECTIONS if not isinstance(manifest.get(name), dict)]
    missing += [] if missing or "method" in manifest["options"] else ["options.method"]
    if missing:
        raise UsageError(
            f"{place} is incomplete: no {', '.join(missing)}; run onnx-gradcam batch again"
        )


def _check_parts(parts: Sequence[Part], manifest: Mapping[str, Any], folder: Path) -> None:
    readable = {part.file for part in parts}
    files = sorted((folder / PARTS).glob("part-*.parquet"))
    damaged = [file for file in files if file not in readable]
    again = "run the same onnx-gradcam batch again, which makes it anew"
    if damaged:
        raise UsageError(f"{damaged[0]} is damaged; {again}")
    if not parts:
        raise UsageError(f"{folder} holds no finished part yet; wait for the first one")
    expected = manifest.get("parts") if manifest.get("complete") else None
    if expected not in {None, len(parts)}:
        raise UsageError(
            f"{folder} holds {len(parts)} parts, and its {NAME} says {expected}; {again}"
        )


def _read(part: Part, columns: Sequence[str]) -> Any:
    """Return columns of a part as a ``pyarrow.Table``.

    Raises:
        UsageError: it is damaged.
    """
    arrow = import_pyarrow()
    try:
        return arrow.parquet.read_table(part.file, columns=list(columns))
    except (OSError, arrow.ArrowException) as error:
        raise UsageError(
            f"cannot read {part.file}: {error}; remove it, and run the same onnx-gradcam batch"
            " again, which makes it anew"
        ) from error


def _grouped(rows: Sequence[Row]) -> Iterator[ImageRows]:
    """Yield images; the rows of each follow one another."""
    start = 0
    for end in range(1, len(rows) + 1):
        if end < len(rows) and rows[end]["image"] == rows[start]["image"]:
            continue
        first = rows[start]
        error = first["error"] or ""
        own = () if error else tuple(sorted(rows[start:end], key=itemgetter("rank")))
        yield ImageRows(first["image"], first["path"], own, error)
        start = end
