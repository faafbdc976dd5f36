"""Masks that compare and cast, as onnxruntime-training writes them: steps instead.

A step (`Emitter.above`) is one pass over a tensor in the layout it has; a comparison, its Cast, and
the And of two are three to five.
"""

from __future__ import annotations

from onnx import NodeProto, TensorProto

from onnx_gradcam.export.simplify.added import Added


def step_mask(added: Added, node: NodeProto) -> str | None:
    """Emit steps for the Cast to float32 of x > a, x < a, or both of such, a constant."""
    if node.op_type != "Cast" or added.dtype(node.output[0]) != TensorProto.FLOAT:
        return None
    condition = added.producer.get(node.input[0])
    if condition is None:
        return None
    parts = [condition]
    if condition.op_type == "And":
        found = [added.producer.get(name) for name in condition.input]
        parts = [part for part in found if part is not None]
        if len(parts) < len(found):
            return None
    compared = [_compared(added, part) for part in parts]
    known = [one for one in compared if one is not None]
    if len(known) < len(compared):
        return None
    with added.emit.scope("gradient/mask"):
        steps = [
            added.emit.above(x, bound) if above else added.emit.below(x, bound)
            for x, bound, above in known
        ]
        return steps[0] if len(steps) == 1 else added.emit.mul(*steps)


def _compared(added: Added, node: NodeProto) -> tuple[str, float, bool] | None:
    """Return x, the bound, and whether x is to lie above it; None for anything else."""
    if node.op_type not in {"Greater", "Less"}:
        return None
    for index, other in ((0, 1), (1, 0)):
        x, bound = node.input[index], added.value(node.input[other])
        if bound is None or bound.size != 1 or added.value(x) is not None:
            continue
        if added.dtype(x) == TensorProto.FLOAT:
            above = (node.op_type == "Greater") == (index == 0)
            return x, float(bound.reshape(-1)[0]), above
    return None
