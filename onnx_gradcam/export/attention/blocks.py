"""The blocks of a vision transformer: their attention, their outputs, and how the score reads them.

In: the graph and how many blocks are wanted. Out: `Blocks`. A block's output Z is the residual
stream behind it: the last tensor before the next block's attention that every path from the image
to the score passes through.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from onnx_gradcam.arrangement import Arrangement
from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.export.attention.maps import AttentionMap, Found, Unusable, find_attention
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.score import Score
from onnx_gradcam.export.spatial.feature_maps import FeatureMaps
from onnx_gradcam.export.target_layer import data_flow, find_dominators


@dataclass(frozen=True)
class Blocks:
    """The last blocks of a model that all attend between the same tokens of the whole image.

    Attributes:
        maps: their attention, in order.
        outputs: what they hand on, in order: Z of each block, ``(N, R, C)`` or a map of the same
            cells; empty where that cannot be told.
        pooling: the attention by which the score reads the tokens, None where it has none.
        read: the rows of the last block that the score depends on; of a class token its row.
        left_out: names of earlier attention, with the reasons.
    """

    maps: tuple[AttentionMap, ...]
    outputs: tuple[str, ...]
    pooling: AttentionMap | None
    read: tuple[int, ...]
    left_out: tuple[Unusable, ...] = ()

    @property
    def tokens(self) -> Arrangement:
        """Where the rows lie."""
        return self.maps[0].tokens


def find_blocks(graph: Graph, image: str, score: Score, count: int | None) -> Blocks:
    """Return the blocks of a model.

    Args:
        graph: the model.
        image: its image input.
        score: its score.
        count: take so many, the last ones; None for all that there are.

    Raises:
        UnsupportedModelError: it has no blocks that attend between tokens of the whole image, or
            fewer than are asked for.
        UsageError: none are asked for.
    """
    if count is not None and count < 1:
        raise UsageError(f"{count} attention blocks; at least 1")
    maps, flow = FeatureMaps(graph, image), data_flow(graph, image, score)
    found = find_attention(graph, maps, flow)
    pooling = _pooling(found)
    own = found[:-1] if pooling else found
    chosen = _last_alike(own)
    if not chosen or (pooling and not _alike(pooling, chosen[-1])):
        raise UnsupportedModelError(_no_attention(found))
    if count is not None and count > len(chosen):
        raise UnsupportedModelError(
            f"{count} attention blocks were asked for, the model has {len(chosen)} that attend"
            f" between the same tokens of the whole image{_because(own[: -len(chosen)])}"
        )
    earlier = own[: -len(chosen)]
    chosen = chosen[-(count or len(chosen)) :]
    if not all(isinstance(size, int) for m in chosen for size in (graph.shape(m.values) or ())[1:]):
        raise UnsupportedModelError(
            f"the number of tokens of {chosen[0].name!r} depends on the size of the image; export"
            " the model for a fixed size"
        )
    chain = find_dominators(graph, image, score.tensor, flow)
    _refuse_parallel(graph, chain, chosen)
    left_out = tuple(
        Unusable(m.name, m.reason if isinstance(m, Unusable) else "is between other tokens")
        for m in earlier
    )
    last = [name for name in chain if _holds(maps, name, chosen[-1].tokens)]
    if not last or graph.producer[last[-1]] < graph.producer[chosen[-1].mixed]:
        raise UnsupportedModelError(
            f"behind attention {chosen[-1].name!r} the score passes through no layer of its tokens"
        )
    read = () if pooling else tuple(maps.readable_rows(last[-1], score.tensor))
    outputs = _outputs(graph, maps, chain, chosen, last[-1])
    return Blocks(tuple(chosen), outputs, pooling, read, left_out)


def _pooling(found: Sequence[Found]) -> AttentionMap | None:
    last = found[-1] if found else None
    return last if isinstance(last, AttentionMap) and last.pooling else None


def _last_alike(found: Sequence[Found]) -> list[AttentionMap]:
    """Return the longest run up to the end of attention between the same tokens."""
    alike: list[AttentionMap] = []
    for one in reversed(found):
        if not isinstance(one, AttentionMap) or one.pooling:
            break
        if alike and not _alike(one, alike[-1]):
            break
        alike.append(one)
    return alike[::-1]


def _alike(one: AttentionMap, other: AttentionMap) -> bool:
    return one.tokens == other.tokens


def _holds(maps: FeatureMaps, tensor: str, tokens: Arrangement) -> bool:
    """Return whether a tensor holds exactly these tokens: in rows, or a map with them as cells."""
    found, shape = maps.arrangement(tensor), maps.sizes(tensor)
    if found is None or shape is None or found.grid:
        return found == tokens
    sizes = tuple(shape[axis] for axis in found.channels_first()[2:])
    return sizes == tokens.grid and tokens.order == tuple(range(tokens.rows))


def _outputs(
    graph: Graph,
    maps: FeatureMaps,
    chain: Sequence[str],
    chosen: Sequence[AttentionMap],
    last: str,
) -> tuple[str, ...]:
    """Return Z of each block; none where they are not tensors of one kind.

    Behind the last block no attention follows that would end it: it is taken to be as long as the
    one before it.
    """
    if len(chosen) == 1:  # its score is that of the model, wherever it ends
        return (last,)
    starts = [_start(graph, chain, attention) for attention in chosen]
    end = starts[-1] + starts[-1] - starts[-2]
    if end >= len(chain):
        return ()
    outputs = tuple(chain[i] for i in (*starts[1:], end))
    kinds = {(graph.nodes[graph.producer[name]].op_type, graph.shape(name)) for name in outputs}
    if len(kinds) > 1 or not all(_holds(maps, name, chosen[0].tokens) for name in outputs):
        return ()
    return outputs


def _start(graph: Graph, chain: Sequence[str], attention: AttentionMap) -> int:
    """Return which tensor of those that the score passes through is the last before a map."""
    here = graph.producer[attention.name]
    return max(i for i, name in enumerate(chain) if graph.producer.get(name, -1) < here)


def _refuse_parallel(graph: Graph, chain: Sequence[str], chosen: Sequence[AttentionMap]) -> None:
    """Refuse attention that stands side by side: it is no chain of blocks.

    Raises:
        UnsupportedModelError: naming the first two.
    """
    for one, other in itertools.pairwise(chosen):
        if _start(graph, chain, one) == _start(graph, chain, other):
            raise UnsupportedModelError(
                f"attention {one.name!r} and {other.name!r} stand side by side: rollout and LeGrad"
                " are for blocks one after another"
            )


def _no_attention(found: Sequence[Found]) -> str:
    if not found:
        return "the model has no attention: rollout and LeGrad are for vision transformers"
    return f"the model does not end in attention between tokens of the whole image{_because(found)}"


def _because(found: Sequence[Found]) -> str:
    """Return what is wrong with the last attention that cannot be used, to go on a sentence."""
    for one in reversed(found):
        if isinstance(one, Unusable):
            return f": {one.name!r} {one.reason}"
        if not one.pooling:
            return f": {found[-1].name!r} is that of a class token that joins late"
    return ""
