"""Whether image and biases account for the whole of y, as FullGrad promises.

In: the runs of the exported file. Out: one `Check`: x . dy/dx + sum b . dy/db equals y.
"""

from __future__ import annotations

import numpy as np

from onnx_gradcam.contract import ACCOUNTED_OUTPUT
from onnx_gradcam.export.verification.attempts import Attempts
from onnx_gradcam.export.verification.report import Check
from onnx_gradcam.export.verification.score_function import ScoreFunction
from onnx_gradcam.export.verification.subject import Subject

TOLERANCE = 1e-3
"""Accepted difference, relative to the largest of the scores that y is a sum of."""

ROUGH_TOLERANCE = 1e-2
"""The same for models of half precision."""


def check_accounted(subject: Subject, attempts: Attempts, function: ScoreFunction) -> Check:
    """Return whether the sum over image and biases equals y, for all inputs and classes tried."""
    worst = 0.0
    for attempt in range(subject.attempts):
        rows = function.rows(attempts.values(attempt)[function.score]).astype(np.float64)
        for claim in attempts.claims(attempt, rows):
            found = claim.found[ACCOUNTED_OUTPUT].astype(np.float64)
            size = np.maximum(claim.terms(claim.scores), np.finfo(np.float32).tiny)
            relative = np.abs(found - claim.value(claim.scores)) / size
            worst = max(worst, float("inf" if np.isnan(relative).any() else relative.max()))
    tolerance = ROUGH_TOLERANCE if function.rough else TOLERANCE
    detail = (
        f"image and biases account for the score to {worst:.1e} of the largest one (tolerance"
        f" {tolerance:.0e})"
    )
    return Check("full gradient", worst <= tolerance, detail, worst)
