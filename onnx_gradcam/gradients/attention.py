"""Gradients of Attention and RotaryEmbedding.

Sources: ONNX operator specifications Attention-23 to -25 and RotaryEmbedding-23; the attention
weights are computed anew, for they are no output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, helper

from onnx_gradcam.gradients.broadcasting import unbroadcast
from onnx_gradcam.gradients.emitter import Dim, Emitter
from onnx_gradcam.gradients.normalization import softmax
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient

_CACHE = {4: "past_key", 5: "past_value", 6: "nonpad_kv_seqlen"}
_QUERY, _KEY, _VALUE, _MASK = range(4)


def _has_cache_or_more_outputs(node: NodeProto) -> bool:
    return any(node.input[min(_CACHE) :]) or any(node.output[1:])


@gradient("Attention", since=23, unless=_has_cache_or_more_outputs)
def _attention(ctx: Context) -> Gradients:
    """Y = P V, P = softmax(mask + cap(scale Q K^T)), cap(s) = c tanh(s / c) where c is given.

    dV = P^T dY, dS = P (dP - sum(dP P)) with dP = dY V^T, the mask's too; through the cap times
    1 - tanh^2; dQ = scale dS K, dK = scale dS^T Q. Heads of Q that share one of K and V add up.

    Raises:
        FormulaError: it reads a cache of keys and values, or the mask is shorter than the keys.
    """
    emit, heads = ctx.emit, _checked_heads(ctx)
    q, k, v, bent, p = _forward(ctx, heads)
    scale = _scale(ctx, heads)
    dy = heads.split(emit, ctx.dy, heads.queries)
    ds = softmax(emit, emit.matmul(dy, _swapped(emit, v)), p, [3])
    inner = emit.mul(ds, emit.sub(1.0, emit.mul(bent, bent))) if bent else ds
    inner = emit.mul(inner, scale)
    results: list[str | None] = [None] * len(ctx.inputs)
    if ctx.wanted[_QUERY]:
        results[_QUERY] = heads.join(emit, emit.matmul(inner, k))
    if ctx.wanted[_KEY]:
        results[_KEY] = heads.add_up(emit, emit.matmul(_swapped(emit, inner), q), _KEY)
    if ctx.wanted[_VALUE]:
        results[_VALUE] = heads.add_up(emit, emit.matmul(_swapped(emit, p), dy), _VALUE)
    if len(ctx.wanted) > _MASK and ctx.wanted[_MASK]:
        emit.declare(ds, emit.dtype(ds), heads.score_shape)
        results[_MASK] = unbroadcast(ctx, ds, ctx.inputs[_MASK], ds)
    return results


def _forward(ctx: Context, heads: _Heads) -> tuple[str, str, str, str, str]:
    """Return Q, K and V per head of Q, tanh of the capped scores (``""`` without a cap), and P."""
    emit = ctx.emit
    q = heads.split(emit, ctx.inputs[_QUERY], heads.queries)
    k, v = (heads.shared(emit, ctx.inputs[i], heads.sizes[i]) for i in (_KEY, _VALUE))
    scores = emit.mul(emit.matmul(q, _swapped(emit, k)), _scale(ctx, heads))
    cap = float(ctx.attribute("softcap", 0.0))
    bent = emit.unary("Tanh", emit.div(scores, cap)) if cap else ""
    return q, k, v, bent, _weights(ctx, emit.mul(bent, cap) if cap else scores, heads)


def _scale(ctx: Context, heads: _Heads) -> float:
    return float(ctx.attribute("scale") or 1 / math.sqrt(heads.size))


def emit_weights(ctx: Context) -> str:
    """Emit the weights P of an Attention node anew, ``(N, heads, queries, keys)``.

    Raises:
        FormulaError: what the gradient does not cover.
    """
    return _forward(ctx, _checked_heads(ctx))[-1]


def emit_weights_gradient(ctx: Context, dy: str) -> str:
    """Emit dL/dP = dY V^T of an Attention node, ``(N, heads, queries, keys)``, from dL/dY.

    Raises:
        FormulaError: what the gradient does not cover.
    """
    emit, heads = ctx.emit, _checked_heads(ctx)
    v = heads.shared(emit, ctx.inputs[_VALUE], heads.sizes[_VALUE])
    return emit.matmul(heads.split(emit, dy, heads.queries), _swapped(emit, v))


def _checked_heads(ctx: Context) -> _Heads:
    """Return the heads.

    Raises:
        FormulaError: the node reads a cache of keys and values, or tells no number of heads.
    """
    for index, name in _CACHE.items():
        if ctx.has_input(index):
            raise FormulaError(f"its input {name} is not covered")
    return _Heads.of(ctx)


@dataclass(frozen=True)
class _Heads:
    """How the heads lie in the tensors: ``(N, heads, tokens, size)``, or ``(N, tokens, all)``.

    Attributes:
        joined: whether they are joined in one axis.
        queries: number of heads of Q.
        keys: number of heads of K and V; each serves queries / keys heads of Q, one by one.
        size: length of a query and a key.
        sizes: length of the vectors of Q, K and V per head, where it is known.
        score_shape: of Q K^T, ``(N, queries, query tokens, key tokens)``.
    """

    joined: bool
    queries: int
    keys: int
    size: int
    sizes: tuple[Dim, ...]
    score_shape: tuple[Dim, ...]

    @classmethod
    def of(cls, ctx: Context) -> _Heads:
        """Read shapes and attributes.

        Raises:
            FormulaError: the number of heads or their size is not known at export.
        """
        q, k, v = (ctx.shape(name) for name in ctx.inputs[:3])
        joined = len(q) == 3
        queries, keys = (
            (ctx.attribute("q_num_heads"), ctx.attribute("kv_num_heads"))
            if joined
            else (q[1], k[1])
        )
        if not isinstance(queries, int) or not isinstance(keys, int):
            raise FormulaError("the number of heads is not known at export")
        counts = (queries, keys, keys)
        sizes = [
            width // count if joined and isinstance(width, int) else width
            for width, count in zip((q[-1], k[-1], v[-1]), counts, strict=True)
        ]
        if not isinstance(sizes[0], int):
            raise FormulaError("the size of a head is not known at export")
        shape = (q[0], queries, q[-2], k[-2])
        return cls(joined, queries, keys, sizes[0], tuple(sizes), shape)

    def split(self, emit: Emitter, x: str, heads: int) -> str:
        """Return x with an axis of heads of its own."""
        if not self.joined:
            return x
        return emit.transpose(emit.reshape(x, [0, 0, heads, -1]), [0, 2, 1, 3])

    def join(self, emit: Emitter, x: str) -> str:
        """Undo `split`."""
        if not self.joined:
            return x
        return emit.reshape(emit.transpose(x, [0, 2, 1, 3]), [0, 0, -1])

    def shared(self, emit: Emitter, x: str, size: Dim) -> str:
        """Return K or V with one head per head of Q.

        Raises:
            FormulaError: the size of a head is not known at export.
        """
        x = self.split(emit, x, self.keys)
        if self.queries == self.keys:
            return x
        if not isinstance(size, int):
            raise FormulaError("the size of a head is not known at export")
        repeats = self.queries // self.keys
        stretched = emit.expand(emit.unsqueeze(x, [2]), emit.ints([1, 1, repeats, 1, 1]))
        return emit.reshape(stretched, [0, self.queries, -1, size])

    def add_up(self, emit: Emitter, x: str, index: int) -> str:
        """Undo `shared`: sum over the heads of Q that read the same head, and `join`."""
        size = self.sizes[index]
        if self.queries != self.keys and isinstance(size, int):
            repeats = self.queries // self.keys
            apart = emit.reshape(x, [0, self.keys, repeats, -1, size])
            x = emit.reduce_sum(apart, [2], keepdims=False)
        return self.join(emit, x)


def _swapped(emit: Emitter, x: str) -> str:
    return emit.transpose(x, [0, 1, 3, 2])


def _weights(ctx: Context, scores: str, heads: _Heads) -> str:
    """Return softmax(mask + scores): 0 for tokens that are masked out, even for all of a query's.

    Raises:
        FormulaError: the mask is shorter than the keys.
    """
    emit, barred = ctx.emit, _barred_by_place(ctx, heads)
    if ctx.has_input(_MASK):
        mask = ctx.inputs[_MASK]
        lengths = ctx.shape(mask)[-1], heads.score_shape[-1]
        if all(isinstance(n, int) for n in lengths) and lengths[0] != lengths[1]:
            raise FormulaError("a mask that is shorter than the keys is not covered")
        if emit.dtype(mask) == TensorProto.BOOL:
            barred.append(emit.node("Not", [mask]))
        else:
            scores = emit.add(scores, mask)
            barred.append(emit.node("Not", [emit.greater(mask, -math.inf)]))
    if not barred:
        return emit.node("Softmax", [scores], axis=-1)
    out = barred[0]
    for other in barred[1:]:
        out = emit.node("Or", [out, other])
    lowest = float(np.finfo(helper.tensor_dtype_to_np_dtype(emit.dtype(scores))).min)
    p = emit.node("Softmax", [emit.where(out, lowest, scores)], axis=-1)
    return emit.where(out, 0.0, p)


def _barred_by_place(ctx: Context, heads: _Heads) -> list[str]:
    """Return what is_causal and the window sizes bar: bool, ``(query tokens, key tokens)``."""
    after = [ctx.attribute("right_window_size", -1)] + [0] * bool(ctx.attribute("is_causal", 0))
    later = min((n for n in after if n >= 0), default=None)
    earlier = ctx.attribute("left_window_size", -1)
    if later is None and earlier < 0:
        return []
    emit = ctx.emit
    tokens = [
        _places(emit, ctx.inputs[i], 1 if heads.joined else 2, heads.score_shape[2 + i])
        for i in (_QUERY, _KEY)
    ]
    distance = emit.sub(tokens[1], emit.unsqueeze(tokens[0], [1]))
    barred = [] if later is None else [emit.greater(distance, emit.ints([later]))]
    return barred + ([] if earlier < 0 else [emit.less(distance, emit.ints([-earlier]))])


def _places(emit: Emitter, x: str, axis: int, size: Dim) -> str:
    """Return 0, 1, 2, ... as many as an axis is long."""
    if isinstance(size, int):
        return emit.ints(range(size))
    length = emit.node("Gather", [emit.node("Shape", [x]), emit.constant(np.array(axis))])
    bounds = [emit.constant(np.array(0)), length, emit.constant(np.array(1))]
    return emit.node("Range", bounds, dtype=TensorProto.INT64)


@gradient("RotaryEmbedding", since=23)
def _rotary_embedding(ctx: Context) -> Gradients:
    """Rotate dy back: by the same angles, with the sines negated."""
    emit, (_, cosine, sine, *positions) = ctx.emit, ctx.inputs
    names = ("interleaved", "num_heads", "rotary_embedding_dim")
    attributes = {name: ctx.attribute(name) for name in names}
    inputs = [ctx.dy, cosine, emit.neg(sine), *positions]
    return [emit.node("RotaryEmbedding", inputs, **attributes)]
