"""Gradients of operators that pick or put single elements.

Sources: ONNX operator specifications GatherElements-13, GatherND-13, ScatterElements-18,
Scatter-9, ScatterND-18, TopK-11.
"""

from __future__ import annotations

from onnx import TensorProto

from onnx_gradcam.gradients.indexing import check_one_hot, non_negative
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering
from onnx_gradcam.gradients.sizes import one_hot, product_of, reshape, size_of, sizes_of, vector


@gradient("GatherElements")
def _gather_elements(ctx: Context) -> Gradients:
    axis = ctx.attribute("axis", 0) % len(ctx.shape(ctx.inputs[0]))
    return [add_elements(ctx, ctx.dy, ctx.inputs[0], ctx.inputs[1], axis)]


@lowering("GatherElementsGrad")
def _lower_gather_elements_grad(ctx: Context) -> list[str]:
    """com.microsoft.GatherElementsGrad(dY, Shape(X), indices)."""
    x = ctx.differentiated
    axis = ctx.attribute("axis", 0) % len(ctx.shape(x))
    return [add_elements(ctx, ctx.inputs[0], x, ctx.inputs[2], axis)]


def add_elements(
    ctx: Context, dy: str, x: str, index: str, axis: int, *, unique: bool = False
) -> str:
    """Return zeros in the shape of x to which dy is added at indices along an axis.

    Args:
        ctx: the node's context.
        dy: what to add.
        x: gives the shape.
        index: in the shape of dy.
        axis: which the indices count along.
        unique: whether no index comes twice, so that nothing needs to be added up.

    Raises:
        FormulaError: before opset 16, indices in another shape than that of x, or too many.
    """
    emit = ctx.emit
    if emit.opset >= 16 and not unique:
        inputs = [emit.zeros_like(x), index, dy]
        return emit.node("ScatterElements", inputs, axis=axis, reduction="add")
    if emit.opset >= 9 and unique:
        op_type = "ScatterElements" if emit.opset >= 11 else "Scatter"
        return emit.node(op_type, [emit.zeros_like(x), index, dy], axis=axis)
    rank = len(ctx.shape(x))
    apart = emit.unsqueeze(_last(ctx, dy, axis, rank), [rank - 1])
    product = emit.matmul(apart, _one_hot_rows(ctx, x, index, axis))
    return _back(ctx, emit.squeeze(product, [rank - 1]), axis, rank)


def pick_elements(ctx: Context, dy: str, x: str, index: str, axis: int) -> str:
    """Return the elements of dy, in the shape of x, at indices along an axis.

    Raises:
        FormulaError: before opset 11, indices in another shape than that of x, or too many.
    """
    emit = ctx.emit
    if emit.opset >= 11:
        return emit.node("GatherElements", [dy, index], axis=axis)
    rank = len(ctx.shape(x))
    apart = emit.unsqueeze(_last(ctx, dy, axis, rank), [rank])
    product = emit.matmul(_one_hot_rows(ctx, x, index, axis), apart)
    return _back(ctx, emit.squeeze(product, [rank]), axis, rank)


def _one_hot_rows(ctx: Context, x: str, index: str, axis: int) -> str:
    """Return ``(*others, picks, size)``: which element along the axis each index picks.

    Raises:
        FormulaError: the indices have another shape than x, or there are too many.
    """
    emit, shape = ctx.emit, ctx.shape(index)
    rank, size = len(ctx.shape(x)), size_of(emit, x, axis)
    pairs = zip(shape, ctx.shape(x), strict=True)
    if any(a is None or a != b for i, (a, b) in enumerate(pairs) if i != axis):
        raise FormulaError("indices in another shape than the data need a later opset (16)")
    check_one_hot([*sizes_of(emit, index, range(rank)), size])
    number = emit.cast(index, TensorProto.INT64)
    column = emit.unsqueeze(_last(ctx, number, axis, rank), [rank])
    return one_hot(emit, non_negative(emit, column, size), size, x)


def _last(ctx: Context, x: str, axis: int, rank: int) -> str:
    return ctx.emit.transpose(x, [*(a for a in range(rank) if a != axis), axis])


def _back(ctx: Context, x: str, axis: int, rank: int) -> str:
    order = [*(a for a in range(rank) if a != axis), axis]
    return ctx.emit.transpose(x, [order.index(a) for a in range(rank)])


@gradient("TopK")
def _top_k(ctx: Context) -> Gradients:
    """The values come from the places that the indices, its second output, name.

    Raises:
        FormulaError: the node does not return them.
    """
    if len(ctx.outputs) < 2 or not ctx.outputs[1]:
        raise FormulaError("it does not return its indices")
    axis = ctx.attribute("axis", -1) % len(ctx.shape(ctx.inputs[0]))
    return [add_elements(ctx, ctx.dy, ctx.inputs[0], ctx.outputs[1], axis, unique=True)]


