"""Operators in PyTorch, for `make_gradient_references`: normalisations, reductions, attention.

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


def _layer_normalization(
    attributes: Attributes, inputs: Sequence[Any], _opset: int
) -> torch.Tensor:
    x, scale, bias = inputs
    return F.layer_norm(x, x.shape[attributes.get("axis", -1) :]) * scale + bias


def _instance_normalization(
    attributes: Attributes, inputs: Sequence[Any], _opset: int
) -> torch.Tensor:
    x, scale, bias = inputs
    return F.instance_norm(x, weight=scale, bias=bias, eps=attributes.get("epsilon", 1e-5))


def _rms_normalization(attributes: Attributes, inputs: Sequence[Any], _opset: int) -> torch.Tensor:
    x, scale = inputs
    shape = x.shape[attributes.get("axis", -1) :]
    return F.rms_norm(x, shape, None, attributes.get("epsilon", 1e-5)) * scale


def _attention(attributes: Attributes, inputs: Sequence[Any], _opset: int) -> torch.Tensor:
    q, k, v, *masks = inputs
    joined = q.dim() == 3
    if joined:
        heads = [attributes[name] for name in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
        q, k, v = (
            x.unflatten(-1, (n, -1)).transpose(1, 2) for x, n in zip((q, k, v), heads, strict=True)
        )
    bias = torch.zeros(q.shape[2], k.shape[2], dtype=q.dtype)
    distance = torch.arange(k.shape[2]) - torch.arange(q.shape[2])[:, None]
    right = attributes.get("right_window_size", -1)
    left = attributes.get("left_window_size", -1)
    for limit in [0] * attributes.get("is_causal", 0) + [right] * (right >= 0):
        bias = bias.masked_fill(distance > limit, -torch.inf)
    if left >= 0:
        bias = bias.masked_fill(distance < -left, -torch.inf)
    for mask in masks:
        is_bool = mask.dtype == torch.bool
        bias = bias.masked_fill(~mask, -torch.inf) if is_bool else bias + mask
    scale, cap = attributes.get("scale", q.shape[-1] ** -0.5), attributes.get("softcap", 0.0)
    outputs = []
    for head in range(q.shape[1]):
        shared = head * k.shape[1] // q.shape[1]
        scores = scale * q[:, head] @ k[:, shared].mT
        scores = cap * torch.tanh(scores / cap) if cap else scores
        added = bias[:, head if bias.shape[1] > 1 else 0] if bias.dim() == 4 else bias
        barred = (added == -torch.inf).all(-1, keepdim=True)
        weights = torch.softmax(scores + added.masked_fill(barred, 0.0), -1)
        outputs.append(weights.masked_fill(barred, 0.0) @ v[:, shared])
    return torch.cat(outputs, -1) if joined else torch.stack(outputs, 1)


def _rotary_embedding(attributes: Attributes, inputs: Sequence[Any], _opset: int) -> torch.Tensor:
    x, cosine, sine, *positions = inputs
    joined = x.dim() == 3
    if joined:
        x = x.unflatten(-1, (attributes["num_heads"], -1)).transpose(1, 2)
    if positions:
        cosine, sine = cosine[positions[0]], sine[positions[0]]
    angles = torch.complex(cosine, sine)[:, None]
    turned, rest = x.tensor_split([attributes.get("rotary_embedding_dim", 0) or x.shape[-1]], -1)
    if attributes.get("interleaved", 0):
        y = torch.view_as_real(torch.view_as_complex(turned.unflatten(-1, (-1, 2))) * angles)
        y = y.flatten(-2)
    else:
        product = torch.complex(*turned.chunk(2, -1)) * angles
        y = torch.cat([product.real, product.imag], -1)
    y = torch.cat([y, rest], -1)
    return y.transpose(1, 2).flatten(-2) if joined else y


OPERATORS: dict[str, Operator] = {
    "Attention": _attention,
    "BatchNormalization": _batch_normalization,
    "Einsum": lambda attributes, inputs, _opset: torch.einsum(
        attributes["equation"].decode(), *inputs
    ),
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "RMSNormalization": _rms_normalization,
    "RotaryEmbedding": _rotary_embedding,
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
