"""Finds the expansion of an operator: imports the modules whose rules fill the table."""

from __future__ import annotations

from onnx_gradcam.export.expansion import (
    activations,
    attention,
    convolution,
    layout,
    normalization,
    products,
    registry,
)

MODULES = (activations, attention, convolution, layout, normalization, products)
"""A module that is not named here is not used."""


def find_rule(domain: str, op_type: str, opset: int) -> registry.Rule | None:
    """Return what expands an operator at an opset, None where nothing does."""
    return registry.find_expansion(domain, op_type)