# -- Scatter -------------------------------------------------------------------------------------


@gradient("Scatter", since=9, until=10)
def _scatter(ctx: Context) -> Gradients:
    return _scatter_elements_gradients(ctx, "Scatter")


@gradient("ScatterElements")
def _scatter_elements(ctx: Context) -> Gradients:
    return _scatter_elements_gradients(ctx, "ScatterElements")


def _scatter_elements_gradients(ctx: Context, op_type: str) -> Gradients:
    """Return the gradients of the data, zero where they were replaced, and of the updates."""
    emit, (data, index, updates) = ctx.emit, ctx.inputs
    axis = ctx.attribute("axis", 0) % len(ctx.shape(data))
    results: list[str | None] = [None, None, None]
    replaces = _replaces(ctx)
    if ctx.wanted[0]:
        results[0] = ctx.dy
        if replaces:
            results[0] = emit.node(op_type, [ctx.dy, index, emit.zeros_like(updates)], axis=axis)
    if ctx.wanted[2]:
        results[2] = pick_elements(ctx, ctx.dy, data, index, axis)
    return results


def _replaces(ctx: Context) -> bool:
    """Return whether the updates replace the data, else they are added.

    Raises:
        FormulaError: they are combined in another way.
    """
    reduction = ctx.attribute("reduction", "none")
    if reduction not in {"none", "add"}:
        raise FormulaError(f"reduction={reduction} is not covered")
    return bool(reduction == "none")


@gradient("ScatterND")
def _scatter_nd(ctx: Context) -> Gradients:
    emit, (_data, index, updates) = ctx.emit, ctx.inputs
    results: list[str | None] = [None, None, None]
    replaces = _replaces(ctx)
    if ctx.wanted[0]:
        results[0] = ctx.dy
        if replaces:
            results[0] = emit.node("ScatterND", [ctx.dy, index, emit.zeros_like(updates)])
    if ctx.wanted[2]:
        results[2] = emit.node("GatherND", [ctx.dy, index])
    return results


# -- GatherND ------------------------------------------------------------------------------------


@gradient("GatherND")
def _gather_nd(ctx: Context) -> Gradients:
    return [gather_nd_gradient(ctx, ctx.dy, ctx.inputs[0], ctx.inputs[1])]


@lowering("GatherNDGrad")
def _lower_gather_nd_grad(ctx: Context) -> list[str]:
    """com.microsoft.GatherNDGrad(Shape(X), indices, dY)."""
    return [gather_nd_gradient(ctx, ctx.inputs[2], ctx.differentiated, ctx.inputs[1])]


def gather_nd_gradient(ctx: Context, dy: str, x: str, index: str) -> str:
    """Return dL/dx of y = GatherND(x, index), index ``(*batch, *picks, depth)``.

    From opset 16 on, without a batch, ScatterND adds dy up. Else the picked axes are made one,
    ``(*batch, places, *rest)``, and a one-hot matrix per element of the batch multiplies dy.

    Raises:
        FormulaError: the depth is not known, or the one-hot matrices would be too large.
    """
    emit, rank, index_rank = ctx.emit, len(ctx.shape(x)), len(ctx.shape(index))
    batch, depth = int(ctx.attribute("batch_dims", 0)), ctx.shape(index)[-1]
    number = emit.cast(index, TensorProto.INT64)
    if emit.opset >= 16 and batch == 0:
        return emit.node("ScatterND", [emit.zeros_like(x), number, dy], reduction="add")
    if not isinstance(depth, int):
        raise FormulaError("how many axes it indexes is not known at export")
    picked = sizes_of(emit, x, range(batch, batch + depth))
    picks = product_of(sizes_of(emit, index, range(batch, index_rank - 1)))
    places = product_of(picked)
    rest = product_of(sizes_of(emit, x, range(batch + depth, rank)))
    check_one_hot([*sizes_of(emit, index, range(index_rank - 1)), places])
    scales = vector(emit, [product_of(picked[i + 1 :]) for i in range(depth)])
    scaled = emit.mul(non_negative(emit, number, vector(emit, picked)), scales)
    place = emit.reduce_sum(scaled, [index_rank - 1])
    hot = one_hot(emit, reshape(emit, place, [*[0] * batch, picks, 1]), places, x)
    rows = reshape(emit, dy, [*[0] * batch, picks, rest])
    columns = emit.transpose(hot, [*range(batch), batch + 1, batch])
    return emit.reshape_like(emit.matmul(columns, rows), x)
