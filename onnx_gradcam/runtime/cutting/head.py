"""Divides a model at a layer: what comes behind it, and what by-passes it on the way there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.runtime.cutting.cut import needed
from onnx_gradcam.runtime.cutting.index import ModelIndex

_RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial"}
)
"""Operators that make something else each time, also of constants."""


@dataclass(frozen=True)
class Division:
    """How a model divides at a layer A into trunk and head.

    Attributes:
        boundary: tensors that the trunk computes and the head reads, beside A: residuals, masks,
            sizes.
        fed: inputs of the model that the head reads itself, optional ones among them.
        nodes: number of nodes in the head.
        operators: which operators they are.
    """

    boundary: tuple[str, ...]
    fed: tuple[str, ...]
    nodes: int
    operators: frozenset[str]


def divide(model: ModelIndex, target: str, score: str, own: Collection[str] = ()) -> Division:
    """Return how a model divides at `target`, on the way to `score`.

    What depends on constants alone belongs to the head: it is not computed for each image.

    Args:
        model: the model.
        target: the layer A.
        score: what the head computes.
        own: inputs of the model that are the head's, as is all that depends on nothing else.

    Raises:
        UnsupportedModelError: the score does not depend on the layer.
    """
    behind: set[str] = {target}
    varying = {name for name in model.inputs if model.may_be_fed(name)}.difference(own)
    for node in model.nodes:
        if node.reads & varying or node.operator in _RANDOM:
            varying.update(node.outputs)
        if node.reads & behind:
            behind.update(node.outputs)
    if score not in behind or score == target:
        raise UnsupportedModelError(f"the score {score!r} is not computed from {target!r}")
    nodes, _ = needed(model, [score])
    on_the_way = [i for i in nodes if model.nodes[i].reads & behind]
    read = set().union(*(model.nodes[i].reads for i in on_the_way)) - behind
    fed = sorted(name for name in read if model.may_be_fed(name))
    boundary = sorted((read & varying).difference(fed))
    head, constants = needed(model, [score], {target, *boundary})
    optional = {name for name in constants if model.may_be_fed(name)}
    return Division(
        tuple(boundary),
        tuple(sorted({*fed, *optional})),
        len(head),
        frozenset(model.nodes[i].operator for i in head),
    )
