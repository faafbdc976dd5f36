"""What every emitter stands on: names, raw nodes, constants, and what is known of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

Dim = int | str | None
"""A known size, a symbol (equal symbols are equal sizes), or None when nothing is known."""

Array = NDArray[Any]

_OUTPUT_DTYPE = {
    "Shape": TensorProto.INT64,
    "Less": TensorProto.BOOL,
    "Greater": TensorProto.BOOL,
    "Equal": TensorProto.BOOL,
    "Not": TensorProto.BOOL,
    "And": TensorProto.BOOL,
    "Or": TensorProto.BOOL,
    "NonZero": TensorProto.INT64,
    "Size": TensorProto.INT64,
}


@dataclass(frozen=True)
class TensorType:
    """Element type (an onnx.TensorProto number) and, where known, the shape of a tensor."""

    dtype: int
    shape: tuple[Dim, ...] | None = None


class NodeWriter:
    """Appends nodes to a list; every method returns the name of the tensor it produced.

    Args:
        opset: version of the default operator domain to write in.
        types: types of the tensors that exist already (forward graph); grows with what is emitted.
        constants: value of a constant tensor of the forward graph, or None.
        prefix: start of every name that is added.
        taken: names in use that must not be produced again.
    """

    def __init__(
        self,
        opset: int,
        types: Mapping[str, TensorType],
        constants: Callable[[str], Array | None],
        prefix: str,
        taken: Sequence[str] = (),
    ) -> None:
        """Start with no nodes."""
        self.opset = opset
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._types = dict(types)
        self._forward_constants = constants
        self.prefix = prefix
        self._taken = set(taken)
        self._counters: dict[str, int] = {}
        self._scope = ""
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._values: dict[str, Array] = {}
        self.measured: dict[str, str] = {}
        """For results of Shape and Size: the tensor that was measured."""

    # -- what is known about tensors ---------------------------------------------------------

    def type_of(self, name: str) -> TensorType | None:
        """Return the type of a tensor, None when it is unknown."""
        return self._types.get(name)

    def dtype(self, name: str) -> int:
        """Return the element type of a tensor, float32 when nothing is known."""
        known = self._types.get(name)
        return known.dtype if known else int(TensorProto.FLOAT)

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """Return the shape of a tensor as far as it is known."""
        known = self._types.get(name)
        return known.shape if known else None

    def value(self, name: str) -> Array | None:
        """Return the value of a constant tensor, None when it is not constant."""
        if name in self._values:
            return self._values[name]
        return self._forward_constants(name)

    def declare(self, name: str, dtype: int, shape: Sequence[Dim] | None = None) -> None:
        """Record the type of a tensor that a caller knows better."""
        self._types[name] = TensorType(dtype, None if shape is None else tuple(shape))

    # -- naming and raw nodes ----------------------------------------------------------------

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put `name` into the names of everything emitted inside the block."""
        previous, self._scope = self._scope, name
        try:
            yield
        finally:
            self._scope = previous

    def unique(self, hint: str) -> str:
        """Return a new name that shows the scope and the hint."""
        base = self.prefix + (f"{self._scope}/" if self._scope else "") + hint
        while True:
            count = self._counters.get(base, 0)
            self._counters[base] = count + 1
            name = f"{base}_{count}" if count else base
            if name not in self._taken:
                self._taken.add(name)
                return name

    def node(
        self,
        op_type: str,
        inputs: Sequence[str],
        *,
        hint: str | None = None,
        dtype: int | None = None,
        output: str | None = None,
        **attributes: Any,
    ) -> str:
        """Append one standard node with one output and return that output's name."""
        name = self.unique(hint or op_type)
        result = output or name
        attributes = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(
            helper.make_node(op_type, list(inputs), [result], name=name, **attributes)
        )
        if dtype is None:
            dtype = _OUTPUT_DTYPE.get(op_type, self.dtype(inputs[0]))
        self._types[result] = TensorType(dtype)
        if op_type in {"Shape", "Size"}:
            self.measured[result] = inputs[0]
        return result

    def nodes_with_outputs(
        self, op_type: str, inputs: Sequence[str], count: int, **attributes: Any
    ) -> list[str]:
        """Append one node with `count` outputs (Split, TopK) of the first input's type."""
        names = [self.unique(op_type) for _ in range(count)]
        self.nodes.append(
            helper.make_node(op_type, list(inputs), names, name=names[0], **attributes)
        )
        for name in names:
            self._types[name] = TensorType(self.dtype(inputs[0]))
        return names

    # -- constants ---------------------------------------------------------------------------

    def constant(self, value: Array, hint: str = "constant") -> str:
        """Return an initializer of this value; equal values share one."""
        value = np.asarray(value)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._known:
            scope, self._scope = self._scope, "constants"
            name = self.unique(hint)
            self._scope = scope
            self.initializers.append(numpy_helper.from_array(value, name))
            self.declare(name, self.initializers[-1].data_type, value.shape)
            self._known[key] = name
            self._values[name] = value
        return self._known[key]

    def ints(self, values: Sequence[int]) -> str:
        """Return an int64 constant ``(len,)``."""
        return self.constant(np.array(list(values), dtype=np.int64), "ints")

    def filled(self, value: ArrayLike, like: str) -> str:
        """Return a constant of the element type of `like`."""
        dtype = helper.tensor_dtype_to_np_dtype(self.dtype(like))
        return self.constant(np.asarray(value, dtype=dtype), "value")
