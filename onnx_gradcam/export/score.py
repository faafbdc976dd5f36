"""The score y^c: which tensor holds it, and which axis the classes are on.

In: the graph and, optionally, a name. Out: `Score`; `seed` differentiates it.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx_gradcam.errors import ScoreNotFoundError, UnsupportedModelError, nearest_names
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.quantized.score import Ranking, before_quantization, is_quantized
from onnx_gradcam.export.shapes.sizes import is_invented
from onnx_gradcam.export.zip_map import before_zip_map, is_zip_map
from onnx_gradcam.gradients.emitter import Dim

ACTIVATIONS = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})

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
        class_axis: axis of the classes in `tensor`; axes that are neither this, the first, nor in
            `places` have size one.
        num_classes: number of classes K.
        rank: number of axes of `tensor`.
        activation: the final activation that was skipped, ``""`` for none.
        ranking: where ranks are read, None for `tensor` itself.
        places: axes over which a class has a score each: a map, or a list of boxes.
        first_channel: index of class 0 on the class axis.
        channels: number of channels on that axis, 0 for as many as classes.
        output_axis: axis of the classes in `output`, None where that has none.
        output_channel: index of class 0 there.
    """

    tensor: str
    output: str
    class_axis: int
    num_classes: int
    rank: int
    activation: str = ""
    ranking: Ranking | None = None
    places: tuple[int, ...] = ()
    first_channel: int = 0
    channels: int = 0
    output_axis: int | None = None
    output_channel: int = 0


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
    return _score(graph, name, output_of(graph, name), "")


def output_of(graph: Graph, name: str) -> str:
    """Return the output that depends on a tensor.

    Raises:
        ScoreNotFoundError: no tensor of that name.
        UnsupportedModelError: no output depends on it.
    """
    if name not in graph.producer:
        known = [*graph.outputs, *graph.producer]
        raise ScoreNotFoundError(f"no output or tensor {name!r}{nearest_names(name, known)}")
    reachable = graph.depends_on([name])
    output = next((o for o in graph.outputs if o in reachable), None)
    if output is None:
        raise UnsupportedModelError(f"no output of the model depends on the score {name!r}")
    return output


def _score_of_output(graph: Graph, output: str) -> Score:
    start = tensor = before_zip_map(graph, output)
    while tensor in graph.producer:
        node = graph.nodes[graph.producer[tensor]]
        if node.domain not in {"", "ai.onnx"}:
            break
        if node.op_type in ACTIVATIONS:
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
            " classification score (of segmenters and detectors: --objective segmentation or"
            " detection)"
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
