"""A model of one operator that is expanded, with values for its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]
Value = tuple[int, ...] | Array | None


@dataclass(frozen=True, eq=False)
class Case:
    """One node; `x`, its first input, is a graph input, the others are weights.

    Attributes:
        name: what it shows; unique.
        op_type: the operator.
        inputs: shapes of random float32 values, arrays, or None for an absent input.
        attributes: of the node.
        domain: of the operator.
        opset: of the default domain in the model.
        outputs: how many outputs the node has; empty names where False.
        variable: inputs that are graph inputs as well.
        batch: their axis whose size is a symbol.
        definition: in NumPy, where onnxruntime has no kernel on the CPU.
    """

    name: str
    op_type: str
    inputs: tuple[Value, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = "com.microsoft"
    opset: int = 17
    outputs: tuple[bool, ...] = (True,)
    variable: tuple[int, ...] = (0,)
    batch: int = 0
    definition: Callable[..., Array] | None = None

    def values(self) -> dict[str, Array]:
        """Return the values of all inputs by name, the same ones each time."""
        rng = np.random.default_rng(7)
        values = {}
        for name, given in zip(self.names(), self.inputs, strict=True):
            if given is not None:
                drawn = rng.uniform(-1.5, 1.5, given) if isinstance(given, tuple) else given
                values[name] = np.asarray(drawn, None if drawn.dtype != np.float64 else np.float32)
        return values

    def names(self) -> list[str]:
        """Return the names of the inputs, x first."""
        names = ["x", *(f"w{i}" for i in range(1, len(self.inputs)))]
        pairs = zip(names, self.inputs, strict=True)
        return [name if given is not None else "" for name, given in pairs]

    def feeds(self) -> dict[str, Array]:
        """Return the values of the graph inputs."""
        values, names = self.values(), self.names()
        return {names[i]: values[names[i]] for i in self.variable}

    def results(self) -> list[str]:
        """Return the names of the outputs that the node has."""
        return [f"y{i}" for i, wanted in enumerate(self.outputs) if wanted]

    def model(self, *, symbolic: bool = True) -> ModelProto:
        """Return the model; an axis of its inputs is symbolic, its outputs have no shape."""
        values, names = self.values(), self.names()
        outputs = [f"y{i}" if wanted else "" for i, wanted in enumerate(self.outputs)]
        node = helper.make_node(
            self.op_type, names, outputs, name="fused", domain=self.domain, **self.attributes
        )
        inputs, weights = [], []
        for index, name in enumerate(names):
            if not name:
                continue
            if index in self.variable:
                shape: list[Any] = list(values[name].shape)
                dtype = helper.np_dtype_to_tensor_dtype(values[name].dtype)
                if symbolic:
                    shape[self.batch] = "N"
                inputs.append(helper.make_tensor_value_info(name, dtype, shape))
            else:
                weights.append(numpy_helper.from_array(values[name], name))
        results = [helper.make_empty_tensor_value_info(name) for name in self.results()]
        for result in results:
            result.type.tensor_type.elem_type = 1
        graph = helper.make_graph([node], "case", inputs, results, weights)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)
