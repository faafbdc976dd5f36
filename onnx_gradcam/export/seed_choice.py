"""Which class or box is meant: indices, and ranks written as negative numbers.

In: scores and what was asked for. Out: nodes that give int64 indices.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.gradients.emitter import Emitter

_LAST = -1


def index_positions(emit: Emitter, x: str, size: object, axis: int) -> tuple[int | str, int | str]:
    """Return the size of an axis and the indices along it: numbers, or tensors where it is open.

    Raises:
        UnsupportedModelError: it is open and the opset has no Range.
    """
    if isinstance(size, int):
        return size, size
    if emit.opset < 11:
        raise UnsupportedModelError(
            "the number of boxes is not known at export, and before opset 11 nothing counts them;"
            " convert the model with onnx.version_converter"
        )
    count = emit.slice(emit.node("Shape", [x]), [axis], [axis + 1], [0])
    scalar = emit.squeeze(count, [0])
    zero, one = emit.constant(np.array(0)), emit.constant(np.array(1))
    return count, emit.node("Range", [zero, scalar, one], dtype=TensorProto.INT64)


def fixed_index(emit: Emitter, scores: str, index: int) -> str:
    """Return an index, or that of a rank if it is negative, for each row of scores: ``(N,)``."""
    if index >= 0:
        rows = emit.slice(emit.shape_tensor(scores), [0], [1], [0])
        return emit.expand(emit.ints([index]), rows)
    if index == -1:
        return emit.node("ArgMax", [scores], dtype=TensorProto.INT64, axis=1, keepdims=0)
    best = _order(emit, scores, -index)
    return emit.squeeze(emit.node("Gather", [best, emit.ints([-index - 1])], axis=_LAST), [1])


def resolve_index(
    emit: Emitter,
    scores: str,
    chosen: str,
    count: int | str,
    positions: int | str,
    axis: int,
    *,
    shared: bool = False,
) -> str:
    """Return indices for indices and negative ranks, int64 ``(N,)`` or ``(N, T)``.

    Sorts no further than the lowest rank that is asked for: of a thousand classes that is most of
    the time of a choice.

    Args:
        emit: where to write nodes.
        scores: what ranks refer to: ``(N, K)``, or ``(N, T, K)``.
        chosen: int64, indices and ranks; N may be 1.
        count: K, or a tensor that holds it.
        positions: K, or a tensor of the indices 0 to K - 1.
        axis: 1, or 2 where there is an axis T.
        shared: whether there is an axis T, and scores lack it.
    """
    none, one = emit.ints([0]), emit.ints([1])
    rank = emit.node("Sub", [emit.ints([-1]), chosen], hint="rank")
    if isinstance(positions, int):
        positions = emit.ints(range(positions))
    arithmetic = emit.opset >= 12  # Max of int64
    if arithmetic:
        lowest = emit.reduce_max(rank, list(range(axis)), keepdims=True)
        lowest = emit.reshape(lowest, [1]) if axis > 1 else lowest
        count = emit.node("Max", [emit.node("Add", [lowest, one]), one], hint="depth")
        positions = emit.slice(positions, [0], count, [0])
    best = _order(emit, scores, count)
    best = emit.unsqueeze(best, [1]) if shared else best
    at_rank = emit.node("Equal", [emit.unsqueeze(rank, [axis]), positions])
    if arithmetic:
        by_rank = emit.node("Where", [at_rank, best, none], dtype=TensorProto.INT64)
        kept = emit.node("Max", [chosen, none])
    else:
        by_rank = emit.node("Mul", [best, emit.cast(at_rank, TensorProto.INT64)])
        negative = emit.less(emit.cast(chosen, TensorProto.FLOAT), 0.0)
        given = emit.node("Sub", [one, emit.cast(negative, TensorProto.INT64)])
        kept = emit.node("Mul", [chosen, given])
    found = emit.reduce_sum(by_rank, [axis], keepdims=False)
    return emit.node("Add", [found, kept], hint="classes")


def _order(emit: Emitter, scores: str, count: int | str) -> str:
    """Return the indices along the last axis by falling score, int64."""
    if emit.opset >= 10:
        size = emit.ints([count]) if isinstance(count, int) else count
        inputs, attributes = [scores, size], {}
    else:
        assert isinstance(count, int), "_positions refuses open sizes there"
        inputs, attributes = [scores], {"k": count}
    if emit.opset < 11 and emit.dtype(scores) == TensorProto.DOUBLE:
        inputs[0] = emit.cast(scores, TensorProto.FLOAT)
    _, indices = emit.nodes_with_outputs("TopK", inputs, 2, axis=_LAST, **attributes)
    emit.declare(indices, TensorProto.INT64)
    return indices
