"""Rotary embeddings of positions.

Source: onnxruntime, ``docs/ContribOperators.md``; Su et al., arXiv 2104.09864, equation 34.
"""

from __future__ import annotations

from onnx_gradcam.export.expansion.registry import expansion
from onnx_gradcam.gradients.registry import Context, FormulaError


@expansion("RotaryEmbedding")
def _rotary_embedding(ctx: Context) -> list[str]:
    """Pairs (a, b) of features become (a cos - b sin, a sin + b cos), the angle by position.

    Raises:
        FormulaError: batches are packed, or positions scaled.
    """
    if ctx.attribute("is_packed_batching", 0) or ctx.attribute("scale", 1.0) != 1:
        raise FormulaError("its batches are packed, or its positions scaled")
    emit, x = ctx.emit, ctx.inputs[0]
    rank = len(ctx.shape(x))
    half = ctx.static_sizes(ctx.inputs[2])[1]
    partial = ctx.attribute("rotary_embedding_dim", 0)
    if rank == 3:  # (N, L, heads * size)
        size = [ctx.attribute("num_heads", 0), -1] if partial else [-1, 2 * half]
        heads = emit.reshape(x, [0, 0, *size])
    else:  # (N, heads, L, size)
        heads = emit.transpose(x, [0, 2, 1, 3])
    turned = _turn(ctx, emit.slice(heads, [0], [2 * half], [3]) if partial else heads, half)
    if partial:
        rest = emit.slice(heads, [2 * half], [2**31 - 1], [3])
        turned = emit.concat([turned, rest], 3)
    return [emit.reshape(turned, [0, 0, -1]) if rank == 3 else emit.transpose(turned, [0, 2, 1, 3])]


def _turn(ctx: Context, x: str, half: int) -> str:
    """Return ``(N, L, heads, 2 * half)`` turned; pairs are neighbours or lie half apart."""
    emit = ctx.emit
    cos, sin = (_of_positions(ctx, name) for name in ctx.inputs[2:4])
    neighbours = ctx.attribute("interleaved", 0)
    shape = [half, 2] if neighbours else [2, half]
    pairs = emit.reshape(x, [0, 0, 0, *shape])
    axis = 4 if neighbours else 3
    a, b = (emit.squeeze(emit.slice(pairs, [i], [i + 1], [axis]), [axis]) for i in range(2))
    real = emit.sub(emit.mul(a, cos), emit.mul(b, sin))
    imaginary = emit.add(emit.mul(a, sin), emit.mul(b, cos))
    both = emit.concat([emit.unsqueeze(part, [axis]) for part in (real, imaginary)], axis)
    return emit.reshape(both, [0, 0, 0, 2 * half])


def _of_positions(ctx: Context, cache: str) -> str:
    """Return rows of a cache, ``(N or 1, L, 1, half)``.

    Raises:
        FormulaError: positions follow from the number of tokens, which is not known at export.
    """
    emit, positions = ctx.emit, ctx.inputs[1]
    if len(ctx.shape(positions)) == 1:  # where the first token is
        axis = 1 if len(ctx.shape(ctx.inputs[0])) == 3 else 2
        tokens = ctx.static_sizes(ctx.inputs[0], 1)[axis - 1]
        positions = emit.unsqueeze(emit.add(positions, emit.ints(range(tokens))), [0])
    return emit.unsqueeze(emit.node("Gather", [cache, positions], axis=0), [2])
