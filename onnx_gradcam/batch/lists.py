"""Names in a list: bytes in, names out, one at a time, so that lists may be of any length."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from typing import BinaryIO

from onnx_gradcam.errors import UsageError

PIECE = 1 << 16
LONGEST = 1 << 16
"""No name has as many bytes."""

OTHERS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def names_in(file: BinaryIO, called: str) -> Iterator[str]:
    """Yield the names in a list: one a line, or between NUL bytes, as of ``find -print0``.

    Bytes that are no UTF-8 are kept as `os.fsdecode` has them.

    Args:
        file: the list.
        called: what it is called in errors.

    Raises:
        UsageError: it is in UTF-16, or no list.
    """
    piece = file.read(PIECE)
    if piece.startswith(OTHERS):
        raise UsageError(f"{called} is in UTF-16; write it as UTF-8")
    end = b"\0" if b"\0" in piece else b"\n"
    rest = b""
    piece = piece.removeprefix(codecs.BOM_UTF8)
    while piece:
        *whole, rest = (rest + piece).split(end)
        yield from _decoded(whole, end)
        if len(rest) > LONGEST:
            raise UsageError(f"{called} is no list of names: none of them ends")
        piece = file.read(PIECE)
    yield from _decoded([rest], end)


def _decoded(names: list[bytes], end: bytes) -> Iterator[str]:
    for name in names:
        bare = name.removesuffix(b"\r") if end == b"\n" else name
        if bare.strip():
            yield os.fsdecode(bare)
