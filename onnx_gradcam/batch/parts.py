"""A folder of results: a part for each shard, put in place whole, and which of them are there.

A shard is finished when its part of the table has its name, which comes last; what a killed run has
left of another is written over.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_gradcam.batch.tables import import_pyarrow
from onnx_gradcam.batch.worker import ShardResult
from onnx_gradcam.errors import OutputError
from onnx_gradcam.files import make_folder, write_whole

PARTS = "parts"
FOLDERS = (PARTS, "overlays", "arrays")
FILES = ("manifest.json", "coco.json")
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
        self._lock = _locked(folder / ".lock")

    def close(self) -> None:
        """Let other processes in."""
        self._lock.close()
        with suppress(OSError):
            (self.folder / ".lock").unlink()

    def clear(self) -> None:
        """Remove all results of a batch; nothing else."""
        for name in FOLDERS:
            for file in sorted((self.folder / name).rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
        for name in FILES:
            (self.folder / name).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what a killed run was just writing."""
        for file in self.folder.rglob(".*.tmp"):
            with suppress(OSError):
                file.unlink()

    def save(self, path: str, data: bytes) -> None:
        """Write a file of results; one of an unfinished shard is replaced.

        Raises:
            WriteError: the disk is full.
        """
        place = self.folder / path
        make_folder(place.parent)
        write_whole(place, data, force=True)

    def commit(self, result: ShardResult) -> None:
        """Put a shard's part of the table in place.

        Raises:
            WriteError: the disk is full; nothing is left of the part then.
        """
        facts = {"digest": result.digest, "images": result.images, "errors": result.errors}
        table = result.table.replace_schema_metadata({_KEY: json.dumps(facts).encode()})
        buffer = io.BytesIO()
        import_pyarrow().parquet.write_table(table, buffer, compression="zstd")
        self.save(str(self._part(result.number)), buffer.getvalue())

    def finished(self, number: int) -> Part | None:
        """Return a shard's part; None where it is not there, or damaged."""
        return read_part(self.folder / self._part(number))

    def parts(self) -> Iterator[Part]:
        """Yield all parts, in order."""
        yield from parts_of(self.folder)

    @staticmethod
    def _part(number: int) -> Path:
        return Path(PARTS, f"part-{number:06d}.parquet")


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
    except (OSError, arrow.ArrowException, KeyError, ValueError):
        return None
    return Part(file, facts["digest"], facts["images"], facts["errors"], found.num_rows)


def _number(file: Path) -> int:
    digits = file.stem.removeprefix("part-")
    return int(digits) if digits.isdigit() else -1


def _locked(path: Path) -> Any:
    """Return an open file that keeps other processes out; it lets them in when it is closed.

    Raises:
        OutputError: another process holds it.
    """
    file = path.open("w")
    try:
        import fcntl
    except ImportError:  # not on this system
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise OutputError(f"another process writes to {path.parent}; wait for it") from error
    return file
