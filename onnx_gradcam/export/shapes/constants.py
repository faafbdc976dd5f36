"""Values that are known before any image is: weights, Constant nodes, and arithmetic on shapes.

Where the sizes that an exporter's arithmetic picks are static, the results are constants although
the batch size is not. Type inference fills this while it walks over the nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_gradcam.export.shapes.partial_values import LARGEST, RULES, Partial, as_objects
from onnx_gradcam.export.shapes.sizes import Sizes
from onnx_gradcam.gradients.emitter import Array, Dim, TensorType
from onnx_gradcam.gradients.registry import FLOATS

_FOLD_LIMIT = 65536
"""Computed constants above this many elements are not evaluated."""

_INTEGERS = frozenset({TensorProto.INT64, TensorProto.INT32})

_NOT_CONSTANT = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"}
)

_DIRECT = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32}
_DIRECT["value_floats"] = np.float32
"""Attributes of Constant that are numbers, and the type they have."""


class Constants:
    """Looks up constant tensors of a graph.

    Args:
        model: gives the operator versions.
        initializers: tensor -> its TensorProto.
        tensor_values: fetches the values of an initializer.
        types: what is known of types and shapes; grows while the nodes are walked over.
        sizes: computes with symbols.
    """

    def __init__(
        self,
        model: ModelProto,
        initializers: Mapping[str, TensorProto],
        tensor_values: Callable[[TensorProto], Array],
        types: Mapping[str, TensorType],
        sizes: Sizes,
    ) -> None:
        """Start with the initializers."""
        self.sizes = sizes
        self._model = model
        self._initializers = initializers
        self._tensor_values = tensor_values
        self._types = types
        self._fixed: dict[str, NodeProto] = {}
        self._values: dict[str, Array | None] = {}
        self._partials: dict[str, Partial] = {}
        self._small_tensors: dict[str, TensorProto] = {}

    def visit(self, node: NodeProto) -> None:
        """Take note of a node whose inputs were visited and whose outputs have their types."""
        if self._is_fixed(node):
            self._fixed.update((name, node) for name in node.output if name)
        rule = RULES.get(node.op_type)
        if rule is None or node.domain not in {"", "ai.onnx"}:
            return
        from_shape = node.op_type in {"Shape", "Size"}
        if (from_shape or any(i in self._partials for i in node.input)) and self._is_small(
            node.output[0], LARGEST
        ):
            partial = rule(self, node)
            if partial is not None:
                self._partials[node.output[0]] = partial

    def _is_fixed(self, node: NodeProto) -> bool:
        if node.op_type in _NOT_CONSTANT or any(a.HasField("g") for a in node.attribute):
            return False
        return all(not i or self.is_constant(i) for i in node.input)

    def is_constant(self, name: str) -> bool:
        """Return whether a visited tensor depends on no input."""
        return name in self._initializers or name in self._fixed or name in self._values

    def _is_small(self, name: str, limit: int) -> bool:
        shape = self.shape(name)
        if shape is None:
            return False
        sizes = [d for d in shape if isinstance(d, int)]
        return len(sizes) == len(shape) and math.prod(sizes) <= limit

    def value(self, name: str) -> Array | None:
        """Return the value of a tensor that depends on no input, else None."""
        if name not in self._values:
            value = self._evaluate(name)
            if value is None and not self.is_constant(name):
                return None  # its node may not have been visited yet
            self._values[name] = value
        return self._values[name]

    def _evaluate(self, name: str) -> Array | None:
        if name in self._initializers:
            return self._tensor_values(self._initializers[name])
        if name in self._partials:
            return _whole(self._partials[name], self._types[name])
        node = self._fixed.get(name)
        if node is None:
            return None
        if node.op_type == "Constant":
            return self._of_constant_node(node)
        known = self._types.get(name)
        if known is not None and known.dtype in _INTEGERS and self._is_small(name, LARGEST):
            rule = RULES.get(node.op_type)
            partial = rule(self, node) if rule is not None and not node.domain else None
            if partial is not None:
                return _whole(partial, known)
        if known is not None and known.shape is not None and not self._is_small(name, _FOLD_LIMIT):
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

    def _of_constant_node(self, node: NodeProto) -> Array | None:
        for attribute in node.attribute:
            if attribute.name == "value":
                return self._tensor_values(attribute.t)
            if attribute.name in _DIRECT:
                values = helper.get_attribute_value(attribute)
                return np.asarray(values, _DIRECT[attribute.name])
        return _run_node(node, {}, self._model, 0)

    # -- what the rules of `partial_values` ask for ----------------------------------------------

    def partial_or_value(self, name: str) -> Partial | None:
        """Return a value of which some elements may be unknown; None for large tensors."""
        if name in self._partials:
            return self._partials[name]
        if not self._is_small(name, LARGEST):
            return None
        value = self.value(name)
        return None if value is None or value.dtype.kind not in "iufb" else as_objects(value)

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """Return the shape of a tensor as far as it is known."""
        known = self._types.get(name)
        return known.shape if known else None

    def is_float(self, name: str) -> bool:
        """Return whether a tensor is known to hold floats."""
        known = self._types.get(name)
        return known is not None and known.dtype in FLOATS

    def small_tensor(self, name: str) -> TensorProto | None:
        """Return a constant of few elements for ONNX's shape inference, else None."""
        if not self._is_small(name, LARGEST) or len(self.shape(name) or ()) > 1:
            return None
        if name not in self._small_tensors:
            tensor = self._stored(name)
            if tensor is None:
                value = self.value(name)
                if value is None:
                    return None
                tensor = numpy_helper.from_array(value, name)
            self._small_tensors[name] = tensor
        return self._small_tensors[name]

    def _stored(self, name: str) -> TensorProto | None:
        """Return the tensor that a Constant node holds; models have thousands of them."""
        node = self._fixed.get(name)
        if node is None or node.op_type != "Constant" or name in self._initializers:
            return None
        values = next((a.t for a in node.attribute if a.name == "value"), None)
        inside = values is not None and values.data_location != TensorProto.EXTERNAL
        return values if inside else None


def _whole(partial: Partial, known: TensorType) -> Array | None:
    if any(v is None or isinstance(v, str) for v in partial.reshape(-1)):
        return None
    return partial.astype(helper.tensor_dtype_to_np_dtype(known.dtype))


def _run_node(
    node: NodeProto, feeds: dict[str, Array], model: ModelProto, output: int
) -> Array | None:
    """Evaluate one node with ONNX's reference implementation; None where it has none."""
    from onnx_gradcam.export.reference.operators import evaluator  # slow, rarely needed

    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in feeds.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "constant", inputs, outputs)
    single = helper.make_model(graph, opset_imports=list(model.opset_import))
    try:
        with np.errstate(all="ignore"):  # infinities of masks are wanted
            results = evaluator(single).run(None, feeds)
    except Exception:  # whatever it cannot evaluate is simply not constant
        return None
    return np.asarray(list(results)[output])
