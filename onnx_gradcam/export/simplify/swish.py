"""The gradient of x sigmoid(x), written by two rules, in as few products as it needs.

Two rules give dy s + (dy x) s (1 - s), s = sigmoid(x): dy (s + y (1 - s)) with y = x s is the same.
Source: Ramachandran et al., arXiv 1710.05941, equation 1, differentiated.
"""

from __future__ import annotations

from onnx import NodeProto

from onnx_gradcam.export.simplify.added import Added
from onnx_gradcam.gradients.registry import attribute_of


def join_swish(added: Added, node: NodeProto) -> str | None:
    """Emit dy (s + y (1 - s)) for the sum of what flows back through Mul and Sigmoid."""
    if node.op_type not in {"Add", "Sum"} or len(node.input) != 2:
        return None
    for direct, through in (node.input, node.input[::-1]):
        found = _matched(added, direct, through)
        if found is None:
            continue
        dy, s, y, complement = found
        emit = added.emit
        with emit.scope("gradient/swish"):
            return emit.mul(dy, emit.add(emit.mul(y, complement), s))
    return None


def _matched(added: Added, direct: str, through: str) -> tuple[str, str, str, str] | None:
    """Return dy, s, y and 1 - s if these are dy s and (dy x) (s (1 - s))."""
    outer, plain = added.made_by(through, "Mul"), added.made_by(direct, "Mul")
    if outer is None or plain is None:
        return None
    for weighted, slope in (outer.input, outer.input[::-1]):
        product, curve = added.made_by(weighted, "Mul"), added.made_by(slope, "Mul")
        if product is None or curve is None:
            continue
        for s, complement in (curve.input, curve.input[::-1]):
            sigmoid = added.forward.producer_of(s)
            if (
                sigmoid is None
                or sigmoid.op_type != "Sigmoid"
                or not _is_one_minus(added, complement, s)
            ):
                continue
            x = sigmoid.input[0]
            dy = _other(product, x)
            y = _product_of(added, x, s)
            if dy is not None and y is not None and dy == _other(plain, s):
                return dy, s, y, complement
    return None


def _other(product: NodeProto, factor: str) -> str | None:
    """Return the other factor of a product of two."""
    factors = list(product.input)
    if factor not in factors or len(factors) != 2:
        return None
    return str(factors[1 - factors.index(factor)])


def _is_one_minus(added: Added, name: str, s: str) -> bool:
    node = added.made_by(name, "HardSigmoid")
    if node is None or node.input[0] != s:
        return False
    return bool(attribute_of(node, "alpha") == -1 and attribute_of(node, "beta") == 1)


def _product_of(added: Added, x: str, s: str) -> str | None:
    """Return the forward result x s."""
    for node in added.forward.readers_of(s):
        if node.op_type == "Mul" and sorted(node.input) == sorted((x, s)):
            return str(node.output[0])
    return None
