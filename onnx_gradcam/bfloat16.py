"""Runs a session whose inputs or outputs are bfloat16, a type that NumPy does not have.

In and out: float32 arrays in its place. onnxruntime takes and returns bfloat16 as raw values only
(1.23 to 1.32: ``run`` refuses the type in both directions), and these are the upper halves of
float32 ones.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import UnsupportedModelError

BFLOAT16 = "tensor(bfloat16)"
"""How onnxruntime calls the type."""

_ELEMENT_TYPE = 16  # onnx.TensorProto.BFLOAT16
_ROUNDING = np.uint32(0x7FFF)
_QUIET = np.uint16(0x40)

Array = NDArray[Any]


def to_bits(values: Array) -> NDArray[np.uint16]:
    """Return float32 values as bfloat16 bits, rounded to nearest, ties to even."""
    single = np.ascontiguousarray(values, np.float32)
    bits = single.view(np.uint32)
    upper = (bits >> np.uint32(16)).astype(np.uint16)
    rounded = ((bits + (_ROUNDING + (upper & 1))) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(single), upper | _QUIET, rounded)


def from_bits(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return bfloat16 bits as float32 values; all of them exist there."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


@dataclass(frozen=True)
class Runner:
    """A session that takes and gives float32 in place of bfloat16.

    Attributes:
        session: the ``onnxruntime.InferenceSession``.
        taken: names of its bfloat16 inputs.
        given: names of its bfloat16 outputs.
    """

    session: Any
    taken: frozenset[str]
    given: frozenset[str]

    @classmethod
    def of(cls, session: Any) -> Runner:
        """Ask a session for its types, once for many runs."""
        inputs = (*session.get_inputs(), *session.get_overridable_initializers())
        return cls(session, _bfloat16_names(inputs), _bfloat16_names(session.get_outputs()))

    def run(
        self, outputs: Sequence[str], feeds: Mapping[str, Array], options: Any = None
    ) -> list[Any]:
        """Return outputs as ``InferenceSession.run`` does, bfloat16 ones as float32.

        Args:
            outputs: names of the outputs.
            feeds: an array for each input; float32 where the input is bfloat16.
            options: ``onnxruntime.RunOptions``.

        Raises:
            UnsupportedModelError: a bfloat16 output that is not in the memory of the host.
        """
        if self.taken.isdisjoint(feeds) and self.given.isdisjoint(outputs):
            return list(self.session.run(list(outputs), dict(feeds), options))
        from onnxruntime import OrtValue

        values = {
            name: OrtValue.ortvalue_from_numpy_with_onnx_type(to_bits(value), _ELEMENT_TYPE)
            if name in self.taken
            else OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
            for name, value in feeds.items()
        }
        results = self.session.run_with_ort_values(list(outputs), values, options)
        return [_array(value, name) for name, value in zip(outputs, results, strict=True)]


def run(
    session: Any, outputs: Sequence[str], feeds: Mapping[str, Array], options: Any = None
) -> list[Any]:
    """Return what `Runner.run` returns, of a session that runs once.

    Raises:
        UnsupportedModelError: see `Runner.run`.
    """
    return Runner.of(session).run(outputs, feeds, options)


def _bfloat16_names(nodes: Sequence[Any]) -> frozenset[str]:
    return frozenset(node.name for node in nodes if node.type == BFLOAT16)


def _array(value: Any, name: str) -> Any:
    if value.data_type() != BFLOAT16:
        return value.numpy()
    if value.device_name() != "cpu":
        raise UnsupportedModelError(
            f"output {name!r} is bfloat16 on {value.device_name()}, where it cannot be read; ask"
            " for device 'cpu', or cast the output to float in the model"
        )
    shape = value.shape()
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return from_bits(np.frombuffer(data, np.uint16).reshape(shape))
