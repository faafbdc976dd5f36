"""Runs a session on a device so that its large outputs stay there.

onnxruntime's ``run`` brings all outputs to the host; with its IOBinding only what is small comes
back, and activations and gradients do where somebody reads them (`on_device`). The heat map is made
where they lie (`device_maps`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.runtime.device_maps import DeviceMaps
from onnx_gradcam.runtime.image_input import DTYPES
from onnx_gradcam.runtime.on_device import OnDevice
from onnx_gradcam.runtime.session import CPU, CUDA, asks_for_graphs, import_onnxruntime, run_options

Array = NDArray[Any]

DEVICE_TYPES = {"TensorrtExecutionProvider": "cuda", CUDA: "cuda"}
"""Execution provider -> how onnxruntime's IOBinding calls the memory that it works in."""


@dataclass(frozen=True)
class Device:
    """A device, as onnxruntime names it.

    Attributes:
        kind: ``cuda`` or ``cpu``.
        number: which of several.
        graphs: whether runs are recorded as CUDA graphs.
    """

    kind: str
    number: int = 0
    graphs: bool = False

    @classmethod
    def of(cls, session: Any) -> Device | None:
        """Return where a session works; None for the host, and for devices not known here."""
        options = session.get_provider_options()
        for provider in session.get_providers():
            if provider in DEVICE_TYPES:
                own = options.get(provider, {})
                number = int(own.get("device_id", 0))
                return cls(DEVICE_TYPES[provider], number, asks_for_graphs(own))
        return None

    @property
    def place(self) -> tuple[str, int]:
        """Where values are bound to."""
        return self.kind, self.number

    @property
    def provider(self) -> tuple[str, dict[str, str]]:
        """The execution provider for small graphs on what lies there, and its options."""
        if self.kind == "cpu":
            return CPU, {}
        exact = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
        return CUDA, {"device_id": str(self.number), **exact}


class DeviceRun:
    """A session whose activations and gradients stay on the device. Threads may share one.

    Attributes:
        session: the ``onnxruntime.InferenceSession``.
        device: where it works.
        stays: outputs that stay there.
        maps: makes heat maps there.
    """

    def __init__(self, session: Any, device: Device, stays: Collection[str]) -> None:
        """Take the session; nothing runs yet."""
        self.session, self.device, self.stays = session, device, frozenset(stays)
        self.maps = DeviceMaps(device.provider, device.place)
        self._types = {node.name: DTYPES.get(node.type) for node in session.get_outputs()}

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array | OnDevice]:
        """Return outputs in the order asked for.

        Args:
            outputs: their names.
            feeds: an array for each input.
        """
        names = list(dict.fromkeys(outputs))
        given = _on_host(feeds)
        binding = self.session.io_binding()
        for name, value in given.items():
            binding.bind_ortvalue_input(name, value)
        for name in names:
            binding.bind_output(name, *self._place(name))
        self._complete(binding)
        values = dict(zip(names, binding.get_outputs(), strict=True))
        found = {n: self._kept(n, v) if n in self.stays else v.numpy() for n, v in values.items()}
        return [found[name] for name in outputs]

    def _place(self, output: str) -> tuple[str, int]:
        return self.device.place if output in self.stays else ("cpu", 0)

    def _complete(self, binding: Any, **entries: str) -> None:
        """Run, and wait for copies to and from the device."""
        binding.synchronize_inputs()
        self.session.run_with_iobinding(binding, run_options(**entries))
        binding.synchronize_outputs()

    def _kept(self, name: str, value: Any) -> OnDevice | Array:
        """Return an output that stays; where its type is not known here, the array."""
        dtype = self._types[name]
        if dtype is None:
            return np.asarray(value.numpy())
        return OnDevice([(value, value.shape()[0])], dtype, self)


def _on_host(feeds: Mapping[str, Array]) -> dict[str, Any]:
    """Return arrays as values to bind.

    Not with ``bind_cpu_input``: that does not know inputs with a default (1.32).
    """
    make = import_onnxruntime().OrtValue.ortvalue_from_numpy
    return {name: make(np.asarray(value, order="C")) for name, value in feeds.items()}
