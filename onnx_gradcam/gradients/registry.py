"""The two tables of the package: gradients of forward operators, lowerings of training operators.

``@gradient("Relu")`` registers how dL/dx follows from dL/dy; the reverse builder calls it.
``@lowering("ReluGrad")`` registers how an operator that only training builds of onnxruntime
know is written in standard operators; the onnxruntime-training builder calls it. Both call the
same formula functions, so an operator's mathematics is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx import NodeProto, TensorProto, helper

from onnx_gradcam.gradients.emitter import Array, Dim, Emitter

Gradients = Sequence[str | None]
"""One gradient per input of the node, None where there is none; trailing ones may be left out.

A node whose gradient is wanted for an input that has none is refused.
"""

ZERO = ""
"""In the place of a gradient: it is zero wherever there is one, so nothing flows back."""

NEWEST_OPSET = 26
"""Highest opset of the default domain whose operators were compared with the formulas here."""

MICROSOFT = "com.microsoft"

FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
)
"""Element types in which gradients are computed."""


class FormulaError(Exception):
    """A formula does not cover this use of its operator; the message says which and why."""


def attribute_of(node: NodeProto, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute, bytes decoded, or the default."""
    for attribute in node.attribute:
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            return value.decode() if isinstance(value, bytes) else value
    return default


@dataclass
class Context:
    """What a formula sees of one node.

    Attributes:
        emit: where to write nodes.
        node: the forward node (gradients) or the training-only node (lowerings).
        inputs: names of its inputs, "" where an optional one is absent.
        outputs: names of its outputs.
        opset: version of the operator set that the node is written in.
        output_gradients: dL/d(output) per output, None where the score does not depend on it.
        wanted: whether the gradient of an input is asked for, per input.
        forward_node: the forward operator of a type that reads a tensor, if any (lowerings).
        producer: the forward node that computes a tensor, if any.
        readers: the forward nodes that read a tensor.
        is_output: whether a tensor is an output of the forward model.
        differentiated: the forward tensor whose gradient the node computes (lowerings).
    """

    emit: Emitter
    node: NodeProto
    inputs: list[str]
    outputs: list[str]
    opset: int
    output_gradients: list[str | None] = field(default_factory=list)
    wanted: list[bool] = field(default_factory=list)
    forward_node: Callable[[str, str], NodeProto | None] = lambda _op_type, _tensor: None
    producer: Callable[[str], NodeProto | None] = lambda _tensor: None
    readers: Callable[[str], Sequence[NodeProto]] = lambda _tensor: ()
    is_output: Callable[[str], bool] = lambda _tensor: False
    differentiated: str = ""

    @property
    def dy(self) -> str:
        """Return dL/d(first output), the only one most operators have.

        Raises:
            FormulaError: the score depends on another output of the node.
        """
        if not self.output_gradients or self.output_gradients[0] is None:
            raise FormulaError("only the gradient of the first output is known")
        if any(g is not None for g in self.output_gradients[1:]):
            raise FormulaError("the score depends on a second output")
        return self.output_gradients[0]

    def has_input(self, index: int) -> bool:
        """Return whether an optional input is present."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return the value of an attribute, bytes decoded, or the default."""
        return attribute_of(self.node, name, default)

    def forward_output(self, op_type: str, tensor: str) -> str | None:
        """Return the output of the forward operator of this type that reads a tensor, if any."""
        node = self.forward_node(op_type, tensor)
        return None if node is None else node.output[0]

    def shape(self, name: str) -> tuple[Dim, ...]:
        """Return the shape of a tensor.

        Raises:
            FormulaError: not even the rank is known.
        """
        shape = self.emit.shape(name)
        if shape is None:
            raise FormulaError(f"the rank of {name!r} is unknown")
        return shape

    def static_sizes(self, name: str, first: int = 0) -> list[int]:
        """Return the sizes from axis `first` on.

        Raises:
            FormulaError: one of them is not known at export.
        """
        sizes = self.shape(name)[first:]
        known = [d for d in sizes if isinstance(d, int)]
        if len(known) != len(sizes):
            raise FormulaError(f"the size {tuple(sizes)} of {name!r} is not known at export")
        return known

    def constant(self, index: int, what: str) -> Array:
        """Return the value of an input that must be constant.

        Raises:
            FormulaError: it is computed at run time.
        """
        value = self.emit.value(self.inputs[index])
        if value is None:
            raise FormulaError(f"its {what} must be constant")
        return value

    def axes(self, index: int, rank: int) -> list[int] | None:
        """Return axes from the attribute or from constant input `index`, made non-negative."""
        axes = self.attribute("axes")
        if axes is None and self.has_input(index):
            axes = [int(a) for a in self.constant(index, "axes").reshape(-1)]
        return None if axes is None else sorted(a % rank for a in axes)


