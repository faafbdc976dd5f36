"""The score y^c: which tensor holds it, which axis the classes are on, and the seed dL/dy.

In: the graph and, optionally, a name. Out: `Score`, and the nodes that turn ``cam_class`` into
the one-hot seed of the gradient and into the class that is really explained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnx_gradcam.contract import CLASS_INPUT
from onnx_gradcam.errors import ScoreNotFoundError, UnsupportedModelError, nearest_names
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.quantized.score import (
    Ranking,
    before_quantization,
    emit_ranking,
    is_quantized,
)
from onnx_gradcam.export.shapes.sizes import is_invented
from onnx_gradcam.export.zip_map import before_zip_map, is_zip_map
from onnx_gradcam.gradients.emitter import Dim, Emitter

_ACTIVATIONS = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})

_LOOKED_THROUGH = frozenset(
    {
        "Identity",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Cast",
        "Dropout",
        "QuantizeLinear",
        "DequantizeLinear",
    }
)


@dataclass(frozen=True)
class Score:
    """Where the class scores are.

    Attributes:
        tensor: the tensor that is differentiated: before a final Softmax, LogSoftmax or Sigmoid,
            and before a QuantizeLinear.
        output: the graph output it belongs to (equal to `tensor` when nothing follows it).
        class_axis: axis of the classes in `tensor`; every other axis but the first has size one.
        num_classes: number of classes K.
        rank: number of axes of `tensor`.
        activation: the final activation that was skipped, ``""`` for none.
        ranking: where ranks are read, None for `tensor` itself.
    """

    tensor: str
    output: str
    class_axis: int
    num_classes: int
    rank: int
    activation: str = ""
    ranking: Ranking | None = None


def find_score(graph: Graph, name: str | None = None) -> Score:
    """Return the score of a classifier.

    Args:
        graph: the model.
        name: an output or any other tensor; None takes the only output with a class axis.

    Raises:
        ScoreNotFoundError: no tensor of that name.
        UnsupportedModelError: no output, or several, look like class scores.
    """
    if name is not None:
        return _named_score(graph, name)
    found = []
    problems = []
    for output in graph.outputs:
        if not (graph.is_float(output) or is_quantized(graph, output) or is_zip_map(graph, output)):
            continue
        try:
            found.append(_score_of_output(graph, output))
        except UnsupportedModelError as error:
            problems.append(str(error))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(repr(s.output) for s in found)
        raise UnsupportedModelError(
            f"several outputs could be the score: {names}; use --score NAME"
        )
    reasons = "; ".join(problems) or "the model has no float output"
    raise UnsupportedModelError(f"no output holds class scores: {reasons}; use --score NAME")


def _named_score(graph: Graph, name: str) -> Score:
    if name in graph.outputs:
        return _score_of_output(graph, name)
    if name not in graph.producer:
        known = [*graph.outputs, *graph.producer]
        raise ScoreNotFoundError(f"no output or tensor {name!r}{nearest_names(name, known)}")
    reachable = graph.depends_on([name])
    output = next((o for o in graph.outputs if o in reachable), None)
    if output is None:
        raise UnsupportedModelError(f"no output of the model depends on the score {name!r}")
    return _score(graph, name, output, "")


def _score_of_output(graph: Graph, output: str) -> Score:
    start = tensor = before_zip_map(graph, output)
    while tensor in graph.producer:
        node = graph.nodes[graph.producer[tensor]]
        if node.domain not in {"", "ai.onnx"}:
            break
        if node.op_type in _ACTIVATIONS:
            return _score(graph, node.input[0], output, node.op_type)
        if node.op_type not in _LOOKED_THROUGH:
            break
        tensor = node.input[0]
    return _score(graph, start, output, "")


def _score(graph: Graph, tensor: str, output: str, activation: str) -> Score:
    tensor, ranking = before_quantization(graph, _with_batch_axis(graph, tensor))
    shape = graph.shape(tensor)
    if shape is None:
        raise UnsupportedModelError(f"the shape of {tensor!r} is unknown")
    if not graph.is_float(tensor):
        raise UnsupportedModelError(f"{tensor!r} is not a float tensor and has no gradient")
    if len(shape) < 2:
        raise UnsupportedModelError(
            f"{tensor!r} of shape {format_shape(shape)} has no class axis beside the batch axis"
        )
    wide = [axis for axis in range(1, len(shape)) if shape[axis] != 1]
    if len(wide) > 1:
        raise UnsupportedModelError(
            f"{tensor!r} of shape {format_shape(shape)} has more than a class axis: it is no"
            " classification score"
        )
    axis = wide[0] if wide else 1
    classes = shape[axis]
    if not isinstance(classes, int):
        raise UnsupportedModelError(f"the number of classes of {tensor!r} is not known at export")
    return Score(tensor, output, axis, classes, len(shape), activation, ranking)


def _with_batch_axis(graph: Graph, tensor: str) -> str:
    """Return the tensor, or what it was before the batch axis of one image was taken away."""
    before = tensor
    while len(graph.shape(before) or (0, 0)) < 2 and before in graph.producer:
        node = graph.nodes[graph.producer[before]]
        if node.op_type not in {"Squeeze", "Reshape", "Flatten", "Identity"} or node.domain:
            return tensor
        before = node.input[0]
    shape = graph.shape(before)
    return before if shape is not None and len(shape) > 1 and shape[0] == 1 else tensor


def format_shape(shape: tuple[Dim, ...]) -> str:
    """Return ``(N, 3, 224, 224)`` for messages, ``?`` for what is unknown."""
    return "(" + ", ".join("?" if is_invented(d) else str(d) for d in shape) + ")"


@dataclass(frozen=True)
class Seed:
    """Names of the tensors that start the backward pass.

    Attributes:
        seed: dL/d(score tensor), one-hot, in the shape of the score tensor.
        classes: int64 ``(N,)``, the class that is explained per image.
    """

    seed: str
    classes: str


def emit_seed(emit: Emitter, score: Score, fixed_class: int | None) -> Seed:
    """Emit class resolution and the one-hot seed.

    ``-k`` stands for the k-th highest score (ties: the lower index first, as TopK orders them).
    Written with comparisons and sums only, which every execution provider has.

    Args:
        emit: where to write nodes.
        score: the score.
        fixed_class: the class when it is fixed at export, else None: it is read from `cam_class`.
    """
    count = score.num_classes
    with emit.scope("class"):
        scores = score.tensor if score.ranking is None else emit_ranking(emit, score.ranking)
        if score.rank > 2 or score.ranking is not None:
            scores = emit.reshape(scores, [-1, count])
        chosen = emit.ints([fixed_class]) if fixed_class is not None else CLASS_INPUT
        classes = _resolve_classes(emit, scores, chosen, count)
        column = emit.unsqueeze(classes, [1])
        hit = emit.node("Equal", [column, emit.ints(range(count))], hint="one_hot")
        seed = emit.node(
            "Cast", [hit], hint="seed", to=emit.dtype(score.tensor), dtype=emit.dtype(score.tensor)
        )
        if score.rank > 2:
            sizes = [1] * score.rank
            sizes[0], sizes[score.class_axis] = -1, count
            seed = emit.reshape(seed, sizes)
    return Seed(seed, classes)


def _resolve_classes(emit: Emitter, scores: str, chosen: str, count: int) -> str:
    """Return the class per image, int64 ``(N,)``, from indices and negative ranks."""
    # int64 comparisons came with opset 9 (Less) and arithmetic is safe before and after
    ranking = _ranked_classes(emit, scores, count)
    one = emit.ints([1])
    rank = emit.node("Sub", [emit.node("Sub", [emit.ints([0]), chosen]), one], hint="rank")
    column = emit.unsqueeze(rank, [1])
    at_rank = emit.cast(emit.node("Equal", [column, emit.ints(range(count))]), TensorProto.INT64)
    by_rank = emit.reduce_sum(emit.node("Mul", [ranking, at_rank]), [1], keepdims=False)
    as_float = emit.cast(chosen, TensorProto.FLOAT)
    zero = emit.constant(np.zeros(1, dtype=np.float32))
    negative = emit.cast(emit.node("Less", [as_float, zero]), TensorProto.INT64)
    kept = emit.node("Mul", [chosen, emit.node("Sub", [one, negative])])
    return emit.node("Add", [emit.node("Mul", [by_rank, negative]), kept], hint="classes")


def _ranked_classes(emit: Emitter, scores: str, count: int) -> str:
    """Return the class indices by falling score, int64 ``(N, K)``."""
    if emit.opset >= 10:
        inputs, attributes = [scores, emit.ints([count])], {}
    else:
        inputs, attributes = [scores], {"k": count}
    if emit.opset < 11 and emit.dtype(scores) == TensorProto.DOUBLE:
        inputs[0] = emit.cast(scores, TensorProto.FLOAT)
    _, indices = emit.nodes_with_outputs("TopK", inputs, 2, axis=1, **attributes)
    emit.declare(indices, TensorProto.INT64)
    return indices
