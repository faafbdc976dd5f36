"""Which tensor of the last attention block to explain, where only a class token leaves it.

Behind the last attention the patch tokens of a class-token transformer reach no score. The
residual stream before it still does; pytorch-grad-cam's documentation recommends what the block's
linear layers read: the output of its first normalisation.
"""

from __future__ import annotations

from onnx import NodeProto

from onnx_gradcam.arrangement import Arrangement
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.spatial.feature_maps import FeatureMaps

_LINEAR = frozenset({"Attention", "Conv", "Einsum", "Gemm", "MatMul", "MultiHeadAttention"})
_MOVES = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def penultimate_tokens(graph: Graph, maps: FeatureMaps, stream: str, behind: str) -> str:
    """Return the tensor that the linear layers of the block behind a residual stream read.

    Args:
        graph: the model.
        maps: its feature maps.
        stream: the residual stream, the deepest feature map that reaches the score.
        behind: the next feature map that all of the score passes through, which does not.

    Returns:
        That tensor; the stream itself where they read several, or one laid out otherwise.
    """
    read: set[str] = set()
    seen = {stream}
    for node in graph.nodes[graph.producer[stream] + 1 : graph.producer[behind]]:
        inputs = [name for name in node.input if name in seen]
        if inputs and node.op_type in _LINEAR:
            read.update(_source(graph, name) for name in inputs)
        elif inputs:
            seen.update(name for name in node.output if graph.is_float(name))
    wanted = maps.arrangement(stream)
    if len(read) != 1:
        return stream
    (tensor,) = read
    return tensor if wanted is not None and maps.arrangement(tensor) == wanted else stream


def is_projection(graph: Graph, tensor: str, arrangement: Arrangement) -> bool:
    """Return whether tokens are what a linear layer makes: keys and values of a pooling attention.

    Such a layer ends in a product with weights, or in the sum of one and its bias.
    """
    node = _producer(graph, tensor)
    if not arrangement.grid or node is None:
        return False
    if node.op_type == "Add":
        sides = [_producer(graph, name) for name in node.input if graph.constant(name) is None]
        node = sides[0] if len(sides) == 1 else None
    return node is not None and node.op_type in {"Gemm", "MatMul"}


def _source(graph: Graph, tensor: str) -> str:
    """Return the tensor that was merely moved to become this one."""
    node: NodeProto | None = _producer(graph, tensor)
    while node is not None and node.op_type in _MOVES:
        tensor = node.input[0]
        node = _producer(graph, tensor)
    return tensor


def _producer(graph: Graph, tensor: str) -> NodeProto | None:
    index = graph.producer.get(tensor)
    return None if index is None else graph.nodes[index]
