"""Gradients of operators that move or repeat all values, and of sums along an axis.

Sources: ONNX operator specifications of Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Expand,
Tile, SpaceToDepth, DepthToSpace, Trilu, CumSum and ReverseSequence, in all forms from opset 7 on.
"""

from __future__ import annotations

from onnx_gradcam.gradients.broadcasting import unbroadcast
from onnx_gradcam.gradients.registry import Context, Gradients, gradient, lowering
from onnx_gradcam.gradients.sizes import Size, element, reshape, size_of, sizes_of


@gradient("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(ctx: Context) -> Gradients:
    dx = ctx.emit.reshape_like(ctx.dy, ctx.inputs[0])
    return [dx]


@gradient("Transpose")
def _transpose(ctx: Context) -> Gradients:
    rank = len(ctx.shape(ctx.inputs[0]))
    perm = ctx.attribute("perm", list(range(rank))[::-1])
    return [ctx.emit.transpose(ctx.dy, [perm.index(i) for i in range(rank)])]


@gradient("Expand")
def _expand(ctx: Context) -> Gradients:
    return [unbroadcast(ctx, ctx.dy, ctx.inputs[0], ctx.outputs[0])]


@gradient("Tile")
def _tile(ctx: Context) -> Gradients:
    """Sum over the copies: an axis of n copies is split in ``(n, size)``."""
    emit, x = ctx.emit, ctx.inputs[0]
    rank = len(ctx.shape(x))
    value = emit.value(ctx.inputs[1])
    counts: list[Size] = (
        [element(emit, lambda: ctx.inputs[1], axis) for axis in range(rank)]
        if value is None
        else [int(n) for n in value.reshape(-1)]
    )
    sizes = sizes_of(emit, x, range(rank))
    if all(count == 1 or size == 1 for count, size in zip(counts, sizes, strict=True)):
        axes = [axis for axis, count in enumerate(counts) if count != 1]
        return [emit.reduce_sum(ctx.dy, axes) if axes else ctx.dy]
    split: list[Size] = []
    copies = []
    for count, size in zip(counts, sizes, strict=True):
        if count != 1:
            copies.append(len(split))
            split.append(count)
        split.append(size if isinstance(size, int) or copies else 0)
    return [emit.reduce_sum(reshape(emit, ctx.dy, split), copies, keepdims=False)]


# -- blocks --------------------------------------------------------------------------------------


@gradient("SpaceToDepth")
def _space_to_depth(ctx: Context) -> Gradients:
    """Put the blocks back: DepthToSpace, with the block in the leading part of the channels."""
    block = ctx.attribute("blocksize")
    mode = "DCR" if ctx.emit.opset >= 11 else None
    return [ctx.emit.node("DepthToSpace", [ctx.dy], blocksize=block, mode=mode)]


@gradient("DepthToSpace")
def _depth_to_space(ctx: Context) -> Gradients:
    """Take the blocks apart: SpaceToDepth; for CRD its channels (block, depth) change places."""
    emit, x, block = ctx.emit, ctx.inputs[0], ctx.attribute("blocksize")
    blocks = emit.node("SpaceToDepth", [ctx.dy], blocksize=block)
    if ctx.attribute("mode", "DCR") == "DCR":
        return [blocks]
    depth = size_of(emit, x, 1) // (block * block)
    apart = reshape(emit, blocks, [0, block * block, depth, *sizes_of(emit, x, [2, 3])])
    return [emit.reshape_like(emit.transpose(apart, [0, 2, 1, 3, 4]), x)]


# -- along an axis -------------------------------------------------------------------------------


@gradient("Trilu")
def _trilu(ctx: Context) -> Gradients:
    """dx = Trilu(dy): the same elements are left out."""
    return [_triangle(ctx, ctx.dy)]


@lowering("Trilu")
def _lower_trilu(ctx: Context) -> list[str]:
    return [_triangle(ctx, ctx.inputs[0])]


def _triangle(ctx: Context, x: str) -> str:
    return ctx.emit.node("Trilu", [x, *ctx.inputs[1:]], upper=ctx.attribute("upper", 1))


@gradient("CumSum")
def _cum_sum(ctx: Context) -> Gradients:
    """dx = CumSum(dy) in the other direction."""
    return [
        ctx.emit.node(
            "CumSum",
            [ctx.dy, ctx.inputs[1]],
            exclusive=ctx.attribute("exclusive", 0),
            reverse=1 - ctx.attribute("reverse", 0),
        )
    ]


@gradient("ReverseSequence")
def _reverse_sequence(ctx: Context) -> Gradients:
    """Reverse the same parts again."""
    return [
        ctx.emit.node(
            "ReverseSequence",
            [ctx.dy, ctx.inputs[1]],
            batch_axis=ctx.attribute("batch_axis", 1),
            time_axis=ctx.attribute("time_axis", 0),
        )
    ]
