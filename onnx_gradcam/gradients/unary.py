"""Register the formulas of operators of one input as rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import Context, GradientFormula, Gradients, gradient

UnaryRule = Callable[[Emitter, str, str], str]
"""(emit, dy, x or y) -> dx."""


def register_from_output(rules: Mapping[str, UnaryRule]) -> None:
    """Register rules that read the output y of their operator."""
    for op_type, rule in rules.items():
        gradient(op_type)(_reading(rule, lambda ctx: ctx.outputs[0]))


def register_from_input(rules: Mapping[str, UnaryRule]) -> None:
    """Register rules that read the input x of their operator."""
    for op_type, rule in rules.items():
        gradient(op_type)(_reading(rule, lambda ctx: ctx.inputs[0]))


def _reading(rule: UnaryRule, tensor: Callable[[Context], str]) -> GradientFormula:
    def formula(ctx: Context) -> Gradients:
        return [rule(ctx.emit, ctx.dy, tensor(ctx))]

    return formula
