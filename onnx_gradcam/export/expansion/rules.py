"""Finds the expansion of an operator: imports the modules whose rules fill the table."""

from __future__ import annotations

from onnx_gradcam.export.expansion import (
    activations,
    attention,
    branches,
    classic,
    convolution,
    grid_sample,
    layout,
    normalization,
    packed_weights,
    products,
    quantized,
    recurrent,
    rotary,
)
from onnx_gradcam.export.expansion.function_bodies import expand_function, is_function
from onnx_gradcam.export.expansion.registry import Rule, find_expansion
from onnx_gradcam.gradients.registry import Context, FormulaError

MODULES = (
    activations,
    attention,
    branches,
    classic,
    convolution,
    grid_sample,
    layout,
    normalization,
    packed_weights,
    products,
    quantized,
    recurrent,
    rotary,
)
"""A module that is not named here is not used."""

BLOCKED = "com.microsoft.nchwc"
"""Domain of operators on maps whose channels lie in blocks, as one processor likes them."""


def find_rule(domain: str, op_type: str, opset: int) -> Rule | None:
    """Return what expands an operator at an opset, None where nothing does."""
    if domain == BLOCKED:
        return _refuse_blocked
    rule = find_expansion(domain, op_type)
    if rule is None and domain in {"", "ai.onnx"} and is_function(op_type, opset):
        return expand_function
    return rule


def _refuse_blocked(_: Context) -> list[str]:
    raise FormulaError(
        "the layout of its maps is that of one processor: save the model with"
        " ORT_ENABLE_EXTENDED or less"
    )
