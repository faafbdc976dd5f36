"""All cases, by family of operators."""

from __future__ import annotations

from tests.gradients.case import Case
from tests.gradients.cases import (
    activations,
    arithmetic,
    attention,
    conv,
    conv_weight,
    einsum,
    elementwise,
    indexing,
    layout,
    linear,
    lp_pooling,
    normalization,
    pooling,
    reduction,
    resize,
    scatter,
    shape,
    transposed,
    unknown,
)

FAMILIES: dict[str, list[Case]] = {
    "activations": activations.CASES,
    "arithmetic": arithmetic.CASES,
    "attention": attention.CASES,
    "conv": conv.CASES,
    "conv_weight": conv_weight.CASES,
    "einsum": einsum.CASES,
    "elementwise": elementwise.CASES,
    "indexing": indexing.CASES,
    "layout": layout.CASES,
    "linear": linear.CASES,
    "lp_pooling": lp_pooling.CASES,
    "normalization": normalization.CASES,
    "pooling": pooling.CASES,
    "reduction": reduction.CASES,
    "resize": resize.CASES,
    "scatter": scatter.CASES,
    "shape": shape.CASES,
    "transposed": transposed.CASES,
    "unknown": unknown.CASES,
}

CASES = [case for cases in FAMILIES.values() for case in cases]
