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
from onnx_gradcam.export.objective import Objective
from onnx_gradcam.export.quantized.score import emit_ranking
from onnx_gradcam.export.score import Score
from onnx_gradcam.export.seed_choice import fixed_index, index_positions, resolve_index
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
            return fixed_index(self.emit, ranked, self.fixed_class)
        shared = self.lead == 2
        return resolve_index(
            self.emit, ranked, self.chosen(), count, count, self.lead, shared=shared
        )

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
    count, positions = index_positions(emit, in_boxes, size, writer.lead)
    boxes = resolve_index(emit, in_boxes, BOX_INPUT, count, positions, writer.lead)
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
