"""Multi-head attention of onnxruntime's transformer optimisations.

Source: onnxruntime, ``docs/ContribOperators.md``; Vaswani et al., arXiv 1706.03762, equation 1.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnx_gradcam.export.expansion.registry import expansion
from onnx_gradcam.gradients.registry import Context, FormulaError

_PAST = "it keeps keys and values of former calls"


@dataclass(frozen=True)
class _Heads:
    """Queries, keys and values as ``(N, heads, tokens, size)``, and the size of a query."""

    query: str
    key: str
    value: str
    size: int


@expansion("Attention")
def _attention(ctx: Context) -> list[str]:
    """Y = attention of X W + bias, split into queries, keys and values.

    Raises:
        FormulaError: with past states or rotary embeddings.
    """
    if ctx.has_input(4) or ctx.attribute("do_rotary", 0):
        raise FormulaError(_PAST if ctx.has_input(4) else "its embeddings are rotary")
    emit, count = ctx.emit, ctx.attribute("num_heads")
    total = ctx.static_sizes(ctx.inputs[1])[1]
    sizes = ctx.attribute("qkv_hidden_sizes") or [total // 3] * 3
    projected = emit.matmul(ctx.inputs[0], ctx.inputs[1])
    if ctx.has_input(2):
        projected = emit.add(projected, ctx.inputs[2])
    ends = np.cumsum(sizes).tolist()
    parts = [
        _split_heads(ctx, emit.slice(projected, [end - size], [end], [-1]))
        for size, end in zip(sizes, ends, strict=True)
    ]
    heads = _Heads(parts[0], parts[1], parts[2], sizes[0] // count)
    return [_attend(ctx, heads, mask=3, bias=5)]


@expansion("MultiHeadAttention")
def _multi_head_attention(ctx: Context) -> list[str]:
    """Y = attention of queries, keys and values, each plus its part of the bias.

    Raises:
        FormulaError: with past states.
    """
    if any(ctx.has_input(i) for i in (6, 7, 8, 9)):
        raise FormulaError(_PAST)
    return [_attend(ctx, _given_heads(ctx), mask=4, bias=5)]


def _given_heads(ctx: Context) -> _Heads:
    """Return the heads from any of the forms of query, key and value."""
    emit, count = ctx.emit, ctx.attribute("num_heads")
    rank = len(ctx.shape(ctx.inputs[0]))
    if rank == 5:  # (N, L, heads, 3, size)
        query, key, value = _unpacked(ctx, ctx.inputs[0], 3)
        return _Heads(query, key, value, ctx.static_sizes(ctx.inputs[0], 4)[0])
    hidden = ctx.static_sizes(ctx.inputs[0], 2)[0]
    query = ctx.inputs[0]
    if not ctx.has_input(3):
        biases = ["", "", ""]
    else:
        total = ctx.static_sizes(ctx.inputs[3])[0]
        bounds = [0, hidden, 2 * hidden, total]
        biases = [
            emit.slice(ctx.inputs[3], [start], [end], [0])
            for start, end in itertools.pairwise(bounds)
        ]
    heads = [_split_heads(ctx, _plus(ctx, query, biases[0]))]
    key_rank = len(ctx.shape(ctx.inputs[1])) if ctx.has_input(1) else 3
    if key_rank == 5:  # (N, L, heads, 2, size)
        heads += _unpacked(ctx, ctx.inputs[1], 2)
    else:
        for index in (1, 2):
            given = ctx.inputs[index] if ctx.has_input(index) else query
            if len(ctx.shape(given)) == 4:  # (N, heads, L, size): projected already
                heads.append(given)
            else:
                heads.append(_split_heads(ctx, _plus(ctx, given, biases[index])))
    return _Heads(heads[0], heads[1], heads[2], hidden // count)


def _unpacked(ctx: Context, packed: str, count: int) -> list[str]:
    """Return the parts of ``(N, L, heads, count, size)`` as ``(N, heads, L, size)``."""
    emit = ctx.emit
    parts = [emit.slice(packed, [i], [i + 1], [3]) for i in range(count)]
    return [emit.transpose(emit.squeeze(part, [3]), [0, 2, 1, 3]) for part in parts]


def _plus(ctx: Context, x: str, bias: str) -> str:
    return ctx.emit.add(x, bias) if bias else x


def _split_heads(ctx: Context, x: str) -> str:
    """Return ``(N, L, D)`` as ``(N, heads, L, D / heads)``."""
    return ctx.emit.transpose(
        ctx.emit.reshape(x, [0, 0, ctx.attribute("num_heads"), -1]), [0, 2, 1, 3]
    )


def _attend(ctx: Context, heads: _Heads, *, mask: int, bias: int) -> str:
    """Return softmax(Q K' scale + bias + mask) V as ``(N, L, D)``.

    Args:
        ctx: the node.
        heads: Q, K and V.
        mask: input that says which keys are seen.
        bias: input that is added to the products.
    """
    emit = ctx.emit
    scale = ctx.attribute("scale", 0.0) or 1 / math.sqrt(heads.size)
    products = emit.matmul(emit.mul(heads.query, scale), emit.transpose(heads.key, [0, 1, 3, 2]))
    if ctx.has_input(bias):
        products = emit.add(products, ctx.inputs[bias])
    if ctx.has_input(mask):
        products = emit.add(products, _mask(ctx, ctx.inputs[mask], products))
    if ctx.attribute("unidirectional", 0):
        products = emit.add(products, _causal(ctx, products))
    weights = emit.node("Softmax", [products], axis=3)
    mixed = emit.transpose(emit.matmul(weights, heads.value), [0, 2, 1, 3])
    return emit.reshape(mixed, [0, 0, -1])


def _mask(ctx: Context, mask: str, like: str) -> str:
    """Return what is added to the products: the filter value where the mask is 0.

    Raises:
        FormulaError: the mask is not one of 0 and 1 per key, or per query and key.
    """
    emit = ctx.emit
    axes = {2: [1, 2], 3: [1]}.get(len(ctx.shape(mask)))
    if axes is None:
        raise FormulaError("its mask is not (N, keys) or (N, queries, keys) of 0 and 1")
    seen = emit.cast(emit.unsqueeze(mask, axes), emit.dtype(like))
    return emit.mul(emit.sub(1.0, seen), ctx.attribute("mask_filter_value", -10000.0))


def _causal(ctx: Context, like: str) -> str:
    """Return a constant that hides later keys.

    Raises:
        FormulaError: the number of tokens is not known at export.
    """
    tokens = ctx.static_sizes(ctx.inputs[0], 1)[0]
    lowest = -10000.0 if ctx.emit.dtype(like) == TensorProto.FLOAT16 else -1e30
    return ctx.emit.filled(np.triu(np.full((tokens, tokens), lowest), 1), like)
