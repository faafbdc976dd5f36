"""The seed of one class times weights: a row of the weights, read instead of multiplied.

The seed of the score of a class is 1 at the class and 0 elsewhere, so its product with the weights
of the classifier is what they hold for the class. It reads K times less memory, and that is what a
classifier costs.
"""

from __future__ import annotations

from onnx import NodeProto

from onnx_gradcam.export.simplify.added import Added, Rule
from onnx_gradcam.gradients.registry import attribute_of


def take_class(seed: str, classes: str) -> Rule:
    """Return the rule for products with a seed.

    Args:
        seed: one-hot, ``(N, K)``.
        classes: int64 ``(N,)``, where it is 1.
    """

    def rule(added: Added, node: NodeProto) -> str | None:
        product = _PRODUCTS.get(node.op_type)
        matrix = None if product is None else product(added, node, seed)
        if matrix is None:
            return None
        name, axis, rank = matrix
        emit = added.emit
        with emit.scope("gradient/of_class"):
            taken = emit.node("Gather", [name, classes], axis=axis)
            if axis == 0:
                return taken
            return emit.transpose(taken, [1, 0, *range(2, rank)])

    return rule


_Weights = tuple[str, int, int]
"""Weights, the axis of their classes, their rank."""


def _of_matmul(added: Added, node: NodeProto, seed: str) -> _Weights | None:
    if node.input[0] != seed:
        return None
    return _untransposed(added, node.input[1], 0)


def _of_gemm(added: Added, node: NodeProto, seed: str) -> _Weights | None:
    third = added.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    plain = attribute_of(node, "alpha", 1.0) == 1 and not attribute_of(node, "transA", 0)
    if node.input[0] != seed or not plain or (len(node.input) > 2 and not _is_zero(third)):
        return None
    return _untransposed(added, node.input[1], 1 if attribute_of(node, "transB", 0) else 0)


def _of_conv(added: Added, node: NodeProto, seed: str) -> _Weights | None:
    """A classifier that is a convolution of one pixel: weights ``(C, K, 1, ...)``."""
    reshape = added.made_by(node.input[0], "Reshape")
    shape, seed_shape = added.shape(node.input[0]), added.shape(seed)
    if reshape is None or reshape.input[0] != seed or shape is None or seed_shape is None:
        return None
    pixel = shape[:2] == seed_shape and all(size == 1 for size in shape[2:])
    kernel = (added.shape(node.input[1]) or (0, 0, 0))[2:]
    padded = any(attribute_of(node, "pads", ()))
    if not pixel or any(size != 1 for size in kernel) or padded or len(node.input) > 2:
        return None
    if attribute_of(node, "group", 1) != 1:
        return None
    return _untransposed(added, node.input[1], 1)


def _untransposed(added: Added, weights: str, axis: int) -> _Weights | None:
    """Return weights and axis, those before a swap of the first two axes where there is one."""
    shape = added.shape(weights)
    if shape is None:
        return None
    swap = added.made_by(weights, "Transpose")
    rank = len(shape)
    if swap is not None and list(attribute_of(swap, "perm", ())) == [1, 0, *range(2, rank)]:
        return swap.input[0], 1 - axis, rank
    return (weights, axis, rank) if rank == 2 or axis == 1 else None


def _is_zero(value: object) -> bool:
    return value is not None and not bool(getattr(value, "any", lambda: True)())


_PRODUCTS = {"MatMul": _of_matmul, "Gemm": _of_gemm, "Conv": _of_conv}
