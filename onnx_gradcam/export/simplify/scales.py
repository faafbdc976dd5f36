"""Scales of channels that a convolution follows: they become part of its weights.

The gradient of BatchNormalization is a product with a constant per channel, and onnxruntime folds
only those behind a convolution. Scaled weights are computed from weights and constants, which
onnxruntime does once, when it loads the file.
"""

from __future__ import annotations

from onnx import NodeProto, helper

from onnx_gradcam.export.simplify.added import Added
from onnx_gradcam.gradients.registry import attribute_of

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


def fold_scale(added: Added, node: NodeProto) -> str | None:
    """Emit Conv(x, W s) for Conv(x s, W), s constant per channel; so for ConvTranspose."""
    if node.op_type not in _CONVOLUTIONS:
        return None
    product = added.made_by(node.input[0], "Mul")
    if product is None or not all(
        reader.op_type in _CONVOLUTIONS and reader.input[0] == node.input[0]
        for reader in added.readers[node.input[0]]
    ):
        return None
    weight, rank = node.input[1], len(added.shape(node.input[1]) or ())
    pairs = (product.input, product.input[::-1])
    found = [
        (x, scale)
        for x, scale in pairs
        if _per_channel(added.shape(scale), rank) and added.is_weight(scale)
    ]
    if not found or not added.is_weight(weight):
        return None
    ((x, scale),) = found[:1]
    group, emit = attribute_of(node, "group", 1), added.emit
    with emit.scope("gradient/scaled_weights"):
        if node.op_type == "ConvTranspose" or group > 1:
            if node.op_type == "Conv" and (added.shape(weight) or ())[1] != 1:
                return None
            scale = emit.reshape(scale, [-1, *[1] * (rank - 1)])
        scaled = emit.mul(weight, scale)
    name = emit.unique(node.name.removeprefix(emit.prefix))
    emit.nodes.append(
        helper.make_node(node.op_type, [x, scaled, *node.input[2:]], [name], name=name)
    )
    emit.nodes[-1].attribute.extend(node.attribute)
    return name


def _per_channel(shape: tuple[object, ...] | None, rank: int) -> bool:
    """Return whether a shape is ``(1, C, 1, ...)`` of this rank, or ``(C, 1, ...)``, C > 1."""
    if shape is None or rank < 3 or len(shape) not in {rank, rank - 1}:
        return False
    channels, others = shape[-(rank - 1)], [*shape[: -(rank - 1)], *shape[len(shape) - rank + 2 :]]
    return isinstance(channels, int) and channels > 1 and all(size == 1 for size in others)
