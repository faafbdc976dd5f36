"""Values that are known before any image is: weights, Constant nodes, and arithmetic on shapes.

Exporters write sizes as arithmetic on Shape (Gather, Add, Div, Concat, ...). Where the sizes that
are picked are static, the results are constants although the batch size is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from onnx_gradcam.gradients.emitter import Array, Dim, TensorType
from onnx_gradcam.gradients.registry import attribute_of

_FOLD_LIMIT = 65536
"""Computed constants above this many elements are not evaluated."""

_NOT_CONSTANT = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"}
)

Partial = NDArray[np.object_]
"""Integers some of which are unknown: elements are int, or None or a symbol."""


class Constants:
    """Looks up constant tensors of a graph.

    Args:
        model: gives the operator versions.
        producers: tensor -> the node that computes it.
        initializers: tensor -> its TensorProto.
        tensor_values: fetches the values of an initializer.
        types: what is known of types and shapes.
        known: values found before, to be kept.
    """

    def __init__(
        self,
        model: ModelProto,
        producers: Mapping[str, NodeProto],
        initializers: Mapping[str, TensorProto],
        tensor_values: Callable[[TensorProto], Array],
        types: Mapping[str, TensorType],
        known: Mapping[str, Array] | None = None,
    ) -> None:
        """Start with what is known."""
        self._model = model
        self._producers = producers
        self._initializers = initializers
        self._tensor_values = tensor_values
        self._types = types
        self._values: dict[str, Array | None] = dict(known or {})
        self._partials: dict[str, Partial | None] = {}

    def value(self, name: str) -> Array | None:
        """Return the value of a tensor that depends on no input, else None."""
        if name not in self._values:
            self._values[name] = None  # a cycle would end here
            self._values[name] = self._evaluate(name)
        return self._values[name]

    def _evaluate(self, name: str) -> Array | None:
        if name in self._initializers:
            return self._tensor_values(self._initializers[name])
        node = self._producers.get(name)
        if node is None:
            return None
        partial = self._partial(name)
        if partial is not None:
            return _whole(partial)
        if node.op_type in _NOT_CONSTANT or any(a.HasField("g") for a in node.attribute):
            return None
        known = self._types.get(name)
        if known is not None and known.shape is not None and not _is_small(known.shape):
            return None
        feeds: dict[str, Array] = {}
        for read in node.input:
            value = self.value(read) if read else None
            if read and value is None:
                return None
            if value is not None:
                feeds[read] = value
        if known is None and sum(v.size for v in feeds.values()) > _FOLD_LIMIT:
            return None
        return _run_node(node, feeds, self._model, list(node.output).index(name))

    # -- shapes of which some sizes are unknown --------------------------------------------------

    def _partial(self, name: str) -> Partial | None:
        """Return integers computed from Shape as far as they are known, None for other tensors."""
        if name not in self._partials:
            self._partials[name] = None
            node = self._producers.get(name)
            rule = _PARTIAL_RULES.get(node.op_type) if node is not None else None
            if node is not None and rule is not None and node.domain in {"", "ai.onnx"}:
                self._partials[name] = rule(self, node)
        return self._partials[name]

    def partial_or_value(self, name: str) -> Partial | None:
        """Return a partial shape, or a small constant as one."""
        partial = self._partial(name)
        if partial is None:
            value = self.value(name)
            if value is None or value.dtype.kind not in "iu":
                return None
            partial = value.astype(object)
        return partial

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """Return the shape of a tensor as far as it is known."""
        known = self._types.get(name)
        return known.shape if known else None


def _whole(partial: Partial) -> Array | None:
    if not all(isinstance(v, (int, np.integer)) for v in partial.reshape(-1)):
        return None
    return partial.astype(np.int64)


def _shape(constants: Constants, node: NodeProto) -> Partial | None:
    shape = constants.shape(node.input[0])
    if shape is None:
        return None
    part = shape[attribute_of(node, "start", 0) : attribute_of(node, "end")]
    result = np.empty(len(part), dtype=object)
    result[:] = part
    return result


def _unchanged(constants: Constants, node: NodeProto) -> Partial | None:
    if node.op_type == "Cast" and attribute_of(node, "to") not in {
        TensorProto.INT64,
        TensorProto.INT32,
    }:
        return None
    return constants._partial(node.input[0])


def _gather(constants: Constants, node: NodeProto) -> Partial | None:
    data, index = constants._partial(node.input[0]), constants.value(node.input[1])
    if data is None or index is None or attribute_of(node, "axis", 0) != 0:
        return None
    return np.asarray(np.take(data, index), dtype=object)


def _slice(constants: Constants, node: NodeProto) -> Partial | None:
    data = constants._partial(node.input[0])
    if data is None or data.ndim != 1:
        return None
    if len(node.input) == 1:
        bounds: list[Any] = [attribute_of(node, "starts"), attribute_of(node, "ends")]
    else:
        bounds = [constants.value(name) for name in node.input[1:3]]
    if any(b is None for b in bounds):
        return None
    step = constants.value(node.input[4]) if len(node.input) > 4 else np.array([1])
    if step is None:
        return None
    return data[int(bounds[0][0]) : int(bounds[1][0]) : int(step[0])]


def _concat(constants: Constants, node: NodeProto) -> Partial | None:
    parts = [constants.partial_or_value(name) for name in node.input]
    known = [p for p in parts if p is not None]
    if len(known) != len(parts) or any(p.ndim != 1 for p in known):
        return None
    return np.concatenate(known)


def _reshaped(constants: Constants, node: NodeProto) -> Partial | None:
    """Squeeze and Unsqueeze between a size and a list of one size."""
    data = constants._partial(node.input[0])
    if data is None or data.size != 1:
        return None
    return data.reshape([1] if node.op_type == "Unsqueeze" else [])


_PARTIAL_RULES: dict[str, Callable[[Constants, NodeProto], Partial | None]] = {
    "Cast": _unchanged,
    "Concat": _concat,
    "Gather": _gather,
    "Identity": _unchanged,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _reshaped,
    "Unsqueeze": _reshaped,
}


def _is_small(shape: tuple[Dim, ...]) -> bool:
    sizes = [d for d in shape if isinstance(d, int)]
    return len(sizes) == len(shape) and math.prod(sizes) <= _FOLD_LIMIT


def _run_node(
    node: NodeProto, feeds: dict[str, Array], model: ModelProto, output: int
) -> Array | None:
    """Evaluate one node with ONNX's reference implementation; None where it has none."""
    from onnx.reference import ReferenceEvaluator  # slow, rarely needed

    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in feeds.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "constant", inputs, outputs)
    single = helper.make_model(graph, opset_imports=list(model.opset_import))
    try:
        results = ReferenceEvaluator(single).run(None, feeds)
    except Exception:  # whatever it cannot evaluate is simply not constant
        return None
    return np.asarray(list(results)[output])
