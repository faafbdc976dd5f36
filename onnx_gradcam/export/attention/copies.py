"""The score of each block: the model's own norm, pooling and classifier, applied to its output.

LeGrad (arXiv 2404.03214, section 3) asks of each block l how its output Z scores as it is. The part
of the graph from the last block's output to the score is repeated for every earlier block.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx_gradcam.contract import PREFIX
from onnx_gradcam.export.expansion.expand import extended
from onnx_gradcam.export.expansion.splice import splice
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.tail import cut_tail
from onnx_gradcam.gradients.emitter import Emitter


def with_block_scores(
    graph: Graph, outputs: Sequence[str], score: str
) -> tuple[Graph, list[dict[str, str]]]:
    """Return the graph with a copy of the last block's tail for every earlier block.

    Args:
        graph: the model.
        outputs: Z of each block, in order.
        score: the score tensor.

    Returns:
        The graph, and for each block what the tensors of the tail are called in its copy; nothing
        for the last one, which has the tail itself.
    """
    *earlier, last = outputs
    tail = cut_tail(graph, last, score)
    emit = Emitter(graph.opset(), graph.types, graph.constant, PREFIX, list(graph.names))
    names = []
    for number, output in enumerate(earlier, 1):
        with emit.scope(f"block_{number}"):
            names.append(splice(emit, tail.nodes, {last: output}))
    return (extended(graph, emit.nodes) if emit.nodes else graph), [*names, {}]
