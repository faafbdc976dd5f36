"""Which results of a node carry a gradient: floats, and the numbers that stand for floats.

Shapes, indices and masks are integers too. What tells them apart is where they come from: a
quantized tensor starts at QuantizeLinear or DynamicQuantizeLinear (or is the image), and stays one
through the integer operators that move, add or multiply it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnx import NodeProto

QUANTIZERS = frozenset({"DynamicQuantizeLinear", "QuantizeLinear"})
"""Operators whose first result stands for their first input; others are scales."""

_INTEGER_OPERATORS = frozenset(
    {
        *("Add", "Cast", "Concat", "ConvInteger", "DepthToSpace", "Expand", "Flatten", "Identity"),
        *("MatMulInteger", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub", "Tile"),
        *("Transpose", "Unsqueeze"),
    }
)
"""Operators whose integer results stand for floats where an integer operand does."""


def carrying_results(
    node: NodeProto, carrying: Sequence[str], is_float: Callable[[str], bool]
) -> list[str]:
    """Return the results of a node that carry a gradient.

    Args:
        node: the node.
        carrying: those of its inputs that do, at least one.
        is_float: whether a tensor is one of floats.
    """
    if node.op_type in QUANTIZERS:
        return [node.output[0]]
    if node.op_type == "CastLike" and node.input[0] not in carrying:
        return []  # of its second input it takes the type alone
    results = [name for name in node.output if name]
    moves = node.op_type in _INTEGER_OPERATORS and any(not is_float(name) for name in carrying)
    return results if moves else [name for name in results if is_float(name)]
