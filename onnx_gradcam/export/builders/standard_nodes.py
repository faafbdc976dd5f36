"""Copy a standard node from the opset it is written in to the opset of the emitter.

The gradient graph of onnxruntime-training and the prepared tail are written in opset 12 to 21,
the model may be of any opset from 7 on. Operators whose form never changed are copied; the others
go through the emitter, which knows the forms. Small integer arithmetic on constants is folded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from onnx import AttributeProto, TensorProto, defs, helper, numpy_helper

from onnx_gradcam.gradients.emitter import Array, Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError

_Rule = Callable[[Context], Sequence[str]]


def rewrite_standard_node(ctx: Context) -> Sequence[str]:
    """Emit a standard node in the emitter's opset and return its outputs.

    Raises:
        FormulaError: it is no standard operator, or the opset cannot express it.
    """
    if ctx.node.domain not in {"", "ai.onnx"}:
        raise FormulaError("nothing lowers this operator to standard ones")
    folded = _fold(ctx)
    if folded is not None:
        return [ctx.emit.constant(folded)]
    rule = _RULES.get(ctx.node.op_type)
    return rule(ctx) if rule is not None else _copy(ctx)


def _copy(ctx: Context) -> list[str]:
    """Emit the node as it is, without attributes that have their default value.

    Raises:
        FormulaError: the emitter's opset lacks the operator, or an attribute that matters.
    """
    op_type, emit = ctx.node.op_type, ctx.emit
    try:
        schema = defs.get_schema(op_type, emit.opset, "")
    except defs.SchemaError as error:
        raise FormulaError(f"opset {emit.opset} has no {op_type}") from error
    attributes = {}
    for attribute in ctx.node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.name in schema.attributes:
            attributes[attribute.name] = value
        elif not _is_default(op_type, ctx.opset, attribute):
            raise FormulaError(f"opset {emit.opset} has no {op_type} with {attribute.name}")
    if len(ctx.node.output) == 1:
        return [emit.node(op_type, ctx.inputs, **attributes)]
    return emit.nodes_with_outputs(op_type, ctx.inputs, len(ctx.node.output), **attributes)


_NEUTRAL = {"dilations": 1}
"""Lists without a declared default that mean nothing if all of their elements are this."""


def _is_default(op_type: str, opset: int, attribute: AttributeProto) -> bool:
    value = helper.get_attribute_value(attribute)
    if attribute.name in _NEUTRAL:
        return all(element == _NEUTRAL[attribute.name] for element in value)
    declared = defs.get_schema(op_type, opset, "").attributes[attribute.name]
    return bool(value == helper.get_attribute_value(declared.default_value))


# -- folding -----------------------------------------------------------------------------------

_INTEGER_ARITHMETIC: dict[str, Callable[[list[Array]], Array]] = {
    "Neg": lambda v: -v[0],
    "Add": lambda v: v[0] + v[1],
    "Sub": lambda v: v[0] - v[1],
    "Mul": lambda v: v[0] * v[1],
    "Div": lambda v: v[0] // v[1],
}


def _fold(ctx: Context) -> Array | None:
    emit = ctx.emit
    if ctx.node.op_type == "Gather" and ctx.inputs[0] in emit.measured:
        return _gathered_size(ctx)
    if ctx.node.op_type == "Div" and all(i in emit.measured for i in ctx.inputs):
        return _size_ratio(emit, ctx.inputs)
    values = [emit.value(name) for name in ctx.inputs]
    known = [v for v in values if v is not None]
    if len(known) != len(values) or not all(v.dtype == np.int64 for v in known) or not known:
        return None
    if ctx.node.op_type == "Concat":
        return np.concatenate(known, axis=ctx.attribute("axis", 0))
    if ctx.node.op_type == "Gather":
        return np.asarray(np.take(known[0], known[1], axis=ctx.attribute("axis", 0)))
    rule = _INTEGER_ARITHMETIC.get(ctx.node.op_type)
    return None if rule is None else np.asarray(rule(known))


def _gathered_size(ctx: Context) -> Array | None:
    """Return Gather(Shape(x), i) where that size is known at export."""
    shape = ctx.emit.shape(ctx.emit.measured[ctx.inputs[0]])
    index = ctx.emit.value(ctx.inputs[1])
    if shape is None or index is None:
        return None
    sizes = [shape[int(i)] for i in index.reshape(-1)]
    if not all(isinstance(d, int) for d in sizes):
        return None
    return np.array(sizes, dtype=np.int64).reshape(index.shape)


def _size_ratio(emit: Emitter, names: Sequence[str]) -> Array | None:
    """Return Size(x) / Size(y) of a reduction: equal symbolic sizes cancel."""
    shapes = [emit.shape(emit.measured[name]) for name in names]
    if shapes[0] is None or shapes[1] is None:
        return None
    numerator, denominator = (list(s or ()) for s in shapes)
    for size in list(numerator):
        if not isinstance(size, int) and size is not None and size in denominator:
            numerator.remove(size)
            denominator.remove(size)
    known = [[d for d in s if isinstance(d, int)] for s in (numerator, denominator)]
    if [len(k) for k in known] != [len(numerator), len(denominator)]:
        return None
    return np.asarray(math.prod(known[0]) // math.prod(known[1]), dtype=np.int64)


# -- operators whose form depends on the opset --------------------------------------------------


def _constant_ints(ctx: Context, index: int, what: str) -> list[int]:
    return [int(v) for v in ctx.constant(index, what).reshape(-1)]


def _shape_of(ctx: Context) -> list[str]:
    if ctx.attribute("start", 0) or ctx.attribute("end") is not None:
        return _copy(ctx)
    return [ctx.emit.shape_tensor(ctx.inputs[0])]


def _expand(ctx: Context) -> list[str]:
    emit, (x, shape) = ctx.emit, ctx.inputs
    known = emit.shape(x)
    if emit.opset < 8 and known is not None:  # where it is a Tile, which wants equal ranks
        missing = _length(emit, shape) - len(known)
        x = emit.unsqueeze(x, range(missing)) if missing else x
    return [emit.expand(x, shape)]


def _length(emit: Emitter, shape: str) -> int:
    """Return the number of elements of a shape tensor.

    Raises:
        FormulaError: it is not known at export.
    """
    value = emit.value(shape)
    if value is not None:
        return int(value.size)
    measured = emit.shape(emit.measured.get(shape, ""))
    if measured is None:
        raise FormulaError("the rank to expand to is not known at export")
    return len(measured)


def _equal(ctx: Context) -> list[str]:
    """Emit Equal, which takes floats from opset 11 on."""
    emit, (a, b) = ctx.emit, ctx.inputs
    if emit.opset >= 11:
        return _copy(ctx)
    return [emit.node("Not", [emit.node("Or", [emit.less(a, b), emit.greater(a, b)])])]


def _reduce_sum(ctx: Context) -> list[str]:
    emit, keepdims = ctx.emit, bool(ctx.attribute("keepdims", 1))
    if not ctx.has_input(1):
        axes = ctx.attribute("axes")
        if axes is None:
            return [emit.node("ReduceSum", ctx.inputs[:1], keepdims=int(keepdims))]
        return [emit.reduce_sum(ctx.inputs[0], axes, keepdims)]
    known = emit.value(ctx.inputs[1])
    if known is not None:
        axes = [int(a) for a in known.reshape(-1)]
        return [emit.reduce_sum(ctx.inputs[0], axes, keepdims) if axes else ctx.inputs[0]]
    if emit.opset < 13:
        raise FormulaError("the axes of a sum are only known at run time")
    return [emit.node("ReduceSum", ctx.inputs, keepdims=int(keepdims), noop_with_empty_axes=1)]


def _reduce_mean(ctx: Context) -> list[str]:
    rank = len(ctx.shape(ctx.inputs[0]))
    axes = ctx.axes(1, rank) or list(range(rank))
    return [ctx.emit.reduce_mean(ctx.inputs[0], axes, bool(ctx.attribute("keepdims", 1)))]


def _axes_of(ctx: Context) -> list[int]:
    axes = ctx.attribute("axes")
    return list(axes) if axes is not None else _constant_ints(ctx, 1, "axes")


def _unsqueeze(ctx: Context) -> list[str]:
    return [ctx.emit.unsqueeze(ctx.inputs[0], _axes_of(ctx))]


def _squeeze(ctx: Context) -> list[str]:
    return [ctx.emit.squeeze(ctx.inputs[0], _axes_of(ctx))]


def _split(ctx: Context) -> list[str]:
    sizes = ctx.attribute("split")
    if sizes is None:
        sizes = _constant_ints(ctx, 1, "split sizes")
    axis = ctx.attribute("axis", 0)
    starts = np.cumsum([0, *sizes])
    return [ctx.emit.slice(ctx.inputs[0], [int(a)], [int(b)], [axis]) for a, b in pairwise(starts)]


def _pad(ctx: Context) -> list[str]:
    pads = ctx.attribute("pads")
    if pads is None:
        pads = _constant_ints(ctx, 1, "padding")
    if ctx.attribute("mode", "constant") != "constant" or ctx.has_input(3):
        raise FormulaError("only constant padding of all axes is covered")
    fill = float(ctx.constant(2, "padding value")) if ctx.has_input(2) else 0.0
    return [ctx.emit.pad(ctx.inputs[0], pads, fill)]


def _slice(ctx: Context) -> list[str]:
    starts, ends = (_constant_ints(ctx, i, "bounds") for i in (1, 2))
    axes = _constant_ints(ctx, 3, "axes") if ctx.has_input(3) else list(range(len(starts)))
    if ctx.has_input(4) and any(s != 1 for s in _constant_ints(ctx, 4, "steps")):
        return _copy(ctx)
    return [ctx.emit.slice(ctx.inputs[0], starts, ends, axes)]


def _clip(ctx: Context) -> list[str]:
    emit = ctx.emit
    if emit.opset >= 11:
        return [emit.node("Clip", ctx.inputs)]
    bounds: dict[str, Any] = {
        name: float(ctx.constant(i, f"{name} bound").reshape(()))
        for i, name in ((1, "min"), (2, "max"))
        if ctx.has_input(i)
    }
    return [emit.node("Clip", ctx.inputs[:1], **bounds)]


def _where(ctx: Context) -> list[str]:
    return [ctx.emit.where(*ctx.inputs)]


def _gemm(ctx: Context) -> list[str]:
    emit = ctx.emit
    inputs = list(ctx.inputs)
    if len(inputs) == 2 and emit.opset < 11:
        inputs.append(emit.filled([0.0], inputs[0]))
    attributes = {name: ctx.attribute(name) for name in ("alpha", "transA", "transB")}
    if len(ctx.inputs) > 2:
        attributes["beta"] = ctx.attribute("beta")
    return [emit.node("Gemm", inputs, **attributes)]


def _sum(ctx: Context) -> list[str]:
    return [ctx.emit.sum(ctx.inputs)]


def _identity(ctx: Context) -> list[str]:
    return [ctx.inputs[0]]


def _not_less(ctx: Context) -> list[str]:
    return [_bound_mask(ctx, 1, ctx.emit.less, ctx.emit.greater)]


def _not_greater(ctx: Context) -> list[str]:
    return [_bound_mask(ctx, 2, ctx.emit.greater, ctx.emit.less)]


def _bound_mask(
    ctx: Context,
    position: int,
    outside: Callable[[str, str], str],
    inside: Callable[[str, str], str],
) -> str:
    """Return x >= bound (or <=); for the gradient of Clip strictly inside, read from its output.

    onnxruntime-training lets the gradient through at the bounds; the formulas here do not (as
    PyTorch's ReLU6), so that both builders agree, and so that x need not be kept for them.
    """
    x, bound = ctx.inputs
    clip = ctx.forward_node("Clip", x)
    if clip is not None and list(clip.input[position : position + 1]) == [bound]:
        return inside(clip.output[0], bound)
    return ctx.emit.node("Not", [outside(x, bound)])


def _sign(ctx: Context) -> list[str]:
    if ctx.emit.opset >= 9:
        return _copy(ctx)
    emit, x = ctx.emit, ctx.inputs[0]
    positive, negative = (
        emit.cast(mask, emit.dtype(x)) for mask in (emit.greater(x, 0.0), emit.less(x, 0.0))
    )
    return [emit.sub(positive, negative)]


def _constant(ctx: Context) -> list[str]:
    value = helper.get_attribute_value(ctx.node.attribute[0])
    if isinstance(value, TensorProto):
        return [ctx.emit.constant(numpy_helper.to_array(value))]
    array = np.asarray(value)
    return [ctx.emit.constant(array.astype(np.float32) if array.dtype.kind == "f" else array)]


def _cast(ctx: Context) -> list[str]:
    return [ctx.emit.cast(ctx.inputs[0], ctx.attribute("to", TensorProto.FLOAT))]


_RULES: dict[str, _Rule] = {
    "Cast": _cast,
    "Clip": _clip,
    "Constant": _constant,
    "Equal": _equal,
    "Expand": _expand,
    "Gemm": _gemm,
    "GreaterOrEqual": _not_less,
    "Identity": _identity,
    "LessOrEqual": _not_greater,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Shape": _shape_of,
    "Sign": _sign,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sum": _sum,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
