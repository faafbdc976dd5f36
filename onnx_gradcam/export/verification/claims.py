"""Ask an exported file for several y, and see each as a function of a perturbation of A.

In: the running file. Out: `Claim`s with what the file gave, and the score function with one column
for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_gradcam.contract import CLASS_INPUT, MASK_INPUT, ExportMetadata
from onnx_gradcam.export.verification.objective import Claim, as_scores, claim_of, questions
from onnx_gradcam.export.verification.score_function import ScoreFunction
from onnx_gradcam.export.verification.subject import Array, Feeds, Subject, default_seeds

LINEAR = frozenset({"class", "binary", "segmentation", "detection"})
"""Objectives in which a constant that is added to the scores changes no difference."""

LEAST = {"softmax": 1e-6, "sigmoid": 1e-6}
"""Objectives whose y is a probability, and how near 0 or 1 it counts as rounding."""


def ask(
    subject: Subject, session: Any, feeds: Feeds, rows: Array, places: Sequence[int]
) -> list[Claim]:
    """Return what the file claims of the default y and of others.

    Args:
        subject: what is verified.
        session: the exported file.
        feeds: its inputs, without those that say which y.
        rows: the score tensor, ``(N, channels times P)``.
        places: extents of the places P, empty without.
    """
    meta = subject.metadata
    first = subject.explain(session, feeds, {})
    unasked = default_seeds(meta, subject.seed, subject.exported.model)
    if subject.fixed:
        unasked[CLASS_INPUT] = np.array([int(meta.class_input.partition(":")[2])])
    claims = [claim_of(meta, unasked, rows, first)]
    if subject.fixed or (meta.objective == "class" and rows.shape[1] < 2):
        return claims
    for seeds in questions(meta, rows, first):
        given = dict(seeds)
        if MASK_INPUT in given:
            given[MASK_INPUT] = given[MASK_INPUT].reshape(-1, *places)
        found = subject.explain(session, feeds, given)
        claims.append(claim_of(meta, unasked | seeds, rows, found))
    return claims


@dataclass(frozen=True)
class Asked:
    """The score function with a column for each y that was asked for."""

    metadata: ExportMetadata
    function: ScoreFunction
    claims: list[Claim]

    def scales(self) -> list[Array]:
        """Return what y of each claim is divided by, ``(N,)``: a probability may be tiny."""
        least = LEAST.get(self.metadata.objective)
        if least is None:
            return [np.ones(len(claim.scores)) for claim in self.claims]
        return [np.maximum(claim.terms(claim.scores), least) for claim in self.claims]

    def scaled(self, gradients: Sequence[Array]) -> list[Array]:
        """Return the gradients of all claims divided like their y."""
        pairs = zip(gradients, self.scales(), strict=True)
        return [g / scale.reshape(-1, *[1] * (g.ndim - 1)) for g, scale in pairs]

    def of(self, scores: Callable[[Array], Array]) -> Callable[[Array], Array]:
        """Return ``(N, claims + 1)`` of a perturbation; rounding goes by the last column.

        The bias of the classifier, which `scores` leave out, is added only where y is not linear
        in the scores: beside it small changes drown in rounding.
        """
        linear = self.metadata.objective in LINEAR
        scales, squashed = self.scales(), self.metadata.objective in LEAST

        def columns(perturbation: Array) -> Array:
            rows = scores(perturbation)
            parts = as_scores(self.metadata, rows if linear else self.function.complete(rows))
            pairs = zip(self.claims, scales, strict=True)
            values = [claim.shifted(parts) / scale for claim, scale in pairs]
            values.append(np.ones(len(rows)) if squashed else self.claims[0].terms(parts))
            return np.stack(values, axis=1).astype(rows.dtype)

        return columns
