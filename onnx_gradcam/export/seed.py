"""The seed dL/dy of the gradient, and which class, box and score it stands for.

In: the score, the objective and the inputs of the explanation. Out: nodes, and a `Seed`. Written
with comparisons, sums and products, which every execution provider has.

Shapes: N images, T classes per image where the file takes several, K classes, P places. Without
several the axis T is missing; `_Shapes` says where axes are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from onnx import TensorProto

from onnx_gradcam.contract import (
    BOX_INPUT,
    CLASS_INPUT,
    EMBEDDING_INPUT,
    MASK_INPUT,
    WEIGHTS_INPUT,
)
from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.objective import Objective
from onnx_gradcam.export.quantized.score import emit_ranking
from onnx_gradcam.export.score import Score
from onnx_gradcam.gradients.emitter import Emitter

_LAST = -1


@dataclass(frozen=True)
class Seed:
    """Names of the tensors that start the backward pass.

    Attributes:
        seed: dL/d(score tensor) in the shape of the score tensor; with several classes per image
            ``(N, T, ...)``, the axes of the score tensor without the first behind T.
        classes: int64 ``(N,)`` or ``(N, T)``, the class that is explained, -1 for none.
        score: y, ``(N,)`` or ``(N, T)``; empty where it is that of a class.
        boxes: int64 ``(N,)`` or ``(N, T)``, the box; empty without boxes.
        one_hot: ``(N, K)``, where the seed is 1 at `classes` and 0 elsewhere, else empty.
    """

    seed: str
    classes: str
    score: str = ""
    boxes: str = ""
    one_hot: str = ""


def emit_seed(
    emit: Emitter, score: Score, fixed_class: int | None, objective: Objective | None = None
) -> Seed:
    """Emit class resolution and the seed.

    ``-k`` stands for the k-th highest score (ties: the lower index first, as TopK orders them).

    Args:
        emit: where to write nodes.
        score: the score.
        fixed_class: the class when it is fixed at export, else None: it is read from `cam_class`.
        objective: what y is; None for the score of a class.

    Raises:
        UnsupportedModelError: the opset has no operator that is needed.
    """
    objective = objective or Objective()
    with emit.scope("class"):
        writer = _Writer(emit, score, objective, fixed_class)
        seed = _EMITTED[objective.kind](writer)
        return seed if objective.gives_score else replace(seed, score="")


@dataclass
class _Writer:
    emit: Emitter
    score: Score
    objective: Objective
    fixed_class: int | None

    # -- axes ----------------------------------------------------------------------------------

    @property
    def lead(self) -> int:
        """The number of axes before the class axis of seeds: N, and T with several."""
        return 2 if self.objective.several else 1

    def per_class(self, x: str) -> str:
        """Return ``(N, ...)`` as ``(N, 1, ...)`` where there is an axis T."""
        return self.emit.unsqueeze(x, [1]) if self.objective.several else x

    def as_float(self, x: str) -> str:
        return self.emit.cast(x, self.emit.dtype(self.score.tensor))

    # -- classes -------------------------------------------------------------------------------

    def flat_scores(self) -> str:
        """Return the scores ``(N, K)`` of a classifier."""
        score, emit = self.score, self.emit
        return emit.reshape(score.tensor, [-1, self.width]) if score.rank > 2 else score.tensor

    @property
    def width(self) -> int:
        """The number of entries of the score tensor per image, without places."""
        return 1 if self.objective.kind == "binary" else self.score.num_classes

    def chosen(self) -> str:
        fixed = self.fixed_class
        return CLASS_INPUT if fixed is None else self.emit.ints([fixed])

    def classes(self, ranked: str) -> str:
        """Return the class per image from ``(N, K)`` scores that ranks refer to."""
        count = self.score.num_classes
        if self.fixed_class is not None and self.lead == 1:
            return _fixed(self.emit, ranked, self.fixed_class)
        shared = self.lead == 2
        return _resolve(self.emit, ranked, self.chosen(), count, count, self.lead, shared=shared)

    def one_hot(self, classes: str, count: int | str) -> str:
        """Return bool ``(..., count)``, true at each class."""
        emit = self.emit
        positions = emit.ints(range(count)) if isinstance(count, int) else count
        return emit.node("Equal", [emit.unsqueeze(classes, [self.lead]), positions], hint="one_hot")

    def weighted(self, classes: str) -> tuple[str, str]:
        """Return the weight of each class ``(N, [T,] K)``, and the classes, -1 where weighted."""
        emit = self.emit
        weights = self.as_float(self.one_hot(classes, self.score.num_classes))
        if not self.objective.weights:
            return weights, classes
        size = emit.reduce_sum(emit.unary("Abs", WEIGHTS_INPUT), [self.lead])
        given = emit.greater(size, 0.0)
        weights = emit.where(given, self.as_float(WEIGHTS_INPUT), weights)
        as_number = emit.squeeze(emit.cast(given, TensorProto.INT64), [self.lead])
        one = emit.ints([1])
        kept = emit.node("Mul", [classes, emit.node("Sub", [one, as_number])])
        return weights, emit.node("Sub", [kept, as_number], hint="classes_or_none")

    def in_score_shape(self, seed: str) -> str:
        """Return a seed ``(N, [T,] K)`` in the shape of the score tensor of a classifier."""
        score = self.score
        if score.rank == 2:
            return seed
        sizes = [1] * score.rank
        sizes[0], sizes[score.class_axis] = (0 if self.lead == 2 else -1), self.width
        if self.lead == 2:
            sizes.insert(1, -1)
        return self.emit.reshape(seed, sizes)

    # -- maps and lists of scores --------------------------------------------------------------

    def score_map(self) -> str:
        """Return the scores ``(N, K, *places)``."""
        score, emit = self.score, self.emit
        moved = emit.transpose(score.tensor, [0, score.class_axis, *score.places])
        if score.num_classes == score.channels:
            return moved
        start = score.first_channel
        return emit.slice(moved, [start], [start + score.num_classes], [1])

    def at_places(self, weights: str, places: str) -> str:
        """Return the seed of weights ``(N, [T,] K)`` and places ``(N, [T,] *places)``."""
        score, emit = self.score, self.emit
        count = len(score.places)
        wide = emit.unsqueeze(weights, range(self.lead + 1, self.lead + 1 + count))
        seed = emit.mul(wide, emit.unsqueeze(places, [self.lead]))
        missing = score.channels - score.num_classes
        if missing:
            pads = [0] * 2 * (self.lead + 1 + count)
            pads[self.lead] = score.first_channel
            pads[self.lead + 1 + count + self.lead] = missing - score.first_channel
            seed = emit.pad(seed, pads)
        order = [0, score.class_axis, *score.places]
        back = [order.index(axis) for axis in range(score.rank)]
        lead = list(range(self.lead - 1))
        return emit.transpose(seed, [*lead, *(axis + self.lead - 1 for axis in back)])


def _total(writer: _Writer, weights: str, scores: str, axes: int = 1) -> str:
    """Return sum w y over the last axes."""
    product = writer.emit.mul(weights, writer.per_class(scores))
    last = list(range(writer.lead, writer.lead + axes))
    return writer.emit.reduce_sum(product, last, keepdims=False)


# -- one function a kind -----------------------------------------------------------------------


def _class(writer: _Writer) -> Seed:
    emit, score = writer.emit, writer.score
    ranked = scores = writer.flat_scores()
    if score.ranking is not None:
        ranked = emit.reshape(emit_ranking(emit, score.ranking), [-1, score.num_classes])
    weights, classes = writer.weighted(writer.classes(ranked))
    y = _total(writer, weights, scores) if writer.objective.gives_score else ""
    plain = not (writer.objective.weights or writer.objective.several)
    return Seed(writer.in_score_shape(weights), classes, y, one_hot=weights if plain else "")


def _softmax(writer: _Writer) -> Seed:
    """Emit y = sum w p with p = softmax(z): dy/dz = p (w - y).

    Written with v = w - w_m, m the class of the highest score: near p_m = 1 the difference w - y
    would cancel, v - sum v p does not.
    """
    emit, scores = writer.emit, writer.flat_scores()
    weights, classes = writer.weighted(writer.classes(scores))
    probabilities = writer.per_class(emit.node("Softmax", [scores], axis=1))
    top = emit.node("ArgMax", [scores], dtype=TensorProto.INT64, axis=1, keepdims=1)
    positions = emit.ints(range(writer.score.num_classes))
    highest = writer.per_class(writer.as_float(emit.node("Equal", [top, positions], hint="top")))
    at_top = emit.reduce_sum(emit.mul(weights, highest), [writer.lead])
    shifted = emit.sub(weights, at_top)
    less = emit.reduce_sum(emit.mul(shifted, probabilities), [writer.lead])
    seed = emit.mul(probabilities, emit.sub(shifted, less))
    y = emit.squeeze(emit.add(less, at_top), [writer.lead])
    return Seed(writer.in_score_shape(seed), classes, y)


def _sigmoid(writer: _Writer) -> Seed:
    """Emit y = sum w p with p = sigmoid(z): dy/dz = w e / (1 + e)^2 with e = exp(-abs(z)).

    That is w p (1 - p), which would cancel near 1; and Sigmoid is an approximation in onnxruntime,
    with an absolute error of some 1e-7.
    """
    emit, scores = writer.emit, writer.flat_scores()
    weights, classes = writer.weighted(writer.classes(scores))
    probabilities = emit.unary("Sigmoid", scores)
    power = emit.unary("Exp", emit.neg(emit.unary("Abs", scores)))
    one_more = emit.add(power, 1.0)
    slope = emit.div(power, emit.mul(one_more, one_more))
    seed = emit.mul(weights, writer.per_class(slope))
    return Seed(writer.in_score_shape(seed), classes, _total(writer, weights, probabilities))


def _binary(writer: _Writer) -> Seed:
    """Emit y = z for class 1, -z for class 0."""
    emit, scores = writer.emit, writer.flat_scores()
    classes = writer.classes(emit.concat([emit.neg(scores), scores], 1))
    sign = emit.sub(emit.mul(writer.as_float(classes), 2.0), emit.filled([1.0], scores))
    seed = emit.unsqueeze(sign, [writer.lead])
    return Seed(writer.in_score_shape(seed), classes, _total(writer, seed, scores))


def _segmentation(writer: _Writer) -> Seed:
    """Emit y = sum of mask times score; without a mask, where the class has the highest score."""
    emit, score = writer.emit, writer.score
    scores = writer.score_map()
    places = len(score.places)
    if score.num_classes == 1:
        positive = emit.cast(emit.greater(scores, 0.0), TensorProto.INT64)
        winners = emit.node("Sub", [emit.squeeze(positive, [1]), emit.ints([1])])
    else:
        winners = emit.node("ArgMax", [scores], dtype=TensorProto.INT64, axis=1, keepdims=0)
    ids = emit.constant(np.arange(score.num_classes).reshape(1, -1, *[1] * places))
    won = writer.as_float(emit.node("Equal", [emit.unsqueeze(winners, [1]), ids], hint="won"))
    areas = emit.reduce_sum(won, range(2, 2 + places), keepdims=False)
    weights, classes = writer.weighted(writer.classes(areas))
    wide = emit.unsqueeze(classes, range(writer.lead, writer.lead + places))
    region = writer.as_float(emit.node("Equal", [writer.per_class(winners), wide], hint="region"))
    if writer.objective.weights:  # without a class, everywhere
        none = emit.node("Equal", [wide, emit.ints([-1])], hint="no_class")
        region = emit.where(none, 1.0, region)
    mask = writer.per_class(MASK_INPUT)
    size = emit.reduce_sum(emit.unary("Abs", mask), range(writer.lead, writer.lead + places))
    mask = emit.where(emit.greater(size, 0.0), writer.as_float(mask), region)
    seed = writer.at_places(weights, mask)
    row = emit.unsqueeze(weights, range(writer.lead + 1, writer.lead + 1 + places))
    product = emit.mul(emit.mul(row, emit.unsqueeze(mask, [writer.lead])), writer.per_class(scores))
    y = emit.reduce_sum(product, range(writer.lead, writer.lead + 1 + places), keepdims=False)
    return Seed(seed, classes, y)


def _detection(writer: _Writer) -> Seed:
    """Emit y = the score of a class in a box; ranks of classes are those of their best boxes."""
    emit, score = writer.emit, writer.score
    scores = writer.score_map()
    classes = writer.classes(emit.reduce_max(scores, [2], keepdims=False))
    weights, classes = writer.weighted(classes)
    row = emit.mul(emit.unsqueeze(weights, [writer.lead + 1]), writer.per_class(scores))
    in_boxes = emit.reduce_sum(row, [writer.lead], keepdims=False)  # (N, [T,] boxes)
    shape = emit.shape(score.tensor)
    size = shape[score.places[0]] if shape is not None else None
    count, positions = _positions(emit, in_boxes, size, writer.lead)
    boxes = _resolve(emit, in_boxes, BOX_INPUT, count, positions, writer.lead)
    places = writer.as_float(writer.one_hot(boxes, positions))
    y = emit.reduce_sum(emit.mul(in_boxes, places), [writer.lead], keepdims=False)
    if writer.objective.several:  # one class may go with several boxes
        none = emit.node("Mul", [boxes, emit.ints([0])])
        classes = emit.node("Add", [classes, none], hint="classes_of_boxes")
    return Seed(writer.at_places(weights, places), classes, y, boxes)


def _similarity(writer: _Writer) -> Seed:
    """Emit y = e.t / (|e| |t|): dy/de = (t / |t| - y e / |e|) / |e|."""
    emit, given = writer.emit, writer.as_float(EMBEDDING_INPUT)
    scores = writer.per_class(writer.flat_scores())
    lengths = []
    for vector in (scores, given):
        squares = emit.reduce_sum(emit.mul(vector, vector), [writer.lead])
        smallest = float(np.finfo(np.float32).tiny)  # nothing is divided by zero
        lengths.append(emit.unary("Sqrt", emit.add(squares, smallest)))
    units = [emit.div(vector, size) for vector, size in zip((scores, given), lengths, strict=True)]
    y = emit.reduce_sum(emit.mul(*units), [writer.lead])
    seed = emit.div(emit.sub(units[1], emit.mul(y, units[0])), lengths[0])
    score = emit.squeeze(y, [writer.lead])
    none = emit.node("Sub", [emit.cast(emit.mul(score, 0.0), TensorProto.INT64), emit.ints([1])])
    return Seed(writer.in_score_shape(seed), none, score)


_EMITTED: dict[str, Callable[[_Writer], Seed]] = {
    "class": _class,
    "softmax": _softmax,
    "sigmoid": _sigmoid,
    "binary": _binary,
    "segmentation": _segmentation,
    "detection": _detection,
    "similarity": _similarity,
}


# -- indices and ranks -------------------------------------------------------------------------


def _positions(emit: Emitter, x: str, size: object, axis: int) -> tuple[int | str, int | str]:
    """Return the size of an axis and the indices along it: numbers, or tensors where it is open.

    Raises:
        UnsupportedModelError: it is open and the opset has no Range.
    """
    if isinstance(size, int):
        return size, size
    if emit.opset < 11:
        raise UnsupportedModelError(
            "the number of boxes is not known at export, and before opset 11 nothing counts them;"
            " convert the model with onnx.version_converter"
        )
    count = emit.slice(emit.node("Shape", [x]), [axis], [axis + 1], [0])
    scalar = emit.squeeze(count, [0])
    zero, one = emit.constant(np.array(0)), emit.constant(np.array(1))
    return count, emit.node("Range", [zero, scalar, one], dtype=TensorProto.INT64)


def _fixed(emit: Emitter, scores: str, index: int) -> str:
    """Return an index, or that of a rank if it is negative, for each row of scores: ``(N,)``."""
    if index >= 0:
        rows = emit.slice(emit.shape_tensor(scores), [0], [1], [0])
        return emit.expand(emit.ints([index]), rows)
    if index == -1:
        return emit.node("ArgMax", [scores], dtype=TensorProto.INT64, axis=1, keepdims=0)
    best = _order(emit, scores, -index)
    return emit.squeeze(emit.node("Gather", [best, emit.ints([-index - 1])], axis=_LAST), [1])


def _resolve(
    emit: Emitter,
    scores: str,
    chosen: str,
    count: int | str,
    positions: int | str,
    axis: int,
    *,
    shared: bool = False,
) -> str:
    """Return indices for indices and negative ranks, int64 ``(N,)`` or ``(N, T)``.

    Sorts no further than the lowest rank that is asked for: of a thousand classes that is most of
    the time of a choice.

    Args:
        emit: where to write nodes.
        scores: what ranks refer to: ``(N, K)``, or ``(N, T, K)``.
        chosen: int64, indices and ranks; N may be 1.
        count: K, or a tensor that holds it.
        positions: K, or a tensor of the indices 0 to K - 1.
        axis: 1, or 2 where there is an axis T.
        shared: whether there is an axis T, and scores lack it.
    """
    none, one = emit.ints([0]), emit.ints([1])
    rank = emit.node("Sub", [emit.ints([-1]), chosen], hint="rank")
    if isinstance(positions, int):
        positions = emit.ints(range(positions))
    arithmetic = emit.opset >= 12  # Max of int64
    if arithmetic:
        lowest = emit.reduce_max(rank, list(range(axis)), keepdims=True)
        lowest = emit.reshape(lowest, [1]) if axis > 1 else lowest
        count = emit.node("Max", [emit.node("Add", [lowest, one]), one], hint="depth")
        positions = emit.slice(positions, [0], count, [0])
    best = _order(emit, scores, count)
    best = emit.unsqueeze(best, [1]) if shared else best
    at_rank = emit.node("Equal", [emit.unsqueeze(rank, [axis]), positions])
    if arithmetic:
        by_rank = emit.node("Where", [at_rank, best, none], dtype=TensorProto.INT64)
        kept = emit.node("Max", [chosen, none])
    else:
        by_rank = emit.node("Mul", [best, emit.cast(at_rank, TensorProto.INT64)])
        negative = emit.less(emit.cast(chosen, TensorProto.FLOAT), 0.0)
        given = emit.node("Sub", [one, emit.cast(negative, TensorProto.INT64)])
        kept = emit.node("Mul", [chosen, given])
    found = emit.reduce_sum(by_rank, [axis], keepdims=False)
    return emit.node("Add", [found, kept], hint="classes")


def _order(emit: Emitter, scores: str, count: int | str) -> str:
    """Return the indices along the last axis by falling score, int64."""
    if emit.opset >= 10:
        size = emit.ints([count]) if isinstance(count, int) else count
        inputs, attributes = [scores, size], {}
    else:
        assert isinstance(count, int), "_positions refuses open sizes there"
        inputs, attributes = [scores], {"k": count}
    if emit.opset < 11 and emit.dtype(scores) == TensorProto.DOUBLE:
        inputs[0] = emit.cast(scores, TensorProto.FLOAT)
    _, indices = emit.nodes_with_outputs("TopK", inputs, 2, axis=_LAST, **attributes)
    emit.declare(indices, TensorProto.INT64)
    return indices
