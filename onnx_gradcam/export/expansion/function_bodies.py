"""Operators that the ONNX standard defines as a function of others.

Source: github.com/onnx/onnx, ``docs/Operators.md``; the bodies come from the installed onnx.
"""

from __future__ import annotations

from typing import Any

from onnx import AttributeProto, FunctionProto, TypeProto, defs, helper

from onnx_gradcam.export.expansion.local_functions import since
from onnx_gradcam.export.expansion.splice import splice
from onnx_gradcam.gradients.registry import FLOATS, Context, FormulaError

_LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})


def is_function(op_type: str, opset: int) -> bool:
    """Return whether the standard defines an operator of the default domain by others."""
    return _schema(op_type, opset) is not None


def expand_function(ctx: Context) -> list[str]:
    """Return the outputs of the function's body, in the model's opset.

    Raises:
        FormulaError: it computes no floats, its body is a loop, or is not written for the opset.
    """
    schema = _schema(ctx.node.op_type, ctx.opset)
    assert schema is not None, "is_function has looked"
    if not any(ctx.emit.dtype(name) in FLOATS for name in ctx.inputs if name):
        raise FormulaError("it computes no function of floats")
    body = _body(ctx, schema)
    if any(node.op_type in _LOOPS for node in body.node):
        raise FormulaError("its definition is a loop")
    if any(node.domain not in {"", "ai.onnx"} for node in body.node):
        raise FormulaError("its definition has operators of another domain")
    given = [*ctx.inputs, *[""] * (len(body.input) - len(ctx.inputs))]
    attributes = _defaults(schema) | {a.name: a for a in body.attribute_proto}
    attributes |= {a.name: a for a in ctx.node.attribute}
    names = dict(zip(body.input, given, strict=False))
    inner = splice(ctx.emit, body.node, names, attributes=attributes)
    return [inner.get(name, "") for name in body.output]


def _schema(op_type: str, opset: int) -> Any:
    """Return the schema of an operator that has a body, else None; onnx has no types for bodies."""
    try:
        schema: Any = defs.get_schema(op_type, opset, "")
    except defs.SchemaError:
        return None
    return schema if schema.has_function or schema.has_context_dependent_function else None


def _body(ctx: Context, schema: Any) -> FunctionProto:
    """Return the body that is valid in the model's opset.

    Raises:
        FormulaError: there is none, or it depends on types that are not known.
    """
    if schema.has_context_dependent_function:
        types = [_type(ctx, name) for name in ctx.inputs]
        node = ctx.node.SerializeToString()
        data = schema.get_context_dependent_function_with_opset_version(ctx.opset, node, types)
    else:
        data = schema.get_function_with_opset_version(ctx.opset)
    if not data:
        raise FormulaError(f"its definition is not written for opset {ctx.opset}")
    body = FunctionProto()
    body.ParseFromString(data)
    written = next((o.version for o in body.opset_import if o.domain in {"", "ai.onnx"}), 0)
    for node in body.node:
        if since(node, written) != since(node, ctx.opset):
            raise FormulaError(f"its definition is written for opset {written}, not {ctx.opset}")
    return body


def _type(ctx: Context, name: str) -> bytes:
    if not name:
        return bytes(TypeProto().SerializeToString())
    known = ctx.emit.type_of(name)
    if known is None:
        raise FormulaError(f"the type of {name!r} is unknown")
    proto = helper.make_tensor_type_proto(known.dtype, known.shape)
    return bytes(proto.SerializeToString())


def _defaults(schema: Any) -> dict[str, AttributeProto]:
    given = {name: attribute.default_value for name, attribute in schema.attributes.items()}
    return {name: value for name, value in given.items() if value.name}
