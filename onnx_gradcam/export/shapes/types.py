"""Types and shapes of all tensors: one walk over the nodes, in order.

Each node goes through ONNX's shape inference by itself, with the constants found so far; sizes
known at run time only keep their symbols (`shape_rules`), arithmetic on sizes is followed
(`constants`), and what a node demands of an input nothing is known of counts too. So an operator
that nobody knows ends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import onnx
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    defs,
    helper,
    inliner,
)

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.shapes import contrib_types, shape_rules
from onnx_gradcam.export.shapes.constants import Constants
from onnx_gradcam.export.shapes.partial_values import Partial
from onnx_gradcam.export.shapes.sizes import Sizes, is_invented
from onnx_gradcam.export.shapes.type_protos import (
    declared_types,
    outer_reads,
    outside_reads,
    tensor_type,
)
from onnx_gradcam.gradients.emitter import Array, Dim, TensorType
from onnx_gradcam.gradients.registry import attribute_of

_STANDARD = frozenset({"", "ai.onnx"})

Types = dict[str, TensorType]
Runtime = Callable[[Sequence[str]], Types]
"""Asks onnxruntime for the types of tensors that cannot be inferred."""


class Inferred(NamedTuple):
    """What was found.

    Attributes:
        types: tensor -> its type.
        constants: looks up values.
        stale: tensors whose declared shape contradicts the inputs of the model.
    """

    types: Types
    constants: Constants
    stale: frozenset[str]


def infer_types(
    model: ModelProto,
    tensor_values: Callable[[TensorProto], Array],
    ask_runtime: Runtime | None = None,
) -> Inferred:
    """Return the types of all tensors as far as they are known, and the constants.

    Args:
        model: the model; it is not changed.
        tensor_values: fetches the values of an initializer.
        ask_runtime: is asked for results of operators that no schema describes.

    Raises:
        UnsupportedModelError: a node belongs to an operator set that the model does not import.
    """
    nodes = list(model.graph.node)
    if model.functions:
        nodes = list(_inlined(model).graph.node)
    known: Types = {}
    for trust in (True, False):
        walk = _Walk(model, nodes, tensor_values, known, trust=trust)
        if walk.unknown and ask_runtime is not None:
            known |= ask_runtime(walk.unknown)
            walk = _Walk(model, nodes, tensor_values, known, trust=trust)
        ranks = walk.ranks_of_inputs()
        if ranks:
            walk = _Walk(model, nodes, tensor_values, known | ranks, trust=trust)
        if not walk.stale:
            break
    return Inferred(walk.types, walk.constants, frozenset(walk.stale))


def _inlined(model: ModelProto) -> ModelProto:
    """Return the nodes, those of model-local functions in place of their calls; no weights."""
    copy = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    copy.functions.extend(model.functions)
    copy.graph.name = model.graph.name or "graph"
    copy.graph.node.extend(model.graph.node)
    copy.graph.input.extend(model.graph.input)
    copy.graph.output.extend(model.graph.output)
    inlined: ModelProto = inliner.inline_local_functions(copy)
    return inlined


class _Walk:
    """One pass over the nodes.

    Attributes:
        types: what was found.
        constants: likewise.
        sizes: the symbols.
        unknown: results of operators that no schema describes and nothing declares.
        stale: tensors whose declared shape contradicts the inputs of the model.
    """

    def __init__(
        self,
        model: ModelProto,
        nodes: list[NodeProto],
        tensor_values: Callable[[TensorProto], Array],
        given: Types,
        *,
        trust: bool,
        sizes: Sizes | None = None,
    ) -> None:
        self._model = model
        self._nodes = nodes
        self._tensor_values = tensor_values
        self._opsets = {o.domain or "": o.version for o in model.opset_import}
        if "ai.onnx" in self._opsets:
            self._opsets[""] = self._opsets.pop("ai.onnx")
        self._imports = [helper.make_opsetid(d, v) for d, v in self._opsets.items()]
        self._trust = trust
        self._given = given
        graph = model.graph
        self._declared = declared_types([*graph.value_info, *graph.output])
        initializers = {t.name: t for t in graph.initializer}
        inputs = declared_types(i for i in graph.input if i.name not in initializers)
        self._symbols = {d for t in inputs.values() for d in t.shape or () if isinstance(d, str)}
        declared = (*inputs.values(), *self._declared.values())
        taken = {d for t in declared for d in t.shape or () if isinstance(d, str)}
        self.sizes = Sizes(taken) if sizes is None else sizes
        self.types: Types = {
            name: TensorType(t.data_type, tuple(t.dims)) for name, t in initializers.items()
        }
        for sparse in graph.sparse_initializer:
            kind = TensorType(sparse.values.data_type, tuple(sparse.dims))
            self.types[sparse.values.name] = kind
        self._others = {i.name: i.type for i in graph.input if i.name not in inputs}
        self._protos: dict[TensorType, TypeProto] = {}
        self._schemas: dict[tuple[str, str], defs.OpSchema | None] = {}
        self.constants = Constants(model, initializers, tensor_values, self.types, self.sizes)
        self.unknown: list[str] = []
        self.stale: set[str] = set()
        for name, kind in inputs.items():
            self._set(name, kind)
        for node in nodes:
            self._visit(node)

    # -- what the rules ask for ------------------------------------------------------------------

    def type_of(self, name: str) -> TensorType | None:
        return self.types.get(name)

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        known = self.types.get(name)
        return known.shape if known else None

    def value(self, name: str) -> Array | None:
        return self.constants.value(name)

    def partial_or_value(self, name: str) -> Partial | None:
        return self.constants.partial_or_value(name)

    # -- the walk --------------------------------------------------------------------------------

    def _visit(self, node: NodeProto) -> None:
        domain = "" if node.domain in _STANDARD else node.domain
        if domain not in self._opsets:
            raise UnsupportedModelError(
                f"shape inference fails on the model: No opset import for domain"
                f" {domain or 'ai.onnx'!r}, which node {node.name or node.output[0]!r} belongs to"
            )
        self._demand(node)
        found = self._infer(node, domain)
        if domain == "" and found and found[0] is not None:
            found[0] = self._refined(node, found[0])
        for name, kind in zip(node.output, found, strict=False):
            if name:
                self._set(name, kind)
        self.constants.visit(node)

    def _set(self, name: str, found: TensorType | None) -> None:
        """Note a tensor's type, with a symbol for each unknown size."""
        kind = self._merged(name, found)
        if kind is None:
            return
        if kind.shape is not None and None in kind.shape:
            shape = tuple(self.sizes.fresh() if size is None else size for size in kind.shape)
            kind = TensorType(kind.dtype, shape)
        self.types[name] = kind

    def _merged(self, name: str, found: TensorType | None) -> TensorType | None:
        """Return what was found, completed by what is declared or was given."""
        told = self._given.get(name) or self._declared.get(name)
        if told is None or (found is not None and told.shape is None):
            return found
        shape = told.shape
        if shape is not None and not (self._trust or name in self._given):
            shape = (None,) * len(shape)
        if found is None or found.shape is None:
            return TensorType(told.dtype if found is None else found.dtype, shape)
        if told.shape is None or shape is None:
            return found
        if self._contradicts(found.shape, told.shape):
            self.stale.add(name)
        if len(shape) != len(found.shape):
            return found
        return TensorType(found.dtype, tuple(map(self._better, found.shape, shape)))

    def _contradicts(self, found: tuple[Dim, ...], told: tuple[Dim, ...]) -> bool:
        """Return whether the model declares a number where it is another or an open one."""
        return len(found) != len(told) or any(
            isinstance(b, int) and a != b and not self._is_unknown(a)
            for a, b in zip(found, told, strict=True)
        )

    def _better(self, found: Dim, told: Dim) -> Dim:
        """Return the better known of two sizes."""
        if self._is_unknown(found) and (isinstance(told, int) or told in self._symbols):
            return told
        return found

    def _is_unknown(self, size: Dim) -> bool:
        return is_invented(size) and size not in self._symbols

    # -- one node --------------------------------------------------------------------------------

    def _infer(self, node: NodeProto, domain: str) -> list[TensorType | None]:
        branch = self._branch(node) if node.op_type == "If" and not domain else None
        if branch is not None:
            return self._of_branch(branch)
        if node.op_type == "Constant" and not domain and len(node.attribute) == 1:
            values = node.attribute[0]
            if values.name == "value" and values.HasField("t"):  # common, and schemas are slow
                return [TensorType(values.t.data_type, tuple(values.t.dims))]
        rule = contrib_types.RULES.get(domain, {}).get(node.op_type)
        if rule is not None:
            return rule(self, node)
        schema = self._schema(node.op_type, domain)
        if schema is None:
            self.unknown += [o for o in node.output if o and o not in self._declared | self._given]
            return [None] * len(node.output)
        names = [*node.input, *outer_reads(node)]
        data = {name: self.constants.small_tensor(name) for name in node.input if name}
        try:
            results = onnx.shape_inference.infer_node_outputs(
                schema,
                node,
                {name: self._proto(name) for name in names if name},
                {name: tensor for name, tensor in data.items() if tensor is not None},
                opset_imports=self._imports,
                ir_version=max(self._model.ir_version, 4),
            )
        except Exception:  # it refuses what onnxruntime may run, in a branch not taken, say
            return [None] * len(node.output)
        self._others |= {n: t for n, t in results.items() if not t.HasField("tensor_type")}
        return [tensor_type(results[o]) if o in results else None for o in node.output]

    def _schema(self, op_type: str, domain: str) -> defs.OpSchema | None:
        """Return what ONNX knows of an operator, None for nothing."""
        key = op_type, domain
        if key not in self._schemas:
            version = self._opsets[domain]
            known = defs.has(op_type, version, domain)
            self._schemas[key] = defs.get_schema(op_type, version, domain) if known else None
        return self._schemas[key]

    def _proto(self, name: str) -> TypeProto:
        kind = self.types.get(name)
        if kind is None:
            return self._others.get(name) or TypeProto()
        if kind not in self._protos:
            self._protos[kind] = helper.make_tensor_type_proto(kind.dtype, kind.shape)
        return self._protos[kind]

    def _refined(self, node: NodeProto, found: TensorType) -> TensorType:
        """Return the type with the symbols that ONNX's inference gave up."""
        rule = shape_rules.RULES.get(node.op_type)
        mistaken = bool(attribute_of(node, "ceil_mode", 0))  # of a pooling
        known = found.shape is not None and None not in found.shape
        if rule is None or (known and not mistaken):
            return found
        shape = rule(self, node, found.shape)
        if shape is None or (found.shape is not None and len(shape) != len(found.shape)):
            return found
        if found.shape is None:
            return TensorType(found.dtype, shape)
        pairs = zip(found.shape, shape, strict=True)
        return TensorType(found.dtype, tuple(b if a is None or mistaken else a for a, b in pairs))

    def _branch(self, node: NodeProto) -> GraphProto | None:
        """Return the branch that an If takes when its condition is constant."""
        condition = self.constants.value(node.input[0])
        if condition is None:
            return None
        name = "then_branch" if condition.reshape(-1)[0] else "else_branch"
        branch: GraphProto | None = attribute_of(node, name)
        return branch

    def _of_branch(self, branch: GraphProto) -> list[TensorType | None]:
        model = ModelProto(ir_version=self._model.ir_version, opset_import=self._model.opset_import)
        model.graph.CopyFrom(branch)
        for name in dict.fromkeys(outside_reads(branch)):
            constant = self.constants.small_tensor(name)
            if constant is not None:
                model.graph.initializer.append(constant)
            else:
                model.graph.input.append(ValueInfoProto(name=name, type=self._proto(name)))
        walk = _Walk(
            model,
            list(branch.node),
            self._tensor_values,
            {},
            trust=self._trust,
            sizes=self.sizes,
        )
        return [walk.types.get(value.name) for value in branch.output]

    # -- what a node demands of its inputs -------------------------------------------------------

    def _demand(self, node: NodeProto) -> None:
        """Take from a node's weights what its first input must be, where nothing is known of it."""
        name = node.input[0] if node.input else ""
        known = self.types.get(name)
        if not name or name in self._others or (known is not None and known.shape is not None):
            return
        weights = next((self.types[i] for i in node.input[1:] if i in self.types), None)
        if weights is None:
            return
        if node.op_type in _WEIGHTS:
            kernel = self.types.get(node.input[_WEIGHTS[node.op_type]])
            if kernel is None or kernel.shape is None:
                return
            channels = self.sizes.product([kernel.shape[1], attribute_of(node, "group", 1)])
            if node.op_type == "ConvTranspose":
                channels = kernel.shape[0]
            dtype = known.dtype if known else kernel.dtype
            spatial = (None,) * (len(kernel.shape) - 2)
            self._set(name, TensorType(dtype, (None, channels, *spatial)))
        elif known is None and node.op_type in _ONE_TYPE:
            self._set(name, TensorType(weights.dtype))

    def ranks_of_inputs(self) -> Types:
        """Return the inputs without a shape, with the rank that the nodes behind them reveal."""
        ranks = {n: len(t.shape) for n, t in self.types.items() if t.shape is not None}
        for node in reversed(self._nodes):
            rank = ranks.get(node.output[0]) if node.output else None
            if rank is None or node.op_type not in _KEEPS_RANK:
                continue
            for name in node.input[: 2 if node.op_type in _ARITHMETIC else 1]:
                if name and not self.constants.is_constant(name):
                    ranks.setdefault(name, rank)
        return {
            i.name: TensorType(self.types[i.name].dtype, (None,) * ranks[i.name])
            for i in self._model.graph.input
            if i.name in self.types and self.types[i.name].shape is None and i.name in ranks
        }


_WEIGHTS = {"Conv": 1, "ConvTranspose": 1}

_ARITHMETIC = frozenset({"Add", "Div", "Mul", "Sub"})

_ONE_TYPE = _ARITHMETIC | {"BatchNormalization", "Gemm", "LayerNormalization", "MatMul", "PRelu"}
"""Operators whose inputs are all of one type."""

_KEEPS_RANK = _ARITHMETIC | {
    *("BatchNormalization", "Cast", "Clip", "DequantizeLinear", "Dropout", "Identity"),
    *("InstanceNormalization", "LeakyRelu", "Neg", "Pad", "QuantizeLinear", "Relu", "Resize"),
    *("Sigmoid", "Tanh", "Transpose"),
}
