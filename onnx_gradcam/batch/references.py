"""References to images: small, can be sent to another process, read their image when it is wanted.

`RowImage` in `tables` is another.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any, BinaryIO

from numpy.typing import NDArray

from onnx_gradcam.errors import ImageError

MOST_BYTES = 2**31 - 1
"""OpenCV decodes no larger files."""


@dataclass(frozen=True)
class FileImage:
    """An image file.

    Attributes:
        name: what it is called in the results.
        file: where it is.
    """

    name: str
    file: str

    @property
    def identity(self) -> str:
        """What must not change from one run to the next."""
        return self.name

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            ImageError: there is none.
        """
        with opened(self.file, self.name) as file:
            return file_bytes(file, self.name)


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

    @property
    def identity(self) -> str:
        """What must not change from one run to the next."""
        return f"{self.name}\0{self.offset}\0{self.size}"

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            ImageError: the tar is gone or cut short.
        """
        with opened(self.tar, self.name) as file:
            data = file_bytes(file, self.name, self.offset, self.size)
        if len(data) < self.size:
            raise ImageError(f"{self.name}: the tar ends within this image")
        return data


@dataclass(frozen=True)
class LostImage:
    """An image that is known to be none, or not to be had.

    Attributes:
        name: what it is called in the results.
        reason: what is wrong with it.
    """

    name: str
    reason: str

    @property
    def identity(self) -> str:
        """What must not change from one run to the next."""
        return self.name

    def read(self) -> bytes:
        """Return nothing.

        Raises:
            ImageError: always.
        """
        raise ImageError(self.reason)


@dataclass(frozen=True, eq=False)
class GivenImage:
    """An image that is in memory already.

    Attributes:
        name: what it is called in the results.
        content: encoded, or its pixels as `read_photo` takes them.
    """

    name: str
    content: bytes | NDArray[Any]

    @property
    def identity(self) -> str:
        """What must not change from one run to the next."""
        return self.name

    def read(self) -> bytes | NDArray[Any]:
        """Return the image."""
        return self.content


def opened(path: str, name: str) -> BinaryIO:
    """Return a file, open for reading; never waits, as opening a pipe does.

    Args:
        path: the file.
        name: what the image in it is called.

    Raises:
        ImageError: there is none, or it is no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _NEVER_WAIT)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise ImageError(f"cannot read {name}: {_reason(error)}") from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise ImageError(f"cannot read {name}: a folder, pipe or device, not a file")


def file_bytes(file: BinaryIO, name: str, offset: int = 0, size: int | None = None) -> bytes:
    """Return what is in an open file, from a place on, as far as it goes.

    Raises:
        ImageError: it cannot be read, or is larger than any image that can be decoded.
    """
    try:
        there = max(os.fstat(file.fileno()).st_size - offset, 0)
        length = there if size is None else min(size, there)
        if length > MOST_BYTES:
            raise ImageError(f"{name}: {length} bytes, more than an image that can be decoded has")
        file.seek(offset)
        # not -1, which takes what has been added since: a file that grows without end
        return file.read(length)
    except OSError as error:
        raise ImageError(f"cannot read {name}: {_reason(error)}") from error


_NEVER_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
