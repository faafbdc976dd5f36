"""What is peculiar about an ONNX file: the points in which producers differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_ODD = re.compile(r"[^\w./\-]")
_ENDS = frozenset(
    {"Identity", "Softmax", "Sigmoid", "QuantizeLinear", "DequantizeLinear", "Cast", "ZipMap"}
)
_SHOWN = 4


@dataclass(frozen=True)
class _File:
    model: ModelProto
    inputs: list[onnx.ValueInfoProto]

    @property
    def graph(self) -> GraphProto:
        return self.model.graph


def opset_and_ir(model: ModelProto) -> str:
    """Return ``17 / 8``: opset of the default domain and IR version."""
    opset = next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), "?")
    return f"{opset} / {model.ir_version}"


def traits(model: ModelProto) -> list[str]:
    """Return short phrases, one per peculiarity."""
    weights = {tensor.name for tensor in model.graph.initializer}
    file = _File(model, [value for value in model.graph.input if value.name not in weights])
    return [phrase for find in _FINDERS for phrase in find(file)]


def _weights_as_inputs(file: _File) -> Iterator[str]:
    count = len(file.graph.input) - len(file.inputs)
    if count:
        yield f"{count} weights are inputs"


def _input(file: _File) -> Iterator[str]:
    for value in file.inputs:
        kind = value.type.tensor_type
        dims = [d.dim_value or d.dim_param or "?" for d in kind.shape.dim]
        if len(dims) == 4 and dims[3] in {1, 3} and dims[1] not in {1, 3}:
            yield "channels-last input"
        if len(dims) == 4 and sum(not isinstance(d, int) for d in dims) > 1:
            yield "open sizes"
        if -1 in dims:
            yield "sizes of -1"
        elif dims and isinstance(dims[0], int):
            yield f"batch of {dims[0]}"
        if kind.elem_type != TensorProto.FLOAT:
            yield f"{TensorProto.DataType.Name(kind.elem_type).lower()} input"


def _outputs(file: _File) -> Iterator[str]:
    outputs = file.graph.output
    if len(outputs) > 1:
        yield f"{len(outputs)} outputs"
    for value in outputs:
        if value.type.HasField("sequence_type"):
            yield "an output of maps"
        dims = [d.dim_value or "?" for d in value.type.tensor_type.shape.dim]
        if len(dims) > 2:
            yield f"scores ({', '.join(map(str, dims))})"


def _ends(file: _File) -> Iterator[str]:
    made = {name: node for node in file.graph.node for name in node.output}
    ends: list[str] = []
    name = file.graph.output[-1].name
    while name in made and made[name].op_type in _ENDS:
        ends.insert(0, made[name].op_type)
        name = made[name].input[0]
    if ends:
        yield "ends in " + ", ".join(ends)


def _domains(file: _File) -> Iterator[str]:
    found: dict[str, set[str]] = {}
    for node in file.graph.node:
        if node.domain not in {"", "ai.onnx"}:
            found.setdefault(node.domain, set()).add(node.op_type)
        elif not onnx.defs.has(node.op_type):
            found.setdefault("the default domain, unknown there", set()).add(node.op_type)
    for domain, operators in sorted(found.items()):
        names = sorted(operators)
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield f"{', '.join(names[:_SHOWN])}{more} of {domain}"


def _names(file: _File) -> Iterator[str]:
    names = {name for node in file.graph.node for name in node.output}
    odd = sorted({c for name in names for c in _ODD.findall(name)})
    if odd:
        yield "names with " + " ".join(f"`{c}`" for c in odd)
    if any(not node.name for node in file.graph.node):
        yield "nodes without names"


def _storage(file: _File) -> Iterator[str]:
    weights = file.graph.initializer
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in weights):
        yield "external data"
    if any(tensor.data_type == TensorProto.FLOAT16 for tensor in weights):
        yield "float16 weights"
    if file.model.functions:
        yield f"{len(file.model.functions)} functions"


_ARITHMETIC = frozenset({"Shape", "If", "Loop", "Einsum", "Resize", "TopK"})


def _structure(file: _File) -> Iterator[str]:
    operators = [node.op_type for node in file.graph.node]
    present = sorted(_ARITHMETIC.intersection(operators))
    if present:
        yield "holds " + ", ".join(present)
    if any(_is_quantization(node) for node in file.graph.node):
        yield "quantized"


def _is_quantization(node: NodeProto) -> bool:
    return node.op_type in {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}


_FINDERS: tuple[Callable[[_File], Iterator[str]], ...] = (
    _weights_as_inputs,
    _input,
    _outputs,
    _ends,
    _domains,
    _names,
    _storage,
    _structure,
)