GradientFormula = Callable[[Context], Gradients]
LoweringFormula = Callable[[Context], Sequence[str]]


@dataclass(frozen=True)
class Entry:
    """One row of the gradient table.

    Attributes:
        domain: of the operator.
        op_type: the operator.
        since: first opset in which the formula holds.
        until: the last one.
        formula: it.
        unless: nodes that it leaves to an expansion of the operator.
    """

    domain: str
    op_type: str
    since: int
    until: int
    formula: GradientFormula
    unless: Callable[[NodeProto], bool] = lambda _node: False


_GRADIENTS: dict[tuple[str, str], list[Entry]] = {}
_LOWERINGS: dict[tuple[str, str], LoweringFormula] = {}


def gradient(
    *op_types: str,
    domain: str = "",
    since: int = 1,
    until: int = NEWEST_OPSET,
    unless: Callable[[NodeProto], bool] = lambda _node: False,
) -> Callable[[GradientFormula], GradientFormula]:
    """Register the decorated formula for operators, for opsets `since` to `until` inclusive.

    Nodes for which `unless` holds are left to an expansion of the operator, where one covers them.
    """

    def register(formula: GradientFormula) -> GradientFormula:
        for op_type in op_types:
            rows = _GRADIENTS.setdefault((domain, op_type), [])
            if any(row.since <= until and since <= row.until for row in rows):
                raise ValueError(f"a gradient of {domain or 'ai.onnx'}::{op_type} exists already")
            rows.append(Entry(domain, op_type, since, until, formula, unless))
        return formula

    return register


def lowering(
    *op_types: str, domain: str = MICROSOFT
) -> Callable[[LoweringFormula], LoweringFormula]:
    """Register the decorated formula as the standard form of training-only operators."""

    def register(formula: LoweringFormula) -> LoweringFormula:
        for op_type in op_types:
            if (domain, op_type) in _LOWERINGS:
                raise ValueError(f"a lowering of {domain or 'ai.onnx'}::{op_type} exists already")
            _LOWERINGS[domain, op_type] = formula
        return formula

    return register


def find_gradient(domain: str, op_type: str, opset: int) -> GradientFormula | None:
    """Return the formula for an operator at an opset, None when there is none."""
    row = _find_row(domain, op_type, opset)
    return None if row is None else row.formula


def takes(node: NodeProto, opset: int) -> bool:
    """Return whether a node has a formula, and is not left to an expansion."""
    row = _find_row(node.domain, node.op_type, opset)
    return row is not None and not row.unless(node)


def _find_row(domain: str, op_type: str, opset: int) -> Entry | None:
    rows = _GRADIENTS.get((_normal(domain), op_type), [])
    return next((row for row in rows if row.since <= opset <= row.until), None)


def find_lowering(domain: str, op_type: str) -> LoweringFormula | None:
    """Return the lowering of a training-only operator, None when there is none."""
    return _LOWERINGS.get((_normal(domain), op_type))


def gradient_table() -> list[Entry]:
    """Return all rows, sorted by domain and operator."""
    rows = [row for rows in _GRADIENTS.values() for row in rows]
    return sorted(rows, key=lambda row: (row.domain, row.op_type, row.since))


def lowering_table() -> list[tuple[str, str]]:
    """Return (domain, operator) of all lowerings, sorted."""
    return sorted(_LOWERINGS)


def _normal(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
