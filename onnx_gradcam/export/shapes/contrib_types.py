"""Types of what onnxruntime's own operators compute; ONNX's shape inference does not know them.

Optimised and quantized models hold operators of the domain ``com.microsoft`` and, saved from a
session with all optimisations, of ``com.microsoft.nchwc``. Source: onnxruntime's
docs/ContribOperators.md, and its nchwc schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from onnx import NodeProto, TensorProto

from onnx_gradcam.export.shapes import shape_rules
from onnx_gradcam.export.shapes.shape_rules import Shape
from onnx_gradcam.gradients.emitter import Dim, TensorType
from onnx_gradcam.gradients.registry import attribute_of


class Lookup(shape_rules.Lookup, Protocol):
    """What the rules ask for."""

    def type_of(self, name: str) -> TensorType | None:
        """Return what is known of a tensor."""


Rule = Callable[[Lookup, NodeProto], "list[TensorType | None]"]


def _dtype(lookup: Lookup, node: NodeProto, *positions: int) -> int | None:
    """Return the element type of the first input there is at one of these positions."""
    for position in positions:
        name = node.input[position] if position < len(node.input) else ""
        known = lookup.type_of(name) if name else None
        if known is not None:
            return known.dtype
    return None


def _typed(dtype: int | None, shape: Shape | None) -> list[TensorType | None]:
    return [None if dtype is None else TensorType(dtype, shape)]


def _like(position: int = 0) -> Rule:
    """All outputs are of the type of one input."""

    def rule(lookup: Lookup, node: NodeProto) -> list[TensorType | None]:
        return [lookup.type_of(node.input[position]) for _ in node.output]

    return rule


def _shaped_like(dtypes: Sequence[int], default: int | None = None) -> Rule:
    """The shape of the first input, the element type of another one."""

    def rule(lookup: Lookup, node: NodeProto) -> list[TensorType | None]:
        return _typed(_dtype(lookup, node, *dtypes) or default, lookup.shape(node.input[0]))

    return rule


def _skip_normalization(lookup: Lookup, node: NodeProto) -> list[TensorType | None]:
    """(y, mean, inverse deviation, input + skip)."""
    known = lookup.type_of(node.input[0])
    small = None
    if known is not None and known.shape is not None:
        small = TensorType(TensorProto.FLOAT, (*known.shape[:-1], 1))
    return [known, small, small, known][: len(node.output)]


def _broadcast(*positions: int) -> Rule:
    def rule(lookup: Lookup, node: NodeProto) -> list[TensorType | None]:
        shapes = [lookup.shape(node.input[p]) for p in positions]
        known = [shape for shape in shapes if shape is not None]
        shape = lookup.sizes.broadcast(known) if len(known) == len(shapes) else None
        return _typed(_dtype(lookup, node, *positions), shape)

    return rule


def _product(b: int, dtypes: Sequence[int], default: int | None = None) -> Rule:
    """MatMul of the first input and the one at `b`, either of them transposed by attribute."""

    def rule(lookup: Lookup, node: NodeProto) -> list[TensorType | None]:
        left, right = lookup.shape(node.input[0]), lookup.shape(node.input[b])
        shape = None
        if left is not None and right is not None and len(left) > 1 and len(right) > 1:
            rows = left[-1] if attribute_of(node, "transA", 0) else left[-2]
            columns = right[-2] if attribute_of(node, "transB", 0) else right[-1]
            shape = (*lookup.sizes.broadcast([left[:-2], right[:-2]]), rows, columns)
        return _typed(_dtype(lookup, node, *dtypes) or default, shape)

    return rule


def _narrow_weights(lookup: Lookup, node: NodeProto) -> list[TensorType | None]:
    """MatMulNBits: ``(..., K) -> (..., N)``."""
    shape = lookup.shape(node.input[0])
    out = None if shape is None else (*shape[:-1], attribute_of(node, "N"))
    return _typed(_dtype(lookup, node, 0), out)


def _attention(lookup: Lookup, node: NodeProto) -> list[TensorType | None]:
    """Attention and QAttention: weights ``(D, q + k + v)``, the result is ``(N, T, v)``."""
    shape, weights = lookup.shape(node.input[0]), lookup.shape(node.input[1])
    if shape is None or weights is None:
        return [None]
    parts = attribute_of(node, "qkv_hidden_sizes")
    width = parts[2] if parts else lookup.sizes.quotient(weights[-1], 3)
    dtype = TensorProto.FLOAT if node.op_type == "QAttention" else _dtype(lookup, node, 0)
    return _typed(dtype, (*shape[:-1], width))


def _multi_head(lookup: Lookup, node: NodeProto) -> list[TensorType | None]:
    """MultiHeadAttention: (N, T, D) queries; the width is that of the values."""
    query = lookup.shape(node.input[0])
    value = lookup.shape(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if query is None or len(query) != 3:
        return [None]
    width = value[-1] if value is not None and len(value) == 3 else query[-1]
    return _typed(_dtype(lookup, node, 0), (*query[:-1], width))


def _concat(lookup: Lookup, node: NodeProto) -> list[TensorType | None]:
    """QLinearConcat: scale and zero point of the result, then three inputs per part."""
    standard = NodeProto(op_type="Concat", input=node.input[2::3], attribute=node.attribute)
    return _typed(_dtype(lookup, node, 1), shape_rules.RULES["Concat"](lookup, standard, None))


def _window(op_type: str, dtype: int = 0) -> Rule:
    """Operators that fuse a Conv or a pooling, channels first or last."""

    def rule(lookup: Lookup, node: NodeProto) -> list[TensorType | None]:
        last = node.op_type.startswith("Nhwc") or bool(attribute_of(node, "channels_last", 0))
        standard = NodeProto()
        standard.CopyFrom(node)
        standard.op_type = op_type
        view = _Moved(lookup, node.input[0]) if last else lookup
        shape = shape_rules.RULES[op_type](view, standard, None)
        if last and shape is not None:
            shape = (shape[0], *shape[2:], shape[1])
        return _typed(_dtype(lookup, node, dtype, 0), shape)

    return rule


class _Moved:
    """The lookup, with one tensor's channels moved from the last axis to the second."""

    def __init__(self, lookup: Lookup, name: str) -> None:
        self.sizes = lookup.sizes
        self.value = lookup.value
        self.partial_or_value = lookup.partial_or_value
        self._lookup = lookup
        self._name = name

    def shape(self, name: str) -> Shape | None:
        shape = self._lookup.shape(name)
        if name != self._name or not shape:
            return shape
        return (shape[0], shape[-1], *shape[1:-1])


