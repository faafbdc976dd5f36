"""Protobuf's wire format: the fields of a message in, their spans out; and back again.

Source: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from onnx_gradcam.errors import InvalidModelError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types; groups (3 and 4) occur in no ONNX file."""

FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
"""Bytes of the values of such wire types."""

LONGEST_VARINT = 10
"""Bytes of the longest varint that there is, each with seven bits of it."""


class Span(NamedTuple):
    """Bytes ``start`` to ``end`` of a file."""

    start: int
    end: int


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: which field it is.
        whole: where it lies, its tag included.
        body: where its value lies, without tag and length.
        value: of a varint; 0 for other wire types.
    """

    number: int
    whole: Span
    body: Span
    value: int


def fields(data: memoryview, within: Span) -> Iterator[Field]:
    """Yield the fields of the message that fills a span.

    Raises:
        InvalidModelError: the bytes end within a field, or are no message.
    """
    position = within.start
    while position < within.end:
        start = position
        tag, position = read_varint(data, position, within.end)
        number, kind = tag >> 3, tag & 7
        value = 0
        if kind == VARINT:
            begin = position
            value, position = read_varint(data, position, within.end)
        elif kind == BYTES:
            length, begin = read_varint(data, position, within.end)
            position = begin + length
        elif kind in FIXED_SIZES:
            begin = position
            position += FIXED_SIZES[kind]
        else:
            raise InvalidModelError(_damage(start, f"wire type {kind}"))
        if position > within.end or not number:
            raise InvalidModelError(_damage(start, f"field {number} ends behind its message"))
        yield Field(number, Span(start, position), Span(begin, position), value)


def read_varint(data: memoryview | bytes, position: int, end: int) -> tuple[int, int]:
    """Return an unsigned number and where the next byte is.

    Raises:
        InvalidModelError: it has no end.
    """
    value = shift = 0
    start = position
    while position < end and shift < 7 * LONGEST_VARINT:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise InvalidModelError(_damage(start, "a number without end"))


def _damage(position: int, what: str) -> str:
    return f"the model is truncated or damaged: {what} at byte {position}; get the file anew"


def text(data: memoryview, span: Span) -> str:
    """Return a name; bytes that are no UTF-8 survive `encoded`."""
    return bytes(data[span.start : span.end]).decode("utf-8", "surrogateescape")


def encoded(name: str) -> bytes:
    """Return the bytes of a name."""
    return name.encode("utf-8", "surrogateescape")


def varint(value: int) -> bytes:
    """Return the encoding of an unsigned number."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def number_field(number: int, value: int) -> bytes:
    """Return a field that holds an unsigned number."""
    return varint(number << 3 | VARINT) + varint(value)


def header(number: int, length: int) -> bytes:
    """Return what comes before the bytes of a field of that length."""
    return varint(number << 3 | BYTES) + varint(length)


def bytes_field(number: int, body: bytes) -> bytes:
    """Return a field that holds bytes: a string or a message."""
    return header(number, len(body)) + body
