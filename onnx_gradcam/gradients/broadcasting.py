"""Undo broadcasting: the gradient of an operand is the sum over the axes it was stretched along."""

from __future__ import annotations

from onnx_gradcam.gradients.emitter import Dim
from onnx_gradcam.gradients.registry import Context, FormulaError, lowering


def unbroadcast(ctx: Context, gradient: str, operand: str, result: str) -> str:
    """Return the gradient of `operand` from a gradient in the shape of `result`.

    Args:
        ctx: the node's context.
        gradient: tensor of the shape of `result`.
        operand: forward input that numpy-style broadcasting stretched to `result`.
        result: forward output.

    Raises:
        FormulaError: a size decides whether there is a sum, and it is known only at run time.
    """
    operand_shape, result_shape = ctx.shape(operand), ctx.shape(result)
    extra = len(result_shape) - len(operand_shape)
    pairs = list(zip(operand_shape, result_shape[extra:], strict=True))
    if any(_undecided(a, b) for a, b in pairs):
        return _unbroadcast_at_run_time(ctx, gradient, operand, extra)
    axes = [*range(extra), *(extra + i for i, (a, b) in enumerate(pairs) if a == 1 and b != 1)]
    if not axes:
        return gradient
    total = ctx.emit.reduce_sum(gradient, axes, keepdims=True)
    return ctx.emit.squeeze(total, list(range(extra))) if extra else total


def _undecided(operand: Dim, result: Dim) -> bool:
    if isinstance(operand, int):
        return False
    return operand is None or operand != result


def _unbroadcast_at_run_time(ctx: Context, gradient: str, operand: str, extra: int) -> str:
    """Sum over the axes whose size turns out to be one.

    Before opset 13, where the axes of a sum are no input: an axis of size b that came from one of
    size a is split in ``(b / a, a)``, and summed over the first.
    """
    emit = ctx.emit
    shape = emit.node("Shape", [operand])
    aligned = shape if not extra else emit.concat([emit.ints([1] * extra), shape], 0)
    if emit.opset >= 13:
        axes = _axes_of_size_one(ctx, aligned)
        total = emit.node("ReduceSum", [gradient, axes], keepdims=1, noop_with_empty_axes=1)
        return emit.reshape(total, shape)
    rank = extra + len(ctx.shape(operand))
    copies = emit.node("Div", [emit.node("Shape", [gradient]), aligned])
    pairs = emit.concat([emit.unsqueeze(sizes, [1]) for sizes in (copies, aligned)], 1)
    split = emit.reshape(gradient, emit.reshape(pairs, [-1]))
    total = emit.reduce_sum(split, range(0, 2 * rank, 2), keepdims=False)
    return emit.squeeze(total, range(extra)) if extra else total


@lowering("BroadcastGradientArgs")
def _lower_broadcast_gradient_args(ctx: Context) -> list[str]:
    """com.microsoft.BroadcastGradientArgs(Shape(A), Shape(B)): the axes to sum for A and for B.

    Raises:
        FormulaError: they are known at run time alone, and the opset or the ranks do not suffice.
    """
    emit = ctx.emit
    shapes = [_measured_shape(ctx, name) for name in ctx.inputs]
    if all(s is not None for s in shapes):
        a, b = (s or () for s in shapes)
        rank = max(len(a), len(b))
        a, b = ((1,) * (rank - len(s)) + s for s in (a, b))
        if not any(_ambiguous(x, y) for x, y in zip(a, b, strict=True)):
            pairs = list(enumerate(zip(a, b, strict=True)))
            return [
                emit.ints([i for i, (x, y) in pairs if x == 1 and y != 1]),
                emit.ints([i for i, (x, y) in pairs if y == 1 and x != 1]),
            ]
    if emit.opset < 13:
        raise FormulaError("which axes were broadcast is only known at run time")
    if any(s is None for s in shapes):
        raise FormulaError("the ranks of its operands are unknown")
    ranks = [len(s or ()) for s in shapes]
    results = []
    for name, rank in zip(ctx.inputs, ranks, strict=True):
        extra = max(ranks) - rank
        aligned = emit.concat([emit.ints([1] * extra), name], 0) if extra else name
        results.append(_axes_of_size_one(ctx, aligned))
    return results


def _measured_shape(ctx: Context, name: str) -> tuple[Dim, ...] | None:
    value = ctx.emit.value(name)
    if value is not None:
        return tuple(int(v) for v in value)
    measured = ctx.emit.measured.get(name)
    return None if measured is None else ctx.emit.shape(measured)


def _ambiguous(a: Dim, b: Dim) -> bool:
    """Return whether it is unknown at export which of two operands is stretched."""
    if a == 1 or b == 1:  # the other is stretched to, or is one as well: no sum either way
        return False
    if isinstance(a, int) and isinstance(b, int):
        return False
    return a is None or a != b


def _axes_of_size_one(ctx: Context, shape: str) -> str:
    emit = ctx.emit
    stretched = emit.node("Equal", [shape, emit.ints([1])])
    return emit.reshape(emit.node("NonZero", [stretched]), [-1])