def _global_pool(lookup: Lookup, node: NodeProto) -> list[TensorType | None]:
    shape = lookup.shape(node.input[0])
    if shape is None:
        return _typed(_dtype(lookup, node, 0), None)
    ones: tuple[Dim, ...] = (1,) * (len(shape) - 2)
    last = attribute_of(node, "channels_last", 0)
    pooled = (shape[0], *ones, shape[-1]) if last else (shape[0], shape[1], *ones)
    return _typed(_dtype(lookup, node, 0), pooled)


def _reduced(lookup: Lookup, node: NodeProto) -> list[TensorType | None]:
    shape, axes = lookup.shape(node.input[0]), attribute_of(node, "axes")
    if shape is None or axes is None:
        return _typed(_dtype(lookup, node, 0), None)
    gone = {axis % len(shape) for axis in axes}
    keep = attribute_of(node, "keepdims", 1)
    left = [1 if i in gone else d for i, d in enumerate(shape) if keep or i not in gone]
    return _typed(_dtype(lookup, node, 0), tuple(left))


def _reordered(lookup: Lookup, node: NodeProto) -> list[TensorType | None]:
    """ReorderInput pads the channels to whole blocks, ReorderOutput cuts them again."""
    shape = lookup.shape(node.input[0])
    if shape is None or len(shape) < 3:
        return _typed(_dtype(lookup, node, 0), None)
    last = bool(attribute_of(node, "channels_last", 0))
    if node.op_type == "ReorderOutput":
        channels = attribute_of(node, "channels")
        inner = shape[2:]
        out = (shape[0], *inner, channels) if last else (shape[0], channels, *inner)
    else:
        out = (shape[0], None, *(shape[1:-1] if last else shape[2:]))
    return _typed(_dtype(lookup, node, 0), out)


_MICROSOFT: Mapping[str, Rule] = {
    **dict.fromkeys(("BiasGelu", "FastGelu", "Gelu", "QuickGelu"), _like()),
    **dict.fromkeys(("BiasSoftmax", "BiasDropout", "BiasAdd", "GroupNorm", "Inverse"), _like()),
    **dict.fromkeys(("QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "Trilu"), _like()),
    **dict.fromkeys(
        ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _skip_normalization
    ),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), _broadcast(0, 3)),
    **dict.fromkeys(("FusedMatMul", "FusedGemm", "TransposeMatMul"), _product(1, [0])),
    **dict.fromkeys(
        ("DynamicQuantizeMatMul", "MatMulIntegerToFloat"), _product(1, [], TensorProto.FLOAT)
    ),
    **dict.fromkeys(("Attention", "QAttention"), _attention),
    **dict.fromkeys(("FusedConv", "NhwcFusedConv", "NhwcConv"), _window("Conv")),
    "DequantizeLinear": _shaped_like([1]),
    "MatMulNBits": _narrow_weights,
    "MultiHeadAttention": _multi_head,
    "NhwcMaxPool": _window("MaxPool"),
    "QGemm": _product(3, [8], TensorProto.FLOAT),
    "QLinearAveragePool": _window("AveragePool"),
    "QLinearConcat": _concat,
    "QLinearConv": _window("QLinearConv", 7),
    "QLinearGlobalAveragePool": _global_pool,
    "QLinearReduceMean": _reduced,
    "QuantizeLinear": _shaped_like([2], TensorProto.UINT8),
}

_NCHWC: Mapping[str, Rule] = {
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
    **dict.fromkeys(("ReorderInput", "ReorderOutput"), _reordered),
    "AveragePool": _window("AveragePool"),
    "Conv": _window("Conv"),
    "MaxPool": _window("MaxPool"),
}

RULES: Mapping[str, Mapping[str, Rule]] = {
    "com.microsoft": _MICROSOFT,
    "com.microsoft.nchwc": _NCHWC,
    # onnxruntime's optimiser writes these without a domain of their own
    "": {"SimplifiedLayerNormalization": _like()},
}
"""Domain -> operator -> its rule."""
