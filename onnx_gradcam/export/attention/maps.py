"""The attention maps of a model: which tokens each token takes its values from.

In: the graph, found by structure alone: weights that come from a Softmax over keys and are
multiplied with values, or an operator Attention. Out: `AttentionMap` for each one between tokens
of the whole image, `Unusable` for any other Softmax on the way to the score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx import NodeProto

from onnx_gradcam.arrangement import Arrangement
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.spatial.arrangement import arrange
from onnx_gradcam.export.spatial.feature_maps import FeatureMaps
from onnx_gradcam.export.spatial.fields import Shape
from onnx_gradcam.export.spatial.tracking import Fields
from onnx_gradcam.gradients.emitter import Array
from onnx_gradcam.gradients.registry import attribute_of

_PASSED = frozenset({"Cast", "Dropout", "Identity", "Where"})
"""What may stand between a Softmax and the product with the values; Where replaces NaN by 0."""

_CLOSE = 1e-4


@dataclass(frozen=True)
class AttentionMap:
    """The weights A with which R rows (queries) take the values V of rows (keys): O = A V.

    Attributes:
        mixed: the tensor O.
        weights: the tensor A, ``(N, heads, R, R)`` or ``(N * heads, R, R)``; empty for an operator
            Attention, which does not show it.
        values: the tensor V.
        heads: number of heads.
        joined: whether batch and heads lie on one axis.
        tokens: where the keys lie, rows without a place included.
        pooling: whether a single query without a place asks them all.
    """

    mixed: str
    weights: str
    values: str
    heads: int
    joined: bool
    tokens: Arrangement
    pooling: bool = False

    @property
    def name(self) -> str:
        """The tensor that it is known by."""
        return self.weights or self.mixed

    def renamed(self, names: Mapping[str, str]) -> AttentionMap:
        """Return the same map in a copy of its part of the graph."""
        mixed, weights, values = (names.get(n, n) for n in (self.mixed, self.weights, self.values))
        return replace(self, mixed=mixed, weights=weights, values=values)


@dataclass(frozen=True)
class Unusable:
    """A Softmax or Attention that is no attention between tokens of the whole image.

    Attributes:
        name: its result.
        reason: why, to go on with a sentence that begins with the name.
    """

    name: str
    reason: str


Found = AttentionMap | Unusable


def find_attention(graph: Graph, maps: FeatureMaps, flow: set[str]) -> list[Found]:
    """Return every Softmax and every Attention on the way to the score, in order.

    Args:
        graph: the model.
        maps: its feature maps.
        flow: the tensors between image and score.
    """
    products = _products(graph, flow)
    found: list[Found] = []
    for node in graph.nodes:
        result = next(iter(node.output), "")
        if result not in flow:
            continue
        if node.op_type == "Attention" and not node.domain:
            found.append(_of_operator(node, maps))
        elif node.op_type == "Softmax" and not node.domain:
            product = products.get(result)
            found.append(
                Unusable(result, "is not multiplied with values as it is, and with nothing else")
                if product is None
                else _of_product(graph, node, product, maps)
            )
    return found


def _products(graph: Graph, flow: set[str]) -> dict[str, tuple[str, NodeProto]]:
    """Return, by the result of a Softmax, the weights that come from it and their product."""
    products = {}
    for node in graph.nodes:
        names = list(node.input)
        if not _is_product(node) or not all(name in flow for name in names):
            continue
        source: str | None = names[0]
        while source is not None:
            producer = graph.producer_of(source)
            if _readers(graph, source, flow) > 1:
                break  # whoever else reads it would go unseen
            if producer is not None and producer.op_type == "Softmax":
                products[source] = names[0], node
            passes = producer is not None and producer.op_type in _PASSED
            carried = [n for n in producer.input if n in flow] if producer and passes else []
            source = carried[0] if len(carried) == 1 else None
    return products


def _readers(graph: Graph, tensor: str, flow: set[str]) -> int:
    """Return how many nodes read a tensor on the way to the score."""
    return sum(any(o in flow for o in node.output) for node in graph.readers_of(tensor))


def _is_product(node: NodeProto) -> bool:
    """Return whether a node multiplies (..., rows, inner) with (..., inner, columns)."""
    if node.op_type == "MatMul":
        return True
    if node.op_type != "Einsum" or len(node.input) != 2:
        return False
    sides, _, result = attribute_of(node, "equation").replace(" ", "").partition("->")
    left, _, right = sides.partition(",")
    batch, inner = left[:-2], left[-1:]
    return bool(
        len(left) == len(right) == len(result) > 2
        and right[:-2] == batch
        and right[-2] == inner
        and result == left[:-1] + right[-1]
    )


def _of_product(
    graph: Graph, softmax: NodeProto, product: tuple[str, NodeProto], maps: FeatureMaps
) -> Found:
    weights, node = product
    result, values = softmax.output[0], node.input[1]
    shape, value_shape = maps.sizes(weights), maps.sizes(values)
    if shape is None or value_shape is None or maps.sizes(result) != shape or len(shape) < 3:
        return Unusable(result, "is of a shape that is not known at export")
    default = -1 if graph.opset() >= 13 else 1
    if attribute_of(softmax, "axis", default) % len(shape) != len(shape) - 1:
        return Unusable(result, "does not run over the keys")
    asked = None if shape[-2] == 1 else maps.places(weights)
    queries = _rows(asked, shape, maps.images)
    judged = _judged(queries, _rows(maps.places(values), value_shape, maps.images))
    if isinstance(judged, str):
        return Unusable(result, judged)
    heads, rank = math.prod(shape[:-2]) // maps.images, len(graph.shape(weights) or ())
    joined = shape[:-2] != (maps.images, heads)
    if rank > 4 or (rank == 4 and joined):
        return Unusable(result, f"has {rank} axes")
    return AttentionMap(node.output[0], weights, values, heads, joined, *judged)


def _of_operator(node: NodeProto, maps: FeatureMaps) -> Found:
    result = node.output[0]
    query, values = maps.sizes(node.input[0]), maps.sizes(node.input[2])
    if query is None or values is None or any(node.input[4:]) or any(node.output[1:]):
        return Unusable(result, "reads a cache, or is of a shape that is not known at export")
    asked = None if query[-2] == 1 else maps.places(node.input[0])
    queries = _rows(asked, query, maps.images)
    judged = _judged(queries, _rows(maps.places(node.input[2]), values, maps.images))
    if isinstance(judged, str):
        return Unusable(result, judged)
    heads = query[1] if len(query) == 4 else attribute_of(node, "q_num_heads")
    return AttentionMap(result, "", node.input[2], heads, False, *judged)


def _rows(fields: Fields | None, shape: Shape, images: int) -> list[Array] | str:
    """Return image number and coordinates per image and row, each ``(images, rows)``.

    Args:
        fields: of a tensor whose last axis but one holds the rows.
        shape: its shape.
        images: size of the batch.

    Returns:
        NaN for rows without a place; or why there are no such rows.
    """
    if math.prod(shape[:-2]) % images:
        return "lies in windows: its tokens see a part of the image alone"
    if fields is None or any(np.isnan(field).all() for field in fields[1:]):
        return [np.full((images, shape[-2]), np.nan)] * 2
    found = []
    for field in fields:
        if field.shape[-1] > 1:
            return "runs between channels, not between tokens"
        full = np.broadcast_to(field[..., 0], shape[:-1]).reshape(images, -1, shape[-2])
        if not np.array_equal(full, np.broadcast_to(full[:, :1], full.shape), equal_nan=True):
            return "lies in windows: its tokens see a part of the image alone"
        found.append(full[:, 0])
    return found


def _judged(queries: list[Array] | str, keys: list[Array] | str) -> tuple[Arrangement, bool] | str:
    """Return where the keys lie, and whether one query asks them all; or why they are no tokens."""
    if isinstance(queries, str):
        return queries
    if isinstance(keys, str):
        return keys
    (images, count), asked = keys[0].shape, queries[0].shape[1]
    tokens = arrange(tuple(field[:, :, None] for field in keys), (images, count, 2), images)
    if tokens is None or not tokens.grid:
        return "has keys that fill no grid of the image"
    if asked == 1:
        return tokens, True
    if asked != count:
        return f"has {count} keys for {asked} queries: they are other tokens"
    same = len(queries) == len(keys) and all(
        np.allclose(a, b, atol=_CLOSE, rtol=0, equal_nan=True)
        for a, b in zip(queries, keys, strict=True)
    )
    return (tokens, False) if same else "has queries and keys that are not the same tokens"
