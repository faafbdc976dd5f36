"""What Triton's onnxruntime backend sees of an exported file: names, types and shapes.

In: a session of the file. Out: its inputs and outputs as `Tensor`s. The backend asks its session
the same, and refuses a config.pbtxt that says otherwise: so does `signature` ask a session, not the
file, of which onnxruntime may have inferred more than it declares.

Source: onnxruntime_backend, src/onnxruntime_utils.cc: types (ModelConfigDataTypeToOnnxDataType),
tensors alone (InputOutputInitializerInfos), shapes (CompareDimsSupported).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import onnx

from onnx_gradcam.contract import ADDED_INPUTS
from onnx_gradcam.errors import UnsupportedModelError

OPEN = -1
"""A size that a request may choose."""

DATA_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}
"""Element type of onnxruntime -> of Triton; bfloat16 the backend does not have."""


@dataclass(frozen=True)
class Tensor:
    """An input or output.

    Attributes:
        name: as in the file.
        data_type: Triton's name of the element type.
        shape: sizes, `OPEN` where a request chooses.
        optional: whether a request may leave it out.
    """

    name: str
    data_type: str
    shape: tuple[int, ...]
    optional: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the first axis has no fixed size, as an axis of images has."""
        return self.shape[:1] == (OPEN,)


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a file, in its order, optional inputs last."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def optional(self) -> list[str]:
        """The names of the optional inputs."""
        return [tensor.name for tensor in self.inputs if tensor.optional]


def signature(session: Any, graph: onnx.GraphProto) -> Signature:
    """Return what a session takes and gives.

    An initializer that is an input too is optional: the backend feeds it where a request has it.
    Of these only the inputs that the export has added are offered, not weights.

    Args:
        session: an ``onnxruntime.InferenceSession`` of the exported file.
        graph: the same, to tell a number from a tensor of unknown shape.

    Raises:
        UnsupportedModelError: Triton has no such type, or a shape is not known.
    """
    given = session.get_overridable_initializers()
    optional = [node for node in given if node.name in ADDED_INPUTS]
    nodes = [*session.get_inputs(), *optional, *session.get_outputs()]
    problems = [problem for node in nodes if (problem := _problem(node, _shapeless(graph)))]
    if problems:
        raise UnsupportedModelError(f"Triton cannot serve this file: {'; '.join(problems)}")
    names = {node.name for node in optional}
    return Signature(
        tuple(_tensor(node, names) for node in nodes[: -len(session.get_outputs())]),
        tuple(_tensor(node, ()) for node in session.get_outputs()),
    )


def _shapeless(graph: onnx.GraphProto) -> set[str]:
    """Return the names of inputs and outputs of which the file does not say the number of axes."""
    return {
        value.name
        for value in (*graph.input, *graph.output)
        if not value.type.tensor_type.HasField("shape")
    }


def _problem(node: Any, shapeless: Collection[str]) -> str:
    if node.type not in DATA_TYPES:
        if not node.type.startswith("tensor("):
            return f"{node.name!r} is no tensor but {node.type}; convert the model without ZipMap"
        return f"{node.name!r} is of type {node.type}, which its onnxruntime backend has not"
    if not node.shape and node.name in shapeless:
        return f"the number of axes of {node.name!r} is not known; declare its shape in the model"
    return ""


def _tensor(node: Any, optional: Collection[str]) -> Tensor:
    shape = tuple(size if isinstance(size, int) else OPEN for size in node.shape)
    return Tensor(node.name, DATA_TYPES[node.type], shape, node.name in optional)
