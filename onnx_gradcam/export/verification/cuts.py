"""A part of a model as a function: from one tensor to others, with everything beside it held.

In: the analysis graph. Out: `Cut`, evaluated by stock onnxruntime in float32 or better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from onnx_gradcam.export.files.external_data import with_values
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.precision import HALVES
from onnx_gradcam.export.sessions import open_session
from onnx_gradcam.export.verification.score_function import (
    Array,
    at_least_float32,
    cut_between,
    widen,
)

_MIN_IR = 4  # from here on initializers need not be graph inputs


class Cut:
    """The nodes between a tensor and others.

    Args:
        graph: the analysis graph of the model.
        base_dir: where its external data lies.
        source: the tensor to begin with.
        goals: the tensors to compute.
    """

    def __init__(
        self, graph: Graph, base_dir: Path | None, source: str, goals: Sequence[str]
    ) -> None:
        """Find the nodes, and the tensors that by-pass the source."""
        self.source = source
        self.goals = list(goals)
        self._graph = graph
        self._base_dir = base_dir
        self._nodes, self._initializers, self.bypassing = cut_between(graph, source, set(goals))
        self._session: Any = None

    def __call__(self, value: Array, beside: Mapping[str, Array]) -> dict[str, Array]:
        """Return the goals, by name, for a value of the source.

        Args:
            value: of the source.
            beside: values of the tensors `bypassing`, among others.
        """
        feeds = {name: at_least_float32(beside[name]) for name in self.bypassing}
        feeds[self.source] = at_least_float32(value)
        if self._session is None:
            self._session = open_session(self._build(feeds), optimise=True)
        found = self._session.run(self.goals, feeds)
        return dict(zip(self.goals, found, strict=True))

    def _build(self, feeds: Mapping[str, Array]) -> bytes:
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim
            )
            for name, value in feeds.items()
        ]
        source = self._graph.model
        model = onnx.ModelProto(
            ir_version=max(source.ir_version, _MIN_IR),
            opset_import=source.opset_import,
            functions=source.functions,
        )
        model.graph.name = "cut"
        model.graph.node.extend(self._nodes)
        model.graph.input.extend(inputs)
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.goals)
        for tensor in self._initializers:
            model.graph.initializer.append(with_values(tensor, self._base_dir))
        widen(model.graph, HALVES, TensorProto.FLOAT)
        data: bytes = model.SerializeToString()
        return data
