"""The images in a tar: found by its headers alone, where they lie in it."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO

from onnx_gradcam.batch.references import LostImage, TarImage, opened
from onnx_gradcam.errors import ImageError, UsageError
from onnx_gradcam.photo_files import ENDINGS

SEARCHED_BEHIND_THE_END = 1 << 21
"""A tar is filled up with zeros to a multiple of some record; those of GNU tar are at most this."""

CHUNK = 1 << 16


def images_in_tar(path: str) -> Iterator[TarImage | LostImage]:
    """Yield the images in a tar, in its order; of anything else in it, nothing.

    Links are followed within the tar.

    Raises:
        UsageError: no tar, or a damaged one.
    """
    try:
        file = opened(path, path)
    except ImageError as error:
        raise UsageError(str(error)) from error
    with file:
        tar = _Tar(path, file)
        for member in tar.members():
            if PurePosixPath(member.name).suffix.lower() in ENDINGS and not member.isdir():
                yield tar.image(member)
        tar.check_end()


class _Tar:
    """A tar that is being read."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._end = 0
        self._places: dict[str, tarfile.TarInfo] | None = None

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Yield what is in it.

        Raises:
            UsageError: it is damaged.
        """
        try:
            self._file.seek(0)
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined] # it remembers all, for nothing
                    yield member
                self._end = tar.offset
        except (OSError, tarfile.TarError, ValueError, OverflowError, MemoryError) as error:
            raise self._damaged(str(error)) from error

    def image(self, member: tarfile.TarInfo) -> TarImage | LostImage:
        """Return a member as an image."""
        name = f"{self._path}/{member.name}"
        found: tarfile.TarInfo | None = member
        if member.islnk():
            found = self._place_of(member.linkname)
        elif member.issym():
            folder = posixpath.dirname(member.name)
            found = self._place_of(posixpath.normpath(posixpath.join(folder, member.linkname)))
        if found is None:
            return LostImage(name, f"a link to {member.linkname}, which is no file of the tar")
        if found.issparse():
            return LostImage(name, "stored with holes; pack the tar anew without --sparse")
        if not found.isreg():
            return LostImage(name, "a pipe or device, not a file")
        return TarImage(name, self._path, found.offset_data, found.size)

    def check_end(self) -> None:
        """Check that what ended the list of members was the end of the tar.

        Raises:
            UsageError: it was a damaged header, or there is more behind it.
        """
        self._file.seek(self._end)
        for _ in range(0, SEARCHED_BEHIND_THE_END, CHUNK):
            chunk = self._file.read(CHUNK)
            if any(chunk):
                raise self._damaged(
                    f"something that is no header at byte {self._end}, or another tar behind it"
                )
            if not chunk:
                return

    def _place_of(self, name: str) -> tarfile.TarInfo | None:
        """Return a file of the tar; where there is a link at all, all are looked up once."""
        if self._places is None:
            every = _Tar(self._path, self._file).members()
            self._places = {member.name: member for member in every if member.isreg()}
        return self._places.get(name)

    def _damaged(self, what: str) -> UsageError:
        return UsageError(f"cannot read the tar {self._path}: {what}; get it anew")
