"""Weights that stay in the model file until they are needed, although they are part of it.

A tensor whose values were left unread is marked as external, with one entry that says where in
the file they lie. The entry's key is drawn anew in every process: no file can hold one, and none
is ever written (`model_output` puts the values, or a reference to another file, in its place).
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from onnx import ModelProto, TensorProto, helper

from onnx_gradcam.errors import InvalidModelError

_KEY = f"onnx_gradcam.unread.{secrets.token_hex(16)}"

_CHUNK = 1 << 20
"""Bytes that are copied at a time."""


@dataclass(frozen=True)
class Place:
    """Where the values of a tensor lie in a model file.

    Attributes:
        file: absolute path.
        size: of that file, when it was opened.
        changed: time of its last change in nanoseconds, likewise.
        offset: first byte of the values.
        length: number of bytes.
        says_embedded: whether the tensor says that it is not external; most say nothing.
    """

    file: str
    size: int
    changed: int
    offset: int
    length: int
    says_embedded: bool

    def chunks(self) -> Iterator[bytes]:
        """Yield the values, some at a time.

        Raises:
            InvalidModelError: the file is gone, or another one than it was.
        """
        with self._open() as file:
            left = self.length
            while left:
                chunk = file.read(min(left, _CHUNK))
                left -= len(chunk)
                yield chunk

    def read(self) -> bytes:
        """Return the values.

        Raises:
            InvalidModelError: the file is gone, or another one than it was.
        """
        with self._open() as file:
            return file.read(self.length)

    def _open(self) -> BinaryIO:
        path = Path(self.file)
        try:
            file = path.open("rb", buffering=0)
        except OSError as error:
            raise InvalidModelError(f"cannot read {path} again: {error.strerror}") from error
        if stamp_of(file) != (self.size, self.changed):
            file.close()
            raise InvalidModelError(f"{path} has changed while it was being read; start again")
        file.seek(self.offset)
        return file


def stamp_of(file: BinaryIO) -> tuple[int, int]:
    """Return size and time of the last change of an open file."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def leave_unread(tensor: TensorProto, place: Place) -> None:
    """Mark a tensor without values as one whose values lie in the model file."""
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key=_KEY, value=json.dumps(asdict(place)))


def place_of(tensor: TensorProto) -> Place | None:
    """Return where the values of an unread tensor lie, None for any other tensor."""
    return Place(**json.loads(tensor.external_data[0].value)) if is_unread(tensor) else None


def is_unread(tensor: TensorProto) -> bool:
    """Tell whether the values of a tensor were left in the model file."""
    return (
        tensor.data_location == TensorProto.EXTERNAL
        and len(tensor.external_data) == 1
        and tensor.external_data[0].key == _KEY
    )


def fill(tensor: TensorProto, place: Place, values: bytes) -> None:
    """Turn an unread tensor into the one that the file holds."""
    del tensor.external_data[:]
    tensor.ClearField("data_location")
    if place.says_embedded:
        tensor.data_location = TensorProto.DEFAULT
    tensor.raw_data = values


def without_unread(model: ModelProto) -> ModelProto:
    """Return a copy with inputs in place of unread weights; the model itself if it has none."""
    if not any(map(is_unread, model.graph.initializer)):
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    listed = {value.name for value in graph.input}
    kept = [tensor for tensor in graph.initializer if not is_unread(tensor)]
    for tensor in filter(is_unread, model.graph.initializer):
        if tensor.name not in listed:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(info)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return copy
