"""y once more, in NumPy: which class and box are meant, and the value, from the score tensor.

In: what an exported file says of its objective, the seeds it was fed, the score tensor. Out: what
``cam_classes``, ``cam_boxes`` and ``cam_score`` should be, and y as a function of the scores. It
shares nothing with the nodes that the export wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onnx_gradcam.contract import (
    BOX_INPUT,
    BOXES_OUTPUT,
    CLASS_INPUT,
    CLASSES_OUTPUT,
    EMBEDDING_INPUT,
    MASK_INPUT,
    SCORE_OUTPUT,
    WEIGHTS_INPUT,
    ExportMetadata,
)
from onnx_gradcam.export.verification.subject import Array, Feeds

SLACK = 1e-3
"""Scores that differ by less of the largest may change places: two runs round differently."""


_SMALLEST = 1e-4
"""Of y, by which that is judged: a thousandth of it is what float32 leaves of probabilities."""


@dataclass(frozen=True)
class Claim:
    """One y per image, as it was asked for, and the scores it was asked of.

    Attributes:
        kind: of the objective.
        seeds: what was fed.
        scores: ``(N, K, P)``, P one where there are no places, at the point.
        found: the outputs of the exported file.
    """

    kind: str
    seeds: Feeds
    scores: Array
    found: Mapping[str, Array]

    def seed(self, name: str, default: Array) -> Array:
        """Return a seed with a row per image."""
        value = self.seeds.get(name, default)
        return np.broadcast_to(value, (len(self.scores), *value.shape[1:]))

    def problems(self) -> Iterator[str]:
        """Yield what the outputs say otherwise than these scores."""
        weighted = self._weighted()
        classes = self.found[CLASSES_OUTPUT]
        if self.kind == "similarity":
            ranked = np.zeros((len(self.scores), 0))
        else:
            ranked = _RANKED[self.kind](self.scores)
        asked = np.where(weighted, 0, self.seed(CLASS_INPUT, np.array([-1])))
        for image, wanted in enumerate(classes):
            if not ranked.size or weighted[image]:
                if wanted != -1:
                    yield f"{CLASSES_OUTPUT} is {wanted} where no class is asked for"
            elif not _is_rank(ranked[image], int(asked[image]), int(wanted)):
                yield f"class {asked[image]} of image {image} is explained as {wanted}"
        if BOXES_OUTPUT in self.found:
            rows = np.einsum("nk,nkp->np", self.weights(), self.scores)
            boxes = self.seed(BOX_INPUT, np.array([-1]))
            for image, wanted in enumerate(self.found[BOXES_OUTPUT]):
                if not _is_rank(rows[image], int(boxes[image]), int(wanted)):
                    yield f"box {boxes[image]} of image {image} is explained as {wanted}"
        if SCORE_OUTPUT in self.found:
            expected, given = self.value(self.scores), self.found[SCORE_OUTPUT]
            size = np.abs(expected) + self.terms(self.scores) + _SMALLEST
            if given.shape != expected.shape or (np.abs(given - expected) > SLACK * size).any():
                yield f"{SCORE_OUTPUT} is {given.tolist()}, not {expected.tolist()}"

    def _weighted(self) -> Array:
        given = self.seed(WEIGHTS_INPUT, np.zeros((1, 1)))
        return np.asarray(given.any(axis=1))

    def weights(self) -> Array:
        """Return the weight of each class, ``(N, K)``."""
        classes = self.found[CLASSES_OUTPUT]
        one_hot = (classes[:, None] == np.arange(self.scores.shape[1])).astype(np.float64)
        given = self.seed(WEIGHTS_INPUT, np.zeros_like(one_hot))
        return np.where(self._weighted()[:, None], given, one_hot)

    def value(self, scores: Array) -> Array:
        """Return y, ``(N,)``, of scores ``(N, K, P)``; classes, boxes and regions stay these."""
        return np.asarray(_VALUES[self.kind](self, scores.astype(np.float64)))

    def shifted(self, scores: Array) -> Array:
        """Return y less a constant, ``(N,)``: of a probability near 1, what is left of 1 counts."""
        if self.kind not in _SHIFTED:
            return self.value(scores)
        weights, point = self.weights(), self.scores[:, :, 0].astype(np.float64)
        parts = _SHIFTED[self.kind](scores[:, :, 0].astype(np.float64), weights, point)
        return np.asarray(parts.sum(axis=1))

    def terms(self, scores: Array) -> Array:
        """Return the size of what y is summed up from, ``(N,)``: rounding is relative to it."""
        sizes = np.abs(scores)
        largest = np.asarray(sizes.max(axis=(1, 2)))
        if self.kind == "similarity":
            return np.ones(len(scores))
        weights = np.abs(self.weights())
        if self.kind == "segmentation":
            return np.asarray(np.einsum("nk,np,nkp->n", weights, np.abs(self.region()), sizes))
        if self.kind in _SHIFTED:  # a score that is off by eps shifts its probability by as much
            point = self.scores[:, :, 0].astype(np.float64)
            parts = _SHIFTED[self.kind](scores[:, :, 0].astype(np.float64), self.weights(), point)
            return np.asarray((1 + largest) * np.abs(parts).sum(axis=1))
        if self.kind == "class":
            return np.asarray(np.maximum(largest, (weights * sizes[:, :, 0]).sum(axis=1)))
        return largest

    def region(self) -> Array:
        """Return the mask ``(N, P)``: the one that was fed, or where the class has the highest."""
        classes = self.found[CLASSES_OUTPUT]
        if self.scores.shape[1] == 1:
            won = self.scores[:, 0] > 0
        else:
            won = self.scores.argmax(axis=1) == classes[:, None]
        won = won | self._weighted()[:, None]
        given = self.seed(MASK_INPUT, np.zeros((1, 1))).reshape(len(classes), -1)
        return np.where(given.any(axis=1, keepdims=True), given, won)


def claim_of(meta: ExportMetadata, seeds: Feeds, rows: Array, found: Mapping[str, Array]) -> Claim:
    """Return a claim; `rows` is the whole score tensor, ``(N, channels times P)``."""
    return Claim(meta.objective, seeds, as_scores(meta, rows), found)


def as_scores(meta: ExportMetadata, rows: Array) -> Array:
    """Return rows ``(N, channels times P)`` as ``(N, K, P)``, other channels left out."""
    kinds = 1 if meta.objective == "binary" else meta.num_classes
    if not meta.places:
        return rows.reshape(len(rows), kinds, 1)
    width = rows.shape[1] // meta.channels
    per_channel = rows.reshape(len(rows), meta.channels, width)
    return per_channel[:, meta.first_channel : meta.first_channel + kinds]


def questions(meta: ExportMetadata, rows: Array, found: Mapping[str, Array]) -> list[Feeds]:
    """Return seeds to try beside the default: other classes, weights, masks, boxes, embeddings.

    Args:
        meta: what the file says of itself.
        rows: the score tensor, ``(N, channels times P)``.
        found: the outputs for the default.
    """
    scores = as_scores(meta, rows)
    images, count, places = scores.shape
    random = np.random.default_rng(images + count)
    other = (found[CLASSES_OUTPUT] + 1 + np.arange(images)) % max(meta.num_classes, 1)
    chosen = {CLASS_INPUT: other.astype(np.int64)} if CLASS_INPUT in meta.fed_inputs else {}
    asked: list[Feeds] = [chosen] if chosen else []
    if WEIGHTS_INPUT in meta.fed_inputs:
        asked.append({WEIGHTS_INPUT: random.normal(size=(images, count)).astype(np.float32)})
    if MASK_INPUT in meta.fed_inputs:
        mask = (random.random((images, places)) * (random.random((images, places)) < 0.5)).astype(
            np.float32
        )
        asked.append(chosen | {MASK_INPUT: mask})
    if BOX_INPUT in meta.fed_inputs:
        asked.append(chosen | {BOX_INPUT: np.full(images, -min(2, places), np.int64)})
        asked.append({BOX_INPUT: random.integers(places, size=images)})
    if EMBEDDING_INPUT in meta.fed_inputs:
        asked.append({EMBEDDING_INPUT: random.normal(size=(images, count)).astype(np.float32)})
    return asked


def _is_rank(scores: Array, asked: int, found: int) -> bool:
    """Return whether `found` is the index, or the rank, that was asked for."""
    if not 0 <= found < len(scores):
        return False
    if asked >= 0:
        return found == asked
    slack = SLACK * np.abs(scores).max()
    return bool(abs(scores[found] - np.sort(scores)[asked]) <= slack)


def _areas(scores: Array) -> Array:
    if scores.shape[1] == 1:
        return np.asarray((scores > 0).sum(axis=2))
    return np.stack([(scores.argmax(axis=1) == k).sum(axis=1) for k in range(scores.shape[1])], 1)


_RANKED: dict[str, Callable[[Array], Array]] = {
    "class": lambda scores: scores[:, :, 0],
    "softmax": lambda scores: scores[:, :, 0],
    "sigmoid": lambda scores: scores[:, :, 0],
    "binary": lambda scores: np.concatenate([-scores[:, :, 0], scores[:, :, 0]], axis=1),
    "segmentation": _areas,
    "detection": lambda scores: scores.max(axis=2),
}
"""What ranks of classes refer to, ``(N, K)``."""


def _weighted_sum(claim: Claim, scores: Array) -> Array:
    return np.asarray((claim.weights() * scores[:, :, 0]).sum(axis=1))


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _sigmoid(scores: Array) -> Array:
    return np.exp(-np.logaddexp(0, -scores))


def _softmax_shifted(scores: Array, weights: Array, point: Array) -> Array:
    """Return the terms of sum w p - w_m, with m the class that is highest at the point."""
    highest = np.take_along_axis(weights, point.argmax(axis=1)[:, None], axis=1)
    return np.asarray((weights - highest) * _softmax(scores))


def _sigmoid_shifted(scores: Array, weights: Array, point: Array) -> Array:
    """Return the terms of sum w p less the weights of the scores that are positive at the point."""
    side = np.where(point > 0, -1, 1)
    return np.asarray(weights * side * np.exp(-np.logaddexp(0, -side * scores)))


_SHIFTED: dict[str, Callable[[Array, Array, Array], Array]] = {
    "softmax": _softmax_shifted,
    "sigmoid": _sigmoid_shifted,
}

_SQUASHED: dict[str, Callable[[Array], Array]] = {"softmax": _softmax, "sigmoid": _sigmoid}
"""What makes probabilities of scores ``(N, K, P)``."""


def _squashed(claim: Claim, scores: Array) -> Array:
    return _weighted_sum(claim, _SQUASHED[claim.kind](scores))


def _binary(claim: Claim, scores: Array) -> Array:
    return np.asarray((2 * claim.found[CLASSES_OUTPUT] - 1) * scores[:, 0, 0])


def _segmentation(claim: Claim, scores: Array) -> Array:
    return np.asarray(np.einsum("nk,np,nkp->n", claim.weights(), claim.region(), scores))


def _detection(claim: Claim, scores: Array) -> Array:
    boxes = claim.found[BOXES_OUTPUT]
    at_box = scores[np.arange(len(scores)), :, boxes]
    return np.asarray(np.einsum("nk,nk->n", claim.weights(), at_box))


def _similarity(claim: Claim, scores: Array) -> Array:
    given = claim.seed(EMBEDDING_INPUT, np.zeros((1, 1))).astype(np.float64)
    vectors = scores[:, :, 0]
    lengths = np.linalg.norm(given, axis=1) * np.linalg.norm(vectors, axis=1)
    return np.asarray((given * vectors).sum(axis=1) / lengths)


_VALUES: dict[str, Callable[[Claim, Array], Array]] = {
    "class": _weighted_sum,
    "softmax": _squashed,
    "sigmoid": _squashed,
    "binary": _binary,
    "segmentation": _segmentation,
    "detection": _detection,
    "similarity": _similarity,
}
