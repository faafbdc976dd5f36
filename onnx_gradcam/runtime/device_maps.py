"""Raw maps of activations and gradients that lie on a device, computed there.

Each method that is plain arithmetic is a graph of a few nodes, written here in protobuf's encoding
(the runtime does without the package onnx) and run by an onnxruntime session on that device. Only
the map comes back: a thousandth of what it is made of.

Products are written as Mul and ReduceSum, which are float32 to the last bit; a MatMul would be
rounded to TF32 on some devices.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.onnx_fields import NAME_IN_TENSOR, NAME_IN_VALUE_INFO, InGraph, InNode
from onnx_gradcam.onnx_fields import InModel as Model
from onnx_gradcam.runtime.on_device import OnDevice
from onnx_gradcam.runtime.session import LOG_ERRORS_ONLY, import_onnxruntime, run_options
from onnx_gradcam.wire import bytes_field, encoded, number_field

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """One node: ``output = operator(inputs)`` with integer attributes."""

    output: str
    operator: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)


_OVER_PLACES: Mapping[str, int | tuple[int, ...]] = {"axes": (2,), "keepdims": 1}
_OVER_CHANNELS: Mapping[str, int | tuple[int, ...]] = {"axes": (1,), "keepdims": 0}

METHODS: dict[str, tuple[Step, ...]] = {
    "gradcam": (
        Step("alpha", "ReduceMean", ("G",), _OVER_PLACES),
        Step("summands", "Mul", ("alpha", "A")),
    ),
    "hirescam": (Step("summands", "Mul", ("G", "A")),),
    "gradcamelementwise": (
        Step("products", "Mul", ("G", "A")),
        Step("positive", "Relu", ("products",)),
        # NaN where a product is not finite, which Relu may hide
        Step("finite", "Sub", ("products", "products")),
        Step("summands", "Add", ("positive", "finite")),
    ),
    "layercam": (
        Step("positive", "Relu", ("G",)),
        Step("products", "Mul", ("positive", "A")),
        Step("finite", "Sub", ("G", "G")),
        Step("summands", "Add", ("products", "finite")),
    ),
    "xgradcam": (
        Step("total", "ReduceSum", ("A",), _OVER_PLACES),
        Step("divisor", "Add", ("total", "epsilon")),
        Step("products", "Mul", ("G", "A")),
        Step("shares", "Div", ("products", "divisor")),
        Step("weights", "ReduceSum", ("shares",), _OVER_PLACES),
        Step("summands", "Mul", ("weights", "A")),
    ),
}
"""Method -> what it adds up over the channels, from A and G of shape ``(N, C, places)``; the
formulas are those of `cam.methods`."""

_FLAT = (
    Step("A", "Reshape", ("activations", "flat")),
    Step("G", "Reshape", ("gradients", "flat")),
)
_SUM = (Step("map", "ReduceSum", ("summands",), _OVER_CHANNELS),)
_COPY = (Step("copy", "Identity", ("value",)),)

_FLOAT, _INT64 = 1, 7  # TensorProto.DataType
_CONSTANTS = {
    "flat": (_INT64, (3,), struct.pack("<3q", 0, 0, -1)),
    "epsilon": (_FLOAT, (), struct.pack("<f", 1e-7)),
}
"""Name -> type, shape, values. Reshape to 0 keeps an axis, to -1 joins the rest."""


class DeviceMaps:
    """The graphs of one device, loaded when first used. One may be shared by threads."""

    def __init__(self, provider: tuple[str, Mapping[str, str]], place: tuple[str, int]) -> None:
        """Take the execution provider with its options, and the device that it works on."""
        self._provider, self._place = provider, place
        self._sessions: dict[str, Any] = {}
        self._lock = Lock()

    def raw(self, method: str, activations: OnDevice, gradients: OnDevice) -> FloatArray | None:
        """Return the raw maps, float32 ``(N, *spatial)``.

        None where they must be made on the host: the method has no graph here, the values are not
        float32 or have been fetched, or a map is not finite, which the host explains.
        """
        pairs = self._pairs(activations, gradients)
        if method not in METHODS or pairs is None:
            return None
        content = (*_FLAT, *METHODS[method], *_SUM)
        session = self._session(method, ("activations", "gradients"), "map", content)
        maps = []
        for (a, kept), (g, _) in pairs:
            (found,) = self._run(session, {"activations": a, "gradients": g}, "map", "cpu", 0)
            maps.append(found.numpy()[:kept])
        raw = np.concatenate(maps).reshape(-1, *activations.shape[2:])
        return raw if np.isfinite(raw).all() else None

    def copies(self, values: Sequence[Any]) -> list[Any]:
        """Return copies of values on the device, on the device."""
        session = self._session("copy", ("value",), "copy", _COPY)
        return [self._run(session, {"value": value}, "copy", *self._place)[0] for value in values]

    def _pairs(self, activations: OnDevice, gradients: OnDevice) -> list[Any] | None:
        """Return the pieces of both; None where they are not all here, or of another kind."""
        a, g = activations.pieces, gradients.pieces
        same = activations.shape == gradients.shape and activations.ndim >= 3
        if a is None or g is None or not same:
            return None
        if activations.dtype != np.float32 or gradients.dtype != np.float32:
            return None
        return list(zip(a, g, strict=True))

    def _session(self, name: str, inputs: Sequence[str], output: str, steps: Sequence[Step]) -> Any:
        with self._lock:
            if name not in self._sessions:
                ort = import_onnxruntime()
                options = ort.SessionOptions()
                options.log_severity_level = LOG_ERRORS_ONLY
                options.intra_op_num_threads = 1
                self._sessions[name] = ort.InferenceSession(
                    serialised(inputs, output, steps),
                    options,
                    providers=[self._provider[0]],
                    provider_options=[dict(self._provider[1])],
                    enable_fallback=0,
                )
            return self._sessions[name]

    def _run(self, session: Any, inputs: Mapping[str, Any], output: str, *place: Any) -> list[Any]:
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output(output, *place)
        session.run_with_iobinding(binding, run_options())
        binding.synchronize_outputs()
        return list(binding.get_outputs())


def serialised(inputs: Sequence[str], output: str, steps: Sequence[Step]) -> bytes:
    """Return a model of float32 inputs of any shape, of opset 11.

    The opset is one in which the axes of both ReduceMean and ReduceSum are attributes.
    """
    read = {name for step in steps for name in step.inputs}
    graph = b"".join(_node(step) for step in steps) + bytes_field(2, b"onnx_gradcam")
    for name, (kind, shape, values) in _CONSTANTS.items():
        if name in read:
            graph += bytes_field(InGraph.INITIALIZER, _tensor(name, kind, shape, values))
    for name in inputs:
        graph += bytes_field(InGraph.INPUT, _declared(name))
    graph += bytes_field(InGraph.OUTPUT, _declared(output))
    opset = number_field(2, 11)
    return (
        number_field(Model.IR_VERSION, 7) + bytes_field(8, opset) + bytes_field(Model.GRAPH, graph)
    )


def _node(step: Step) -> bytes:
    body = b"".join(bytes_field(InNode.INPUT, encoded(name)) for name in step.inputs)
    body += bytes_field(InNode.OUTPUT, encoded(step.output))
    body += bytes_field(InNode.OP_TYPE, encoded(step.operator))
    for name, value in step.attributes.items():
        several = isinstance(value, tuple)
        numbers = value if isinstance(value, tuple) else (value,)
        attribute = bytes_field(1, encoded(name))
        attribute += b"".join(number_field(8 if several else 3, number) for number in numbers)
        attribute += number_field(20, 7 if several else 2)  # AttributeProto.INTS, INT
        body += bytes_field(InNode.ATTRIBUTE, attribute)
    return bytes_field(InGraph.NODE, body)


def _tensor(name: str, kind: int, shape: Sequence[int], values: bytes) -> bytes:
    body = b"".join(number_field(1, extent) for extent in shape) + number_field(2, kind)
    return body + bytes_field(NAME_IN_TENSOR, encoded(name)) + bytes_field(9, values)


def _declared(name: str) -> bytes:
    kind = bytes_field(2, bytes_field(1, number_field(1, _FLOAT)))
    return bytes_field(NAME_IN_VALUE_INFO, encoded(name)) + kind
