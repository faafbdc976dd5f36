"""Which images there are: folders, globs, lists, Parquet tables and tars in, references out.

A reference is small, can be sent to another process, and reads its image when it is wanted.
"""

from __future__ import annotations

import glob
import os
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from onnx_gradcam.batch.tables import RowImage, rows_of
from onnx_gradcam.errors import ImageError, UsageError
from onnx_gradcam.photo_files import ENDINGS, is_photo

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class FileImage:
    """An image file.

    Attributes:
        name: what it is called in the results.
        file: where it is.
    """

    name: str
    file: str

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            ImageError: there is none.
        """
        try:
            return Path(self.file).read_bytes()
        except OSError as error:
            raise ImageError(f"cannot read {self.name}: {error.strerror or error}") from error


@dataclass(frozen=True)
class TarImage:
    """An image in a tar that is not compressed, such as those of a webdataset.

    Attributes:
        name: ``TAR/MEMBER``.
        tar: the archive.
        offset: where in it the image begins.
        size: how many bytes it has.
    """

    name: str
    tar: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            ImageError: the tar is gone or cut short.
        """
        try:
            with Path(self.tar).open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise ImageError(f"cannot read {self.name}: {error.strerror or error}") from error
        if len(data) < self.size:
            raise ImageError(f"{self.name}: the tar ends within this image")
        return data


Reference = FileImage | TarImage | RowImage


@dataclass(frozen=True)
class Sources:
    """Where the images come from.

    Attributes:
        inputs: image files, folders, globs, lists (``.txt``), tables (``.parquet``), tars, or
            ``-`` for a list on standard input.
        column: of a table: where its images are, as paths or encoded; None finds it.
        root: where relative paths in lists and tables start; None for the current folder.
    """

    inputs: tuple[str, ...]
    column: str | None = None
    root: str | None = None

    def references(self) -> Iterator[Reference]:
        """Yield the images, always in the same order.

        Raises:
            UsageError: an input that is not there, is damaged, or holds no images.
        """
        for one in self.inputs:
            found = False
            for reference in self._of(one):
                found = True
                yield reference
            if not found:
                raise UsageError(f"no images in {one}")

    def _of(self, one: str) -> Iterator[Reference]:
        if one == STANDARD_INPUT:
            return self._listed(sys.stdin.read().splitlines())
        if Path(one).exists():
            return self._in_path(one)
        matches = sorted(glob.glob(one, recursive=True)) if glob.has_magic(one) else []  # noqa: PTH207
        if not matches:
            kind = "matches nothing" if glob.has_magic(one) else "does not exist"
            raise UsageError(f"input {one} {kind}")
        return (reference for match in matches for reference in self._in_path(match))

    def _in_path(self, path: str) -> Iterator[Reference]:
        if Path(path).is_dir():
            return _in_folder(path)
        opener = _KINDS.get(Path(path).suffix.lower())
        return iter([FileImage(path, path)]) if opener is None else opener(self, path)

    def _in_list(self, path: str) -> Iterator[Reference]:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the list {path}: {error}") from error
        return self._listed(lines)

    def _listed(self, lines: Sequence[str]) -> Iterator[Reference]:
        for line in lines:
            if line.strip():
                yield FileImage(line, os.path.join(self.root or "", line))  # noqa: PTH118

    def _in_table(self, path: str) -> Iterator[Reference]:
        return rows_of(path, self.column, self.root)

    def _compressed(self, path: str) -> Iterator[Reference]:
        raise UsageError(
            f"{path} is compressed: nothing in it can be found without unpacking all before it;"
            f" unpack it to a plain tar first: gunzip {path}"
        )


def _in_folder(folder: str) -> Iterator[Reference]:
    """Yield the images in a folder and those below it; links to folders are not followed."""
    for place, below, files in os.walk(folder):
        below.sort()
        for name in sorted(files):
            path = Path(place) / name
            if is_photo(path):
                yield FileImage(str(path), str(path))


def _in_tar(_sources: Sources, path: str) -> Iterator[Reference]:
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined] # it remembers all, for nothing
                if member.isreg() and PurePosixPath(member.name).suffix.lower() in ENDINGS:
                    name = f"{path}/{member.name}"
                    yield TarImage(name, path, member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise UsageError(f"cannot read the tar {path}: {error}; get it anew") from error


_KINDS: dict[str, Callable[[Sources, str], Iterator[Reference]]] = {
    ".txt": Sources._in_list,
    ".lst": Sources._in_list,
    ".parquet": Sources._in_table,
    ".tar": _in_tar,
    ".tgz": Sources._compressed,
    ".gz": Sources._compressed,
    ".xz": Sources._compressed,
    ".bz2": Sources._compressed,
}
"""Ending -> what finds the images in such a file; any other is an image itself."""
