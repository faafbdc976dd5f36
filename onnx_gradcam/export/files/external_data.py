"""Weights that lie in files of their own beside the model: where, whether they are all there.

A tensor with external data names a file (`location`, relative to the model's folder), an offset
and a length. Source: https://github.com/onnx/onnx/blob/main/docs/ExternalData.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx.external_data_helper import load_external_data_for_tensor

from onnx_gradcam.errors import InvalidModelError
from onnx_gradcam.export.files.unread import fill, is_unread, place_of

_SUB_BYTE_BITS = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}


@dataclass(frozen=True)
class ExternalReference:
    """Where the bytes of one tensor lie.

    Attributes:
        location: path of the file, relative to the folder of the model.
        offset: first byte in that file.
        length: number of bytes, by the shape and type of the tensor.
    """

    location: str
    offset: int
    length: int


def is_external(tensor: onnx.TensorProto) -> bool:
    """Tell whether the values of `tensor` lie outside the model file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL and not is_unread(tensor)


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor that a model stores, sub-graphs included; the main initializers first."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterator[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)


def byte_length(tensor: onnx.TensorProto) -> int:
    """Return how many bytes the values of `tensor` take, by its shape and type.

    Raises:
        InvalidModelError: a type whose values have no fixed width (strings), or an unknown one.
    """
    try:
        type_name = onnx.TensorProto.DataType.Name(tensor.data_type)
        width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidModelError(
            f"tensor {tensor.name!r} has the unknown element type {tensor.data_type}"
        ) from error
    if tensor.data_type == onnx.TensorProto.STRING:
        raise InvalidModelError(f"tensor {tensor.name!r}: strings cannot be external data")
    bits: int = prod(tensor.dims) * _SUB_BYTE_BITS.get(type_name, 8 * width)
    return (bits + 7) // 8


def reference(tensor: onnx.TensorProto) -> ExternalReference:
    """Return where the bytes of an external tensor lie.

    Raises:
        InvalidModelError: no location, or an offset or length that is no number or does not fit
            the tensor's shape.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    expected = byte_length(tensor)
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", expected))
    except ValueError as error:
        raise InvalidModelError(
            f"tensor {tensor.name!r}: offset or length of its external data is not a number"
        ) from error
    if offset < 0 or length != expected:
        raise InvalidModelError(
            f"tensor {tensor.name!r} needs {expected} bytes of external data, the model says"
            f" {length} bytes at offset {offset}"
        )
    if not entries.get("location"):
        raise InvalidModelError(f"tensor {tensor.name!r} names no file for its external data")
    return ExternalReference(entries["location"], offset, length)


def check_references(model: onnx.ModelProto, base_dir: Path) -> None:
    """Check that all external data is there, without reading it.

    Args:
        model: may hold external tensors.
        base_dir: folder of the model file.

    Raises:
        InvalidModelError: a file outside the folder, missing or too short; it names the tensors
            of every such file.
    """
    tensors: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for tensor in filter(is_external, all_tensors(model)):
        found = reference(tensor)
        tensors[found.location].append((tensor.name, found.offset + found.length))
    problems = []
    for location, needs in tensors.items():
        longest = max(end for _, end in needs)
        problem = _file_problem(location, base_dir, longest)
        if problem:
            names = [name for name, _ in needs]
            if problem.startswith("is too short"):
                size = (base_dir / location).stat().st_size
                names = [name for name, end in needs if end > size]
            problems.append(f"{location!r} (for {_some(names)}) {problem}")
    if problems:
        raise InvalidModelError("external data " + "; ".join(problems))


def _file_problem(location: str, base_dir: Path, needed: int) -> str | None:
    pure = (PurePosixPath(location), PureWindowsPath(location))
    if any(path.is_absolute() or path.drive or ".." in path.parts for path in pure):
        return f"lies outside the model's folder {base_dir}"
    file = base_dir / location
    if file.is_symlink():
        return f"is a symbolic link; copy the real file to {file}"
    if not file.is_file():
        return f"is missing: no file {file}"
    size = file.stat().st_size
    if size < needed:
        return f"is too short: {size} of {needed} bytes"
    return None


def _some(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"tensor{'s' if len(names) > 1 else ''} {shown}{rest}"


def with_values(tensor: onnx.TensorProto, base_dir: Path | None) -> onnx.TensorProto:
    """Return the tensor itself, or for an external or unread one a copy that holds its values.

    Raises:
        InvalidModelError: the external data cannot be read, or there is no folder to look in.
    """
    if (place := place_of(tensor)) is not None:
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        fill(copy, place, place.read())
        return copy
    if not is_external(tensor):
        return tensor
    if base_dir is None:
        raise InvalidModelError(
            f"tensor {tensor.name!r} has external data, but a model given as bytes or as a"
            " ModelProto has no folder; give the path of the model file"
        )
    reference(tensor)
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    try:
        load_external_data_for_tensor(copy, str(base_dir))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        detail = " ".join(str(error).split())
        raise InvalidModelError(f"tensor {tensor.name!r}: external data: {detail}") from error
    copy.data_location = onnx.TensorProto.DEFAULT  # older releases of onnx leave it external
    del copy.external_data[:]
    return copy


def external_chunks(
    tensor: onnx.TensorProto, base_dir: Path | None, size: int = 1 << 24
) -> Iterator[bytes]:
    """Yield the bytes of an external tensor, some at a time.

    Raises:
        InvalidModelError: the external data cannot be read, or there is no folder to look in.
    """
    found = reference(tensor)
    for start in range(0, found.length, size):
        piece = onnx.TensorProto(name=tensor.name, data_type=onnx.TensorProto.UINT8)
        piece.dims.append(min(size, found.length - start))
        refer(piece, found.location, found.offset + start, piece.dims[0])
        yield with_values(piece, base_dir).raw_data


def refer(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    """Make the values of a tensor those bytes of a file beside the model."""
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
