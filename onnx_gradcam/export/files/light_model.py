"""Read a model file without its large weights: those stay where they are (`unread`).

In: a path. Out: the model, and the SHA-256 of the file. A file of a form that is not expected
here, or damaged, gives None: `model_file` reads it as a whole, and says what is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from onnx import ModelProto, TensorProto

from onnx_gradcam.export.files.external_data import byte_length, is_external
from onnx_gradcam.export.files.unread import Place, leave_unread, stamp_of
from onnx_gradcam.onnx_fields import RAW_DATA_IN_TENSOR, InGraph, InModel
from onnx_gradcam.wire import BYTES, FIXED_SIZES, VARINT, Span, bytes_field, read_varint

UNREAD_FROM = 1 << 16
"""Values of more bytes than this stay in the file. Shapes and indices are much smaller."""

_LONGEST_HEAD = 20
"""Bytes of a tag and a length, at most."""

_NOT_TOGETHER = frozenset(
    {
        *("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data"),
        *("raw_data", "external_data", "segment"),
    }
)
"""Fields that a tensor with raw data should not have; the checker says so."""


class LightModel(NamedTuple):
    """A model, some of whose initializers are unread, and the hex digest of its file."""

    model: ModelProto
    sha256: str


class _UnexpectedError(Exception):
    """The file is to be read as a whole."""


class _Field(NamedTuple):
    """A field of a message, with its tag, and the bytes of its value."""

    number: int
    whole: Span
    body: Span


def read_light(path: Path) -> LightModel | None:
    """Return a model without its large weights, None where it has to be read as a whole."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            stamp = stamp_of(file)
            model = ModelProto.FromString(_light(file, path, stamp))
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return LightModel(model, digest) if stamp_of(file) == stamp else None
    except Exception:  # protobuf's back ends raise different types; read whole, it says why
        return None


def _light(file: BinaryIO, path: Path, stamp: tuple[int, int]) -> bytes:
    """Return the bytes of a model with references in place of large weights.

    Raises:
        _UnexpectedError: the file has several graphs, to be merged, or none.
    """
    parts: list[bytes] = []
    graphs = 0
    for part in _parts(file, Span(0, stamp[0]), InModel.GRAPH):
        if isinstance(part, Span):
            parts.append(_read(file, part))
        else:
            graphs += 1
            parts.append(bytes_field(InModel.GRAPH, _light_graph(file, part.body, path, stamp)))
    if graphs != 1:
        raise _UnexpectedError
    return b"".join(parts)


def _light_graph(file: BinaryIO, graph: Span, path: Path, stamp: tuple[int, int]) -> bytes:
    parts: list[bytes] = []
    for part in _parts(file, graph, InGraph.INITIALIZER):
        whole = part if isinstance(part, Span) else part.whole
        light = None if isinstance(part, Span) else _light_tensor(file, part.body, path, stamp)
        parts.append(
            _read(file, whole) if light is None else bytes_field(InGraph.INITIALIZER, light)
        )
    return b"".join(parts)


def _light_tensor(file: BinaryIO, body: Span, path: Path, stamp: tuple[int, int]) -> bytes | None:
    """Return the bytes of an unread tensor, None for one that is small or not what it should be."""
    if body.end - body.start <= UNREAD_FROM:
        return None
    rest: list[bytes] = []
    raw: list[Span] = []
    for part in _parts(file, body, RAW_DATA_IN_TENSOR):
        if isinstance(part, Span):
            rest.append(_read(file, part))
        else:
            raw.append(part.body)
    if len(raw) != 1 or raw[0].end - raw[0].start <= UNREAD_FROM:
        return None
    tensor = TensorProto.FromString(b"".join(rest))
    offset, length = raw[0].start, raw[0].end - raw[0].start
    if {field.name for field, _ in tensor.ListFields()} & _NOT_TOGETHER or is_external(tensor):
        return None
    if byte_length(tensor) != length:
        return None
    says_embedded = tensor.HasField("data_location")
    leave_unread(tensor, Place(str(path.absolute()), *stamp, offset, length, says_embedded))
    return bytes(tensor.SerializeToString())


def _parts(file: BinaryIO, within: Span, number: int) -> Iterator[Span | _Field]:
    """Yield the fields of a number that hold bytes, and what lies between them, in order."""
    behind = within.start
    for field in _fields(file, within):
        if field.number == number:
            if field.whole.start > behind:
                yield Span(behind, field.whole.start)
            behind = field.whole.end
            yield field
    if within.end > behind:
        yield Span(behind, within.end)


def _fields(file: BinaryIO, within: Span) -> Iterator[_Field]:
    """Yield the fields of a message; of values no byte is read.

    Raises:
        _UnexpectedError: a field ends behind the message, or is of a wire type that no model has.
    """
    position = within.start
    while position < within.end:
        file.seek(position)
        head = file.read(_LONGEST_HEAD)
        tag, begin = read_varint(head, 0, len(head))
        number, kind = tag >> 3, tag & 7
        length = FIXED_SIZES.get(kind, 0)
        if kind == VARINT:
            _, begin = read_varint(head, begin, len(head))
        elif kind == BYTES:
            length, begin = read_varint(head, begin, len(head))
        elif not length:
            raise _UnexpectedError
        end = position + begin + length
        if end > within.end or not number:
            raise _UnexpectedError
        yield _Field(number if kind == BYTES else 0, Span(position, end), Span(end - length, end))
        position = end


def _read(file: BinaryIO, span: Span) -> bytes:
    file.seek(span.start)
    return file.read(span.end - span.start)
