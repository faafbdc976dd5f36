"""Operators in PyTorch, for `tools.make_gradient_references`: normalisations and reductions.

In: an operator's attributes and inputs, and the opset. Out: its first output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name

Attributes = Mapping[str, Any]
Operator = Callable[[Attributes, Sequence[Any], int], torch.Tensor]


def _axes(attributes: Attributes, inputs: Sequence[Any]) -> list[int]:
    given = [int(a) for a in inputs[1]] if len(inputs) > 1 else attributes.get("axes", [])
    keep_all = attributes.get("noop_with_empty_axes", 0)
    return list(given) or ([] if keep_all else list(range(inputs[0].dim())))


def reduction(
    whole: Callable[[torch.Tensor, list[int], bool], torch.Tensor],
    each: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
) -> Operator:
    """Return a reduction: `whole` over axes, `each` where there is none to reduce."""

    def run(attributes: Attributes, inputs: Sequence[Any], _opset: int) -> torch.Tensor:
        axes = _axes(attributes, inputs)
        if not axes:
            return each(inputs[0])
        return whole(inputs[0], axes, bool(attributes.get("keepdims", 1)))

    return run


def _product(x: torch.Tensor, axes: list[int], keepdims: bool) -> torch.Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keepdims)
    return x


def _batch_normalization(
    attributes: Attributes, inputs: Sequence[Any], _opset: int
) -> torch.Tensor:
    x, scale, bias, mean, variance = inputs
    if attributes.get("spatial", 1) and x.dim() > 1:
        return F.batch_norm(x, mean, variance, scale, bias, eps=1e-5)
    result: torch.Tensor = (x - mean) / torch.sqrt(variance + 1e-5) * scale + bias
    return result


def _group_normalization(attributes: Attributes, inputs: Sequence[Any], opset: int) -> torch.Tensor:
    x, scale, bias = inputs
    groups, epsilon = attributes["num_groups"], attributes.get("epsilon", 1e-5)
    if opset < 21:
        repeats = x.shape[1] // groups
        scale, bias = (v.repeat_interleave(repeats) for v in (scale, bias))
    return F.group_norm(x, groups, scale, bias, epsilon)


def _rms_normalization(attributes: Attributes, inputs: Sequence[Any], _opset: int) -> torch.Tensor:
    x, scale = inputs
    shape = x.shape[attributes.get("axis", -1) :]
    return F.rms_norm(x, shape, None, attributes.get("epsilon", 1e-5)) * scale


OPERATORS: dict[str, Operator] = {
    "BatchNormalization": _batch_normalization,
    "Einsum": lambda attributes, inputs, _opset: torch.einsum(
        attributes["equation"].decode(), *inputs
    ),
    "GroupNormalization": _group_normalization,
    "RMSNormalization": _rms_normalization,
    "ReduceL1": reduction(
        lambda x, axes, keep: torch.linalg.vector_norm(x, 1, axes, keep), torch.abs
    ),
    "ReduceL2": reduction(
        lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep), torch.abs
    ),
    "ReduceLogSum": reduction(lambda x, axes, keep: x.sum(axes, keep).log(), torch.log),
    "ReduceLogSumExp": reduction(torch.logsumexp),
    "ReduceMax": reduction(torch.amax),
    "ReduceMean": reduction(torch.mean),
    "ReduceMin": reduction(torch.amin),
    "ReduceProd": reduction(_product),
    "ReduceSumSquare": reduction(lambda x, axes, keep: (x * x).sum(axes, keep), torch.square),
}
