"""Which images there are: folders, globs, lists, Parquet tables and tars in, references out."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import BinaryIO

from onnx_gradcam.batch.layout import is_result
from onnx_gradcam.batch.lists import names_in
from onnx_gradcam.batch.matches import matches_of, refuse_unlisted
from onnx_gradcam.batch.references import FileImage as FileImage
from onnx_gradcam.batch.references import GivenImage as GivenImage
from onnx_gradcam.batch.references import LostImage as LostImage
from onnx_gradcam.batch.references import TarImage as TarImage
from onnx_gradcam.batch.references import opened
from onnx_gradcam.batch.tables import RowImage, rows_of
from onnx_gradcam.batch.tars import images_in_tar
from onnx_gradcam.errors import ImageError, UsageError
from onnx_gradcam.photo_files import is_photo

STANDARD_INPUT = "-"

Reference = FileImage | TarImage | RowImage | LostImage | GivenImage


@dataclass(frozen=True)
class Sources:
    """Where the images come from.

    Attributes:
        inputs: image files, folders, globs, lists (``.txt``), tables (``.parquet``), tars, or
            ``-`` for a list on standard input.
        column: of a table: where its images are, as paths or encoded; None finds it.
        root: where relative paths in lists and tables start; None for the current folder.
        results: a folder of results; what a batch has written there is no image.
    """

    inputs: tuple[str, ...]
    column: str | None = None
    root: str | None = None
    results: str | None = None

    def beside(self, results: Path) -> Sources:
        """Return the same, without what a batch writes to a folder of results."""
        return replace(self, results=str(results))

    def references(self) -> Iterator[Reference]:
        """Yield the images, always in the same order.

        Raises:
            UsageError: an input that is not there, is damaged, or holds no images.
        """
        if not self.inputs:
            raise UsageError("no inputs; name images, folders, lists, tables or tars")
        for one in self.inputs:
            found = False
            for reference in self._of(one):
                found = True
                yield reference
            if not found:
                raise UsageError(f"no images in {one}{_hint(one)}")

    def _of(self, one: str) -> Iterator[Reference]:
        if one == STANDARD_INPUT:
            return self._listed(sys.stdin.buffer, "the list on standard input")
        if os.path.exists(one):  # noqa: PTH110 # Path.exists takes "" for the current folder
            return self._in_path(one)
        if not glob.has_magic(one):
            raise UsageError(f"input {one or repr(one)} does not exist")
        matches = self._without_results(matches_of(one))
        if not matches:
            raise UsageError(f"input {one} matches nothing")
        return (reference for match in matches for reference in self._in_path(match))

    def _in_path(self, path: str) -> Iterator[Reference]:
        if Path(path).is_dir():
            return _in_folder(path)
        opener = _KINDS.get(Path(path).suffix.lower())
        if opener is None:
            return iter([FileImage(path, path)])
        if not Path(path).is_file():
            raise UsageError(f"{path} is no file that can be read twice; give a list as -")
        return opener(self, path)

    def _in_list(self, path: str) -> Iterator[Reference]:
        try:
            file = opened(path, path)
        except ImageError as error:
            raise UsageError(f"{error}") from error
        with file:
            yield from self._listed(file, f"the list {path}")

    def _listed(self, file: BinaryIO, called: str) -> Iterator[Reference]:
        try:
            for name in names_in(file, called):
                yield FileImage(name, os.path.join(self.root or "", name))  # noqa: PTH118
        except OSError as error:
            raise UsageError(f"cannot read {called}: {error.strerror or error}") from error

    def _in_table(self, path: str) -> Iterator[Reference]:
        return rows_of(path, self.column, self.root)

    def _in_tar(self, path: str) -> Iterator[Reference]:
        return images_in_tar(path)

    def _compressed(self, path: str) -> Iterator[Reference]:
        raise UsageError(
            f"{path} is compressed: nothing in it can be found without unpacking all before it;"
            f" unpack it to a plain tar first: gunzip {path}"
        )

    def _without_results(self, matches: Sequence[str]) -> list[str]:
        if self.results is None:
            return list(matches)
        folder = os.path.join(os.path.realpath(self.results), "")  # noqa: PTH118
        places: dict[str, str] = {}
        kept = []
        for match in matches:
            place, name = os.path.split(match)
            if place not in places:  # asking the disk takes a while
                places[place] = os.path.join(os.path.realpath(place), "")  # noqa: PTH118
            file = places[place] + name
            if not (file.startswith(folder) and is_result(PurePath(file.removeprefix(folder)))):
                kept.append(match)
        return kept


def _in_folder(folder: str) -> Iterator[Reference]:
    """Yield the images in a folder and those below it; links to folders are not followed.

    Raises:
        UsageError: one of the folders cannot be listed.
    """
    for place, below, files in os.walk(folder, onerror=refuse_unlisted):
        below.sort()
        for name in sorted(filter(is_photo, files)):
            path = os.path.join(place, name)  # noqa: PTH118 # a Path takes ten times as long
            yield FileImage(path, path)


def _hint(one: str) -> str:
    """Return what may have been meant by a folder without images."""
    try:
        endings = {Path(name).suffix.lower() for name in os.listdir(one)}  # noqa: PTH208
    except OSError:
        return ""
    kinds = [kind for kind in (".parquet", ".tar") if kind in endings]
    return f"; for the files in it: '{one.rstrip(os.sep)}/*{kinds[0]}'" if kinds else ""


_KINDS: dict[str, Callable[[Sources, str], Iterator[Reference]]] = {
    ".txt": Sources._in_list,
    ".lst": Sources._in_list,
    ".parquet": Sources._in_table,
    ".tar": Sources._in_tar,
    ".tgz": Sources._compressed,
    ".gz": Sources._compressed,
    ".xz": Sources._compressed,
    ".bz2": Sources._compressed,
}
"""Ending -> what finds the images in such a file; any other is an image itself."""
