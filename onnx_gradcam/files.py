"""Result files, whole or not at all: bytes in, a file of the final name out."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from onnx_gradcam.errors import OutputError, WriteError

DEVICE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}
"""The disk is full or broken; anything else is a matter of the path that was given."""


def refuse_existing(path: Path, force: bool) -> None:
    """Check that a file may be written.

    Raises:
        OutputError: it exists, and `force` is not given.
    """
    if not force and (path.exists() or path.is_symlink()):
        raise OutputError(f"{path} exists; replace it with --force")


def make_folder(folder: Path) -> None:
    """Create a folder for results, with the folders above it; it may exist.

    Raises:
        OutputError: it cannot be created, is no folder, or cannot be written to.
        WriteError: the disk is full or the device failed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        kind = WriteError if error.errno in DEVICE_ERRORS else OutputError
        raise kind(f"cannot create the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to the folder {folder}")


def write_whole(
    path: Path, data: bytes | Iterable[bytes], *, force: bool = False, lasting: bool = False
) -> None:
    """Write a file under a hidden name beside `path`, then give it its name.

    Args:
        path: the file.
        data: what is in it, as a whole or piece by piece.
        force: it may exist.
        lasting: wait until it is on the disk, so that it outlives a power cut.

    Raises:
        OutputError: it exists (without `force`), or the folder cannot be written to.
        WriteError: the disk is full or the device failed; nothing is left behind.
    """
    refuse_existing(path, force)
    draft = path.with_name(f".{path.name[:200]}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            for piece in [data] if isinstance(data, bytes) else data:
                file.write(piece)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        kind = WriteError if error.errno in DEVICE_ERRORS else OutputError
        raise kind(f"cannot write {path}: {error.strerror}") from error
