"""Expand before arithmetic that stretches its operands by itself: the copy is left out."""

from __future__ import annotations

from onnx import NodeProto

from onnx_gradcam.export.simplify.added import Added

_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})


def skip_expand(added: Added, node: NodeProto) -> str | None:
    """Emit op(a, b) for op(a, Expand(b)) where a has the shape that results."""
    if node.op_type not in _ARITHMETIC:
        return None
    for index, other in ((1, 0), (0, 1)):
        expand = added.made_by(node.input[index], "Expand")
        full = added.shape(node.input[other])
        if expand is None or full is None or None in full:
            continue
        if added.shape(node.input[index]) != full or len(added.shape(expand.input[0]) or ()) == 0:
            continue
        operands = list(node.input)
        operands[index] = expand.input[0]
        with added.emit.scope("gradient/stretched"):
            return added.emit.node(node.op_type, operands)
    return None
