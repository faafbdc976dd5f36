"""Scores that are maps or lists: of a class at each place (segmentation), in each box (detection).

In: the graph, the objective and, optionally, a name. Out: a `Score` with place axes.
"""

from __future__ import annotations

from dataclasses import replace

from onnx import NodeProto

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.objective import Objective
from onnx_gradcam.export.score import (
    ACTIVATIONS,
    Score,
    find_score,
    format_shape,
    output_of,
)
from onnx_gradcam.gradients.emitter import Dim
from onnx_gradcam.gradients.registry import attribute_of

_STANDARD = frozenset({"", "ai.onnx"})
_SAME_PLACES = frozenset({"Cast", "Identity", "Dropout"})
_RANKS = {"segmentation": range(3, 6), "detection": range(3, 4)}
"""How many axes a score may have: batch, classes and one to three of places, or the boxes."""


def find_objective(graph: Graph, name: str | None, objective: Objective) -> Score:
    """Return the score that an objective is taken from.

    Raises:
        ScoreNotFoundError: no tensor of that name.
        UnsupportedModelError: no output, or several, look like it.
    """
    if objective.has_places:
        return find_score_map(graph, name, objective)
    score = find_score(graph, name)
    if objective.kind == "binary" and score.num_classes != 1:
        raise UnsupportedModelError(
            f"{score.tensor!r} holds {score.num_classes} scores: the objective binary takes one;"
            " use --objective class"
        )
    return replace(score, num_classes=2) if objective.kind == "binary" else score


def find_score_map(graph: Graph, name: str | None, objective: Objective) -> Score:
    """Return the score of a segmenter or detector; see `score.find_score`.

    Raises:
        ScoreNotFoundError: no tensor of that name.
        UnsupportedModelError: no output, or several, look like scores of classes at places.
    """
    if name is not None:
        output = name if name in graph.outputs else output_of(graph, name)
        return _score_map(graph, name, output, objective)
    found, problems = [], []
    for output in graph.outputs:
        try:
            found.append(_score_map(graph, output, output, objective))
        except UnsupportedModelError as error:
            problems.append(str(error))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(repr(score.output) for score in found)
        raise UnsupportedModelError(
            f"several outputs could be the score: {names}; use --score NAME"
        )
    raise UnsupportedModelError(
        f"no output holds scores for {objective.kind}: {'; '.join(problems)}; use --score NAME"
    )


def _score_map(graph: Graph, tensor: str, output: str, objective: Objective) -> Score:
    tensor, activation, labels = _before_activation(graph, tensor, objective)
    shape = graph.shape(tensor)
    if shape is None:
        raise UnsupportedModelError(f"the shape of {tensor!r} is unknown")
    if not graph.is_float(tensor):
        raise UnsupportedModelError(f"{tensor!r} is not a float tensor and has no gradient")
    if len(shape) not in _RANKS[objective.kind]:
        raise UnsupportedModelError(
            f"{tensor!r} of shape {format_shape(shape)} is no score for {objective.kind}"
        )
    axis = _class_axis(tensor, shape, objective)
    channels = shape[axis]
    if not isinstance(channels, int):
        raise UnsupportedModelError(f"the number of classes of {tensor!r} is not known at export")
    start, stop, _ = slice(*objective.channels).indices(channels)
    if stop <= start:
        raise UnsupportedModelError(
            f"class channels {objective.channels} leave nothing of the {channels} of {tensor!r}"
        )
    score = Score(
        tensor=tensor,
        output=output,
        class_axis=axis,
        num_classes=stop - start,
        rank=len(shape),
        activation=activation,
        places=tuple(i for i in range(1, len(shape)) if i != axis),
        first_channel=start,
        channels=channels,
        output_axis=None if labels else axis,
        output_channel=start,
    )
    return _before_join(graph, score)


def _before_activation(graph: Graph, tensor: str, objective: Objective) -> tuple[str, str, bool]:
    """Return the scores before softmax or sigmoid, its name, and whether an ArgMax followed."""
    start, labels = tensor, False
    while (node := graph.producer_of(tensor)) is not None and node.domain in _STANDARD:
        if node.op_type in ACTIVATIONS:
            return node.input[0], node.op_type, labels
        if node.op_type == "ArgMax" and objective.kind == "segmentation":
            start, labels = node.input[0], True
        elif node.op_type not in _SAME_PLACES and not _is_dropped_axis(graph, node, labels):
            break
        tensor = node.input[0]
    return start, "", labels


def _is_dropped_axis(graph: Graph, node: NodeProto, labels: bool) -> bool:
    """Return whether a node only takes away the axis that ArgMax left."""
    return not labels and node.op_type == "Squeeze" and not graph.is_float(node.input[0])


def _class_axis(tensor: str, shape: tuple[Dim, ...], objective: Objective) -> int:
    """Return the axis of the classes: the one asked for, else the smaller of the second and last.

    Raises:
        UnsupportedModelError: no such axis, or neither is known.
    """
    if objective.class_axis is not None:
        axis = objective.class_axis % len(shape)
        if not 0 < axis < len(shape) or not -len(shape) < objective.class_axis < len(shape):
            raise UnsupportedModelError(
                f"{tensor!r} of shape {format_shape(shape)} has no class axis"
                f" {objective.class_axis}"
            )
        return axis
    sizes = {i: shape[i] for i in (1, len(shape) - 1)}
    known = {i: size for i, size in sizes.items() if isinstance(size, int)}
    if not known:
        raise UnsupportedModelError(
            f"which axis of {tensor!r} of shape {format_shape(shape)} holds the classes is not"
            " clear; use --class-axis"
        )
    return min(known, key=lambda i: (known[i], i))


def _before_join(graph: Graph, score: Score) -> Score:
    """Return the classes before a sigmoid where boxes were joined to them behind it.

    Detectors end in a Concat of box coordinates and class probabilities.
    """
    node = graph.producer_of(score.tensor)
    if node is None or node.op_type != "Concat" or node.domain not in _STANDARD:
        return score
    if attribute_of(node, "axis") % score.rank != score.class_axis:
        return score
    first = 0
    for name in node.input:
        shape = graph.shape(name)
        size = shape[score.class_axis] if shape is not None else None
        if not isinstance(size, int):
            return score
        if (first, size) == (score.first_channel, score.num_classes):
            inner = graph.producer_of(name)
            if inner is None or inner.op_type != "Sigmoid" or inner.domain not in _STANDARD:
                return score
            return replace(
                score,
                tensor=inner.input[0],
                activation="Sigmoid",
                first_channel=0,
                channels=score.num_classes,
            )
        first += size
    return score
