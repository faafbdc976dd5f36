"""Scores of quantized classifiers: y lies before the last QuantizeLinear, ranks behind it.

A score at the upper end of its range counts as clipped and would have no gradient, so y is the
float that QuantizeLinear reads. Which class is the k-th highest is read from the dequantized
numbers, the model's own answer: a reader of y would keep onnxruntime from fusing the classifier
into one quantized operator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.gradients.clipping import RANGES, scalar_grid
from onnx_gradcam.gradients.emitter import Array, Emitter

_MOVES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


@dataclass(frozen=True)
class Ranking:
    """Where the order of the scores is read.

    Attributes:
        tensor: the quantized scores, or what DequantizeLinear made of them.
        quantize: the QuantizeLinear they come from where `tensor` is one of integers, else None.
    """

    tensor: str
    quantize: NodeProto | None = None


def before_quantization(graph: Graph, tensor: str) -> tuple[str, Ranking | None]:
    """Return the float tensor that was quantized, and where ranks are read.

    The tensor itself, and None, where no QuantizeLinear is before it, mere moves aside.
    """
    score, ranking = _before(graph, tensor)
    while score != tensor:  # quantized again after a mere move
        earlier, _ = _before(graph, score)
        if earlier == score:
            break
        score = earlier
    return score, ranking


def _before(graph: Graph, tensor: str) -> tuple[str, Ranking | None]:
    name = tensor
    while (node := graph.producer_of(name)) is not None and node.domain in {"", "ai.onnx"}:
        if node.op_type == "QuantizeLinear":
            if graph.is_float(tensor):
                return node.input[0], Ranking(tensor)
            known = scalar_grid(graph.flow, node) is not None
            return node.input[0], Ranking(tensor, node) if known else None
        if node.op_type not in {*_MOVES, "DequantizeLinear"}:
            break
        name = node.input[0]
    return tensor, None


def is_quantized(graph: Graph, tensor: str) -> bool:
    """Return whether a tensor of integers stands for floats."""
    known = graph.type_of(tensor)
    if known is None or known.dtype not in RANGES:
        return False
    return before_quantization(graph, tensor)[0] != tensor


def integer_grid(graph: Graph, output: str) -> tuple[float, float]:
    """Return scale and zero point of an output of quantized integers, 1 and 0 for others."""
    name = output
    while (node := graph.producer_of(name)) is not None and not graph.is_float(output):
        if node.op_type == "QuantizeLinear":
            return scalar_grid(graph.flow, node) or (1.0, 0.0)
        if node.op_type not in _MOVES:
            break
        name = node.input[0]
    return 1.0, 0.0


def emit_ranking(emit: Emitter, ranking: Ranking) -> str:
    """Return the scores to rank, as floats."""
    if ranking.quantize is None:
        return ranking.tensor
    inputs = [ranking.tensor, *ranking.quantize.input[1:]]
    return emit.node("DequantizeLinear", inputs, dtype=emit.dtype(ranking.quantize.input[1]))


def quantized_rows(graph: Graph, tensor: str, scores: Array) -> tuple[Array, float]:
    """Return scores as their quantization clips them, and the size of its steps, 0 for none."""
    readers = graph.readers_of(tensor)
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        return scores, 0.0
    grid = scalar_grid(graph.flow, readers[0])
    if grid is None:
        return scores, 0.0
    low, high = RANGES[graph.flow.dtype(readers[0].output[0])]
    scale, zero = grid
    return np.clip(scores, (low - zero) * scale, (high - zero) * scale), scale


def output_steps(graph: Graph) -> dict[str, float]:
    """Return how far a rounding that falls otherwise can move the outputs that are quantized.

    The size of the last quantization step, or what that of the scores makes of it behind Softmax.
    """
    found = {name: _step(graph, name) for name in graph.outputs}
    return {name: step for name, step in found.items() if step}


_STEEPEST = {"LogSoftmax": 2.0, "Sigmoid": 0.25, "Softmax": 0.5}
"""How much a result changes at most when all operands change by up to one."""


def _step(graph: Graph, name: str) -> float:
    node = graph.producer_of(name)
    if node is None or node.domain not in {"", "ai.onnx"}:
        return 0.0
    if node.op_type in {"DequantizeLinear", "QuantizeLinear"}:
        grid = scalar_grid(graph.flow, node)
        before = _step(graph, node.input[0])
        if grid is None:
            return 0.0
        if node.op_type == "DequantizeLinear":
            return max(1.0, before) * grid[0]
        return max(1.0, before / grid[0])
    if node.op_type in {*_MOVES, *_STEEPEST}:
        return _STEEPEST.get(node.op_type, 1.0) * _step(graph, node.input[0])
    return 0.0
