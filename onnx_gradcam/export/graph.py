"""A read-only view of a model's main graph: who makes and reads each tensor, types, constants.

In: a ModelProto (large weights may still lie in external files). Out: `Graph`, which everything
in this package that looks at the forward model is written on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property, partial

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from onnx_gradcam.export.quantized.flow import carrying_results
from onnx_gradcam.export.shapes.runtime_types import ask_runtime
from onnx_gradcam.export.shapes.types import Inferred, infer_types
from onnx_gradcam.gradients.clipping import Flow
from onnx_gradcam.gradients.emitter import Array, Dim, TensorType
from onnx_gradcam.gradients.registry import FLOATS

__all__ = ["FLOATS", "Graph", "describe"]


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
        self.original = model
        """The model in the file; `model` is an expanded copy where `expansion` made one."""
        self.expansion_nodes: list[NodeProto] = []
        self.expansion_initializers: list[TensorProto] = []
        self.unexpanded: dict[str, str] = {}
        """Why a node stayed that an expansion exists for, by its first output."""
        self.proto = model.graph
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.tensor_values = tensor_values
        self.initializers = {t.name: t for t in model.graph.initializer}
        self.producer: dict[str, int] = {}
        self.consumers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in node.output:
                if name:
                    self.producer[name] = index
            for name in self.reads(node):
                self.consumers.setdefault(name, []).append(index)

    @staticmethod
    def reads(node: NodeProto) -> list[str]:
        """Return all tensors that a node reads, those of its sub-graphs included."""
        names = [name for name in node.input if name]
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.HasField("g") else attribute.graphs
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
    def overridable(self) -> frozenset[str]:
        """Names of initializers that are inputs too: defaults, from IR 4 on."""
        if self.model.ir_version < 4:
            return frozenset()
        return frozenset(i.name for i in self.proto.input if i.name in self.initializers)

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
    def _inferred(self) -> Inferred:
        return infer_types(
            self.model, self.tensor_values, partial(ask_runtime, self.model, self.tensor_values)
        )

    @property
    def types(self) -> dict[str, TensorType]:
        """Types of all tensors, as far as they can be inferred."""
        return self._inferred.types

    @property
    def stale(self) -> frozenset[str]:
        """Tensors whose declared shape contradicts the inputs of the model."""
        return self._inferred.stale

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

        Initializers, Constant nodes, and small results of operators on these and on the static
        sizes of tensors.
        """
        return self._inferred.constants.value(name)

    # -- neighbours ----------------------------------------------------------------------------

    def producer_of(self, name: str) -> NodeProto | None:
        """Return the node that computes a tensor, None for inputs and weights."""
        index = self.producer.get(name)
        return None if index is None else self.nodes[index]

    def readers_of(self, name: str) -> list[NodeProto]:
        """Return the nodes that read a tensor, each once."""
        return [self.nodes[index] for index in dict.fromkeys(self.consumers.get(name, []))]

    @cached_property
    def flow(self) -> Flow:
        """This graph as `gradients.clipping` asks about it."""
        return Flow(
            self.producer_of,
            self.readers_of,
            lambda name: name in self.outputs,
            self.constant,
            lambda name: self.types[name].dtype if name in self.types else int(TensorProto.FLOAT),
        )

    # -- reachability --------------------------------------------------------------------------

    def depends_on(self, sources: Iterable[str]) -> set[str]:
        """Return all tensors that depend on `sources` by differentiable data flow.

        Shapes, indices and masks carry no gradient and end the flow; quantized numbers do not.
        """
        reached = set(sources)
        for node in self.nodes:
            found = [name for name in self.reads(node) if name in reached]
            if found:
                reached.update(carrying_results(node, found, self.is_float))
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
