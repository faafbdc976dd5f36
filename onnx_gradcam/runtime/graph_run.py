"""Runs a session by CUDA graphs: recorded once, replayed from then on.

A graph replays what was recorded on the addresses at which it was recorded, and nothing but what
ran on the device. `GraphRun` keeps the values where they were, lets one run at a time use them,
and proves each graph on other values before it is used.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.bfloat16 import BFLOAT16
from onnx_gradcam.contract import SEED_INPUTS
from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.runtime.device_run import Device, DeviceRun
from onnx_gradcam.runtime.on_device import OnDevice
from onnx_gradcam.runtime.session import import_onnxruntime

Array = NDArray[Any]

_GRAPH = "gpu_graph_id"
"""Entry of ``RunOptions``: which graph a run records or replays."""

_NOT_RECORDED = "-1"
"""Number of the graph for a run that is neither recorded nor replayed."""

_ROUNDING = 1e-3
"""How far a replay may be from a plain run, relative to the largest value."""

_SPECIAL = frozenset({BFLOAT16, "tensor(string)"})
"""Types that NumPy does not have, or that do not lie on a device."""

WITHOUT = "load the file without enable_cuda_graph"


def device_run(session: Any, stays: Collection[str]) -> DeviceRun | None:
    """Return how to run a session; None where plain runs do, as on the host.

    Args:
        session: the ``onnxruntime.InferenceSession``.
        stays: outputs that stay on the device.

    Raises:
        UnsupportedModelError: CUDA graphs are asked for, and the model has open shapes or special
            types.
    """
    device = Device.of(session)
    if device is None:
        return None
    nodes = (*session.get_inputs(), *session.get_outputs())
    special = [n for n in nodes if n.type in _SPECIAL or not n.type.startswith("tensor(")]
    if not device.graphs:
        return None if special else DeviceRun(session, device, stays)
    if special:
        raise UnsupportedModelError(
            f"{special[0].name!r} is a {special[0].type}, and CUDA graphs take tensors of plain"
            f" types; {WITHOUT}"
        )
    return GraphRun(session, device, stays)


@dataclass(frozen=True)
class _Recorded:
    """Where a recorded graph reads and writes."""

    binding: Any
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    number: int


class GraphRun(DeviceRun):
    """A session whose runs are recorded as CUDA graphs and replayed. Threads take turns.

    A graph belongs to the outputs asked for and to the shapes of what is fed.
    """

    def __init__(self, session: Any, device: Device, stays: Collection[str]) -> None:
        """Take the session; nothing runs yet.

        Raises:
            UnsupportedModelError: an input has an open shape.
        """
        super().__init__(session, device, stays)
        for node in session.get_inputs():
            sizes = [] if node.name in SEED_INPUTS else _open(node)
            if sizes:
                raise UnsupportedModelError(
                    f"CUDA graphs need fixed shapes, and input {node.name!r} is"
                    f" ({', '.join(map(str, node.shape))}); fix {sizes[0]!r} with"
                    f" SessionOptions.add_free_dimension_override_by_name, or {WITHOUT}"
                )
        self._recorded: dict[Any, _Recorded] = {}
        self._turn = Lock()

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array | OnDevice]:
        """Return outputs in the order asked for; the next run does not change them.

        Raises:
            UnsupportedModelError: a replay does not follow what is fed.
        """
        names = tuple(dict.fromkeys(outputs))
        key = names, tuple((name, value.shape) for name, value in sorted(feeds.items()))
        with self._turn:
            if key not in self._recorded:
                self._recorded[key] = self._record(names, feeds)
            self._replay(self._recorded[key], feeds)
            found = self._copied(self._recorded[key].outputs)
        return [found[name] for name in outputs]

    def _replay(self, graph: _Recorded, feeds: Mapping[str, Array]) -> None:
        for name, value in feeds.items():
            graph.inputs[name].update_inplace(np.asarray(value, order="C"))
        self._complete(graph.binding, **{_GRAPH: str(graph.number)})

    def _record(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> _Recorded:
        """Return a graph that was recorded, and gives what a plain run gives of other values.

        Raises:
            UnsupportedModelError: it does not.
        """
        make = import_onnxruntime().OrtValue.ortvalue_from_numpy
        other = {name: _other(name, value) for name, value in feeds.items()}
        inputs = {n: make(value.copy(), *self.device.place) for n, value in other.items()}
        binding = self.session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, *self.device.place)
        self._complete(binding, **{_GRAPH: _NOT_RECORDED})
        places = dict(zip(outputs, binding.get_outputs(), strict=True))
        expected = {name: np.array(value.numpy()) for name, value in places.items()}
        binding.clear_binding_outputs()
        for name, value in places.items():
            binding.bind_ortvalue_output(name, value)
        graph = _Recorded(binding, inputs, places, len(self._recorded))
        self._replay(graph, feeds)
        self._replay(graph, other)
        for name, value in expected.items():
            if not _alike(value, np.array(places[name].numpy())):
                raise UnsupportedModelError(
                    f"replayed as a CUDA graph the model gives another {name!r} than when it runs;"
                    f" {WITHOUT}"
                )
        return graph

    def _copied(self, values: Mapping[str, Any]) -> dict[str, Array | OnDevice]:
        """Return copies of what the next run writes over; large ones are made on the device."""
        large = [n for n in values if n in self.stays and self._types[n] == np.float32]
        copies = dict(zip(large, self.maps.copies([values[n] for n in large]), strict=True))
        return {
            name: self._kept(name, copies[name]) if name in copies else np.array(value.numpy())
            for name, value in values.items()
        }


def _open(node: Any) -> list[Any]:
    return [extent for extent in node.shape if not isinstance(extent, int)]


def _other(name: str, value: Array) -> Array:
    """Return other values that the model takes as well."""
    if name in SEED_INPUTS and value.dtype.kind == "i":
        return np.where(value == 0, -1, 0).astype(value.dtype)  # class or box: of rank 1, and 0
    return np.array(np.flip(value), order="C")


def _alike(expected: Array, found: Array) -> bool:
    if expected.dtype.kind != "f":
        return np.array_equal(expected, found)
    largest = float(np.abs(expected).max(initial=0, where=np.isfinite(expected)))
    return np.allclose(found, expected, rtol=0, atol=_ROUNDING * largest, equal_nan=True)
