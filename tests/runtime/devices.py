"""The CPU in the place of a device: IOBinding, values that stay, maps made where they lie."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from onnx_gradcam.runtime import Explainer
from onnx_gradcam.runtime.device_run import Device, DeviceRun
from onnx_gradcam.runtime.graph_run import GraphRun
from onnx_gradcam.runtime.layers import layer_outputs


def stays(explainer: Explainer) -> list[str]:
    return layer_outputs(range(len(explainer.metadata.layers)))


def on_stand_in(explainer: Explainer, kind: type[DeviceRun] = DeviceRun) -> Explainer:
    """Return the explainer, running from now on as on a device."""
    run = kind(explainer._session, Device("cpu", graphs=kind is GraphRun), stays(explainer))
    explainer._runner = replace(explainer._runner, device=run)
    if explainer._reruns is not None:
        explainer._reruns.runner = explainer._runner
    return explainer


class SessionOnCuda:
    """A session that says that it works on a device."""

    def __init__(self, session: Any, number: str = "0", **options: str) -> None:
        self._session = session
        self._options = {"device_id": number, **options}

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {"CUDAExecutionProvider": self._options, "CPUExecutionProvider": {}}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def nodes(*shapes: Collection[Any], kind: str = "tensor(float)") -> list[Any]:
    """Return declarations of inputs or outputs."""
    return [SimpleNamespace(name=f"n{i}", shape=list(s), type=kind) for i, s in enumerate(shapes)]
