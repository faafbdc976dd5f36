"""Keeps other processes out of a folder of results."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from onnx_gradcam.errors import OutputError, WriteError
from onnx_gradcam.files import DEVICE_ERRORS

HELD = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK}
"""Somebody else has the lock; anything else is a file system that knows no locks."""


class Lock:
    """A lock on a file; the file is there as long as somebody holds it, or was killed doing so."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            OutputError: another process holds it, or the file cannot be written.
            WriteError: the disk is full.
        """
        self._path = path
        self._file = self._taken()
        while not self._is_still_there():  # whoever had it has just removed it
            self._file.close()
            self._file = self._taken()

    def close(self) -> None:
        """Remove the file and let others in, in this order: they look whether theirs is there."""
        try:
            with suppress(OSError):
                self._path.unlink()
        finally:
            self._file.close()

    def _taken(self) -> IO[str]:
        try:
            file = self._path.open("a")
        except OSError as error:
            kind = WriteError if error.errno in DEVICE_ERRORS else OutputError
            raise kind(f"cannot write to {self._path.parent}: {error.strerror}") from error
        try:
            import fcntl
        except ImportError:  # not on this system
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                file.close()
                raise OutputError(
                    f"another process writes to {self._path.parent}; wait for it"
                ) from error
        return file

    def _is_still_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except OSError:
            return False
