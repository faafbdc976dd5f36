"""A read-only view of a model's main graph: who makes and reads each tensor, types, constants.

In: a ModelProto (large weights may still lie in external files). Out: `Graph`, which everything
in this package that looks at the forward model is written on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.gradients.emitter import Array, Dim, TensorType

FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
)

_SKELETON_LIMIT = 1024
"""Initializers above this many elements are left out of shape inference: no shape is in them."""

_FOLD_LIMIT = 65536
"""Computed constants above this many elements are not evaluated."""

_NOT_CONSTANT = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"}
)


class Graph:
    """The main graph of a model, indexed.

    Args:
        model: the model; it is not changed.
        tensor_values: fetches the values of an initializer, from an external file if need be.
    """

    def __init__(
        self,
        model: ModelProto,
        tensor_values: Callable[[TensorProto], Array] = numpy_helper.to_array,
    ) -> None:
        """Index nodes and initializers; types and constants are worked out when first needed."""
        self.model = model
        self.proto = model.graph
        self.nodes: list[NodeProto] = list(model.graph.node)
        self._tensor_values = tensor_values
        self.initializers = {t.name: t for t in model.graph.initializer}
        self.producer: dict[str, int] = {}
        self.consumers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in node.output:
                if name:
                    self.producer[name] = index
            for name in self.reads(node):
                self.consumers.setdefault(name, []).append(index)
        self._constants: dict[str, Array | None] = {}

    @staticmethod
    def reads(node: NodeProto) -> list[str]:
        """Return all tensors that a node reads, those of its sub-graphs included."""
        names = [name for name in node.input if name]
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for graph in graphs:
                inner = {o for n in graph.node for o in n.output}
                inner |= {i.name for i in graph.input} | {t.name for t in graph.initializer}
                outer = (r for n in graph.node for r in Graph.reads(n))
                names += [r for r in outer if r not in inner]
                names += [o.name for o in graph.output if o.name not in inner]
        return names

    # -- versions, inputs, outputs -------------------------------------------------------------

    def opset(self, domain: str = "") -> int:
        """Return the version of an operator domain, 0 when the model does not import it."""
        names = {"", "ai.onnx"} if domain in {"", "ai.onnx"} else {domain}
        return max((o.version for o in self.model.opset_import if o.domain in names), default=0)

    @cached_property
    def inputs(self) -> list[ValueInfoProto]:
        """The graph inputs that have no initializer, in order."""
        return [i for i in self.proto.input if i.name not in self.initializers]

    @cached_property
    def outputs(self) -> list[str]:
        """Names of the graph outputs, in order."""
        return [o.name for o in self.proto.output]

    @cached_property
    def names(self) -> set[str]:
        """Every tensor and node name in the main graph."""
        names = {i.name for i in self.proto.input} | set(self.initializers) | set(self.producer)
        return names | {node.name for node in self.nodes if node.name} | set(self.outputs)

    # -- types ---------------------------------------------------------------------------------

    @cached_property
    def types(self) -> dict[str, TensorType]:
        """Types of all tensors, as far as ONNX shape inference finds them."""
        inferred = _infer(_skeleton(self.model))
        types = {
            name: TensorType(t.data_type, tuple(t.dims)) for name, t in self.initializers.items()
        }
        graph = inferred.graph
        for value in (*graph.input, *graph.value_info, *graph.output):
            known = _type_of(value)
            if known is not None and value.name not in types:
                types[value.name] = known
        return types

    def type_of(self, name: str) -> TensorType | None:
        """Return the type of a tensor, None when unknown."""
        return self.types.get(name)

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """Return the shape of a tensor as far as it is known."""
        known = self.types.get(name)
        return known.shape if known else None

    def is_float(self, name: str) -> bool:
        """Return whether a tensor can carry a gradient; unknown types are taken to be float."""
        known = self.types.get(name)
        return known is None or known.dtype in FLOATS

    # -- constants -----------------------------------------------------------------------------

    def constant(self, name: str) -> Array | None:
        """Return the value of a tensor that does not depend on any input, else None.

        Initializers, Constant nodes, and small results of operators on these, among them the
        shapes of tensors whose shape is static.
        """
        if name not in self._constants:
            self._constants[name] = None  # a cycle would end here
            self._constants[name] = self._evaluate(name)
        return self._constants[name]

    def _evaluate(self, name: str) -> Array | None:
        if name in self.initializers:
            return self._tensor_values(self.initializers[name])
        index = self.producer.get(name)
        if index is None:
            return None
        node = self.nodes[index]
        if node.op_type == "Shape" and node.domain in {"", "ai.onnx"}:
            return _static_shape(node, self.shape(node.input[0]))
        if node.op_type in _NOT_CONSTANT or any(a.HasField("g") for a in node.attribute):
            return None
        known = self.types.get(name)
        if known is None or known.shape is None or not _is_small(known.shape):
            return None
        feeds: dict[str, Array] = {}
        for read in node.input:
            value = self.constant(read) if read else None
            if read and value is None:
                return None
            if value is not None:
                feeds[read] = value
        return _run_node(node, feeds, self.model, list(node.output).index(name))

    # -- reachability --------------------------------------------------------------------------

    def depends_on(self, sources: Iterable[str]) -> set[str]:
        """Return all tensors that depend on `sources` by differentiable data flow.

        Integer and boolean results (shapes, indices, masks) carry no gradient and end the flow.
        """
        reached = set(sources)
        for node in self.nodes:
            if any(name in reached for name in self.reads(node)):
                reached.update(o for o in node.output if o and self.is_float(o))
        return reached

    def leads_to(self, target: str) -> set[str]:
        """Return all tensors that `target` is computed from, itself included."""
        reached = {target}
        for node in reversed(self.nodes):
            if any(o in reached for o in node.output):
                reached.update(self.reads(node))
        return reached


def describe(node: NodeProto, opset: int) -> str:
    """Return ``ai.onnx::Conv-17 (node '/layer1/conv')`` for messages."""
    name = node.name or next((o for o in node.output if o), "")
    return f"{node.domain or 'ai.onnx'}::{node.op_type}-{opset} (node {name!r})"


def _skeleton(model: ModelProto) -> ModelProto:
    """Return the model with large initializers turned into inputs, to be cheap to copy."""
    copy = ModelProto()
    copy.ir_version = model.ir_version
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    graph = copy.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    declared = {i.name for i in graph.input}
    for tensor in model.graph.initializer:
        small = math.prod(tensor.dims) <= _SKELETON_LIMIT
        if small and tensor.data_location != TensorProto.EXTERNAL:
            graph.initializer.append(tensor)
        elif tensor.name not in declared:
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    return copy


def _infer(model: ModelProto) -> ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UnsupportedModelError(f"shape inference fails on the model: {reason}") from error


def _type_of(value: ValueInfoProto) -> TensorType | None:
    if not value.type.HasField("tensor_type"):
        return None
    tensor = value.type.tensor_type
    if not tensor.elem_type:
        return None
    if not tensor.HasField("shape"):
        return TensorType(tensor.elem_type)
    dims: list[Dim] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value"):
            dims.append(dim.dim_value)
        else:
            dims.append(dim.dim_param or None)
    return TensorType(tensor.elem_type, tuple(dims))


def _is_small(shape: tuple[Dim, ...]) -> bool:
    sizes = [d for d in shape if isinstance(d, int)]
    return len(sizes) == len(shape) and math.prod(sizes) <= _FOLD_LIMIT


def _static_shape(node: NodeProto, shape: tuple[Dim, ...] | None) -> Array | None:
    if shape is None:
        return None
    bounds = {a.name: a.i for a in node.attribute}
    part = shape[bounds.get("start", 0) : bounds.get("end")]
    if not all(isinstance(d, int) for d in part):
        return None
    return np.array(part, dtype=np.int64)


def _run_node(
    node: NodeProto, feeds: dict[str, Array], model: ModelProto, output: int
) -> Array | None:
    """Evaluate one node with ONNX's reference implementation; None where it has none."""
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - slow to import, rarely needed

    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in feeds.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "constant", inputs, outputs)
    single = helper.make_model(graph, opset_imports=list(model.opset_import))
    try:
        return np.asarray(ReferenceEvaluator(single).run(None, feeds)[output])
    except Exception:  # noqa: BLE001 - whatever it cannot evaluate is simply not constant
        return None
