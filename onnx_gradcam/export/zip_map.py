"""Scores that end in ZipMap: a sequence of maps from class to score, one per image.

In: the graph and an output. Out: the tensor ``(N, K)`` that the maps are made of. Their keys come
in ascending order at run time, so the classes have to, too.
"""

from __future__ import annotations

from typing import Any

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.gradients.registry import attribute_of


def is_zip_map(graph: Graph, output: str) -> bool:
    """Return whether an output is made by ZipMap."""
    node = graph.producer_of(output)
    return node is not None and (node.domain, node.op_type) == ("ai.onnx.ml", "ZipMap")


def before_zip_map(graph: Graph, output: str) -> str:
    """Return the scores that the maps of an output are made of, other outputs as they are.

    Raises:
        UnsupportedModelError: the maps have another order than the scores.
    """
    node = graph.producer_of(output)
    if node is None or not is_zip_map(graph, output):
        return output
    names = ("classlabels_int64s", "classlabels_strings")
    found: list[list[Any]] = [attribute_of(node, name, []) for name in names]
    if any(list(labels) != sorted(labels) for labels in found):
        raise UnsupportedModelError(
            f"the classes of the maps {output!r} are not in ascending order; convert the model"
            " without ZipMap (skl2onnx: options={'zipmap': False})"
        )
    return str(node.input[0])
