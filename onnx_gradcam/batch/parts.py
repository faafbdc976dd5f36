"""A folder of results: a part for each shard, put in place whole, and which of them are there.

A shard is finished when its part of the table has its name, which comes last; what a killed run has
left of another is written over.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from onnx_gradcam.batch import layout
from onnx_gradcam.batch.arrow import import_pyarrow
from onnx_gradcam.batch.layout import PARTS as PARTS
from onnx_gradcam.batch.layout import part_path
from onnx_gradcam.batch.locks import Lock
from onnx_gradcam.batch.worker import ShardResult
from onnx_gradcam.errors import OutputError
from onnx_gradcam.files import make_folder, write_whole

_KEY = b"onnx_gradcam"


@dataclass(frozen=True)
class Part:
    """A finished shard.

    Attributes:
        file: its part of the table.
        digest: of the names of its images.
        images: how many it has.
        errors: how many of them failed.
        rows: how many rows it has.
    """

    file: Path
    digest: str
    images: int
    errors: int
    rows: int


class ResultFolder:
    """Where results go. Of several processes, one at a time."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, create it, and keep other processes out of it.

        Raises:
            OutputError: it cannot be written to, or another process writes to it.
        """
        make_folder(folder)
        self.folder = folder
        self._lock = Lock(folder / layout.LOCK)

    def close(self) -> None:
        """Let other processes in."""
        self._lock.close()

    def clear(self, *, coco: bool) -> None:
        """Remove all results of a batch, and nothing else; the manifest last.

        Args:
            coco: also ``coco.json``, which is of this batch.

        Raises:
            OutputError: one of them cannot be removed.
        """
        try:
            if coco:
                (self.folder / layout.COCO).unlink(missing_ok=True)
            for name in layout.FOLDERS:
                for place, _, files in os.walk(self.folder / name, topdown=False):
                    for file in (Path(place, one) for one in files):
                        if self._is_ours(file):
                            file.unlink()
                    with suppress(OSError):  # what is not ours is still there
                        Path(place).rmdir()
            (self.folder / layout.MANIFEST).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot remove {error.filename}: {error.strerror}") from error

    def tidy(self) -> None:
        """Remove what a killed run was just writing."""
        places = [self.folder, *(self.folder / name for name in (PARTS, layout.ARRAYS))]
        places += filter(self._is_unfinished, (self.folder / layout.OVERLAYS).glob("*"))
        for place in places:
            for file in place.glob(".*.tmp"):
                if self._is_ours(file):
                    with suppress(OSError):
                        file.unlink()

    def _is_ours(self, file: Path) -> bool:
        path = file.relative_to(self.folder)
        return layout.is_result(path) or layout.is_draft(path)

    def _is_unfinished(self, pictures: Path) -> bool:
        name = pictures.name
        return name.isdigit() and not (self.folder / part_path(int(name))).exists()

    def save(self, path: str, data: bytes) -> None:
        """Write a file of results; one of an unfinished shard is replaced.

        Raises:
            WriteError: the disk is full.
        """
        place = self.folder / path
        make_folder(place.parent)
        # pictures are many: those of the last seconds are all that a power cut can cost
        lasting = not path.startswith(layout.OVERLAYS)
        write_whole(place, data, force=True, lasting=lasting)

    def commit(self, result: ShardResult) -> None:
        """Put a shard's part of the table in place.

        Raises:
            WriteError: the disk is full; nothing is left of the part then.
        """
        facts = {"digest": result.digest, "images": result.images, "errors": result.errors}
        table = result.table.replace_schema_metadata({_KEY: json.dumps(facts).encode()})
        buffer = io.BytesIO()
        import_pyarrow().parquet.write_table(table, buffer, compression="zstd")
        self.save(part_path(result.number), buffer.getvalue())

    def finished(self, number: int) -> Part | None:
        """Return a shard's part; None where it is not there, or damaged."""
        return read_part(self.folder / part_path(number))

    def parts(self) -> Iterator[Part]:
        """Yield all parts, in order."""
        yield from parts_of(self.folder)


def parts_of(folder: Path) -> Iterator[Part]:
    """Yield the parts in a folder of results, in order."""
    for file in sorted((folder / PARTS).glob("part-*.parquet"), key=_number):
        part = read_part(file)
        if part is not None:
            yield part


def read_part(file: Path) -> Part | None:
    """Return what a part says of itself; None where there is none, or a damaged one."""
    arrow = import_pyarrow()
    try:
        found = arrow.parquet.read_metadata(file)
        facts = json.loads((found.metadata or {})[_KEY])
        return Part(file, facts["digest"], facts["images"], facts["errors"], found.num_rows)
    except (OSError, arrow.ArrowException, KeyError, TypeError, ValueError):
        return None


def _number(file: Path) -> int:
    digits = file.stem.removeprefix("part-")
    return int(digits) if digits.isdigit() else -1
