"""All cases, by family of operators."""

from __future__ import annotations

from tests.gradients.case import Case
from tests.gradients.cases import (
    activations,
    arithmetic,
    conv,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    reduction,
    shape,
)

FAMILIES: dict[str, list[Case]] = {
    "activations": activations.CASES,
    "arithmetic": arithmetic.CASES,
    "conv": conv.CASES,
    "elementwise": elementwise.CASES,
    "indexing": indexing.CASES,
    "linear": linear.CASES,
    "normalization": normalization.CASES,
    "pooling": pooling.CASES,
    "reduction": reduction.CASES,
    "shape": shape.CASES,
}

CASES = [case for cases in FAMILIES.values() for case in cases]
