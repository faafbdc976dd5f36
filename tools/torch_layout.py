"""Operators in PyTorch, for `tools.make_gradient_references`: those that move or resize.

In: an operator's attributes and inputs, and the opset. Out: its first output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name

from tools.torch_operators import Attributes, Operator

_MODES = {b"reflect": "reflect", b"edge": "replicate", b"wrap": "circular"}


def _pad(attributes: Attributes, inputs: Sequence[Any], _opset: int) -> torch.Tensor:
    """Pad axis by axis: PyTorch repeats values of the last axis of three alone."""
    x = inputs[0]
    pads = attributes.get("pads") or [int(p) for p in inputs[1]]
    axes = range(x.dim()) if len(inputs) < 4 else [int(a) % x.dim() for a in inputs[3]]
    mode = attributes.get("mode", b"constant")
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        rows = x.movedim(axis, -1)
        cut = rows[..., max(0, -begin) : rows.shape[-1] - max(0, -end)]
        widths = [max(0, begin), max(0, end)]
        if mode == b"constant":
            padded = F.pad(cut, widths)
        elif any(widths):
            flat = cut.reshape(1, -1, cut.shape[-1])
            padded = F.pad(flat, widths, mode=_MODES[mode]).reshape(*cut.shape[:-1], -1)
        else:
            padded = cut
        x = padded.movedim(-1, axis)
    return torch.as_tensor(x)


def _conv_transpose(attributes: Attributes, inputs: Sequence[Any], _opset: int) -> torch.Tensor:
    """Run without padding, and cut off what the padding takes away."""
    x, weight = inputs[:2]
    rank = weight.dim() - 2
    run: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    strides, dilations = (attributes.get(n, [1] * rank) for n in ("strides", "dilations"))
    groups = attributes.get("group", 1)
    y = run(x, weight, stride=strides, dilation=dilations, groups=groups)
    mode, shape = attributes.get("auto_pad", b"NOTSET"), attributes.get("output_shape")
    pads = attributes.get("pads", [0] * (2 * rank))
    extra = attributes.get("output_padding", [0] * rank)
    for i in range(rank):
        y = F.pad(y, [0, 0] * (rank - 1 - i) + [0, extra[i]])
        begin, target = pads[i], y.shape[2 + i] - pads[i] - pads[rank + i]
        if shape or mode.startswith(b"SAME"):
            target = shape[i] if shape else x.shape[2 + i] * strides[i]
            surplus = y.shape[2 + i] - target
            begin = surplus // 2 if mode == b"SAME_UPPER" else surplus - surplus // 2
        y = y.narrow(2 + i, begin, target)
    return torch.as_tensor(y)


def _gather_nd(attributes: Attributes, inputs: Sequence[Any], _opset: int) -> torch.Tensor:
    x, index = inputs
    batch = attributes["batch_dims"]
    if batch == 0:
        return torch.as_tensor(x[tuple(index.movedim(-1, 0))])
    inner = {"batch_dims": batch - 1}
    return torch.stack([_gather_nd(inner, pair, 0) for pair in zip(x, index, strict=True)])


def _resize(attributes: Attributes, inputs: Sequence[Any], opset: int) -> torch.Tensor:
    """Opset 10, and a part in `linear` mode: a lookup, or a mean of two, per axis."""
    x, scales, region = inputs[0], inputs[-1], inputs[1] if opset > 10 else None
    for axis, scale in enumerate(scales.tolist()):
        if scale == 1:
            continue
        last = x.shape[axis] - 1
        count = int(x.shape[axis] * scale)
        places = torch.arange(count, dtype=torch.float64) / scale
        outside = torch.zeros(count, dtype=torch.bool)
        if region is not None:
            start, end = region[axis].double(), region[axis + x.dim()].double()
            places = torch.lerp(start * last, end * last, torch.linspace(0, 1, count).double())
            outside = (places < 0) | (places > last)
        places = places.clamp(0, last)
        low = places.floor().long()
        rows = x.movedim(axis, -1)
        if attributes.get("mode", b"nearest") == b"linear":
            share = places - low
            rows = rows[..., low] * (1 - share) + rows[..., (low + 1).clamp(max=last)] * share
        else:
            rows = rows[..., low]
        x = rows.masked_fill(outside, attributes.get("extrapolation_value", 0.0)).movedim(-1, axis)
    return torch.as_tensor(x)


OPERATORS: dict[str, Operator] = {
    "ConvTranspose": _conv_transpose,
    "GatherND": _gather_nd,
    "Pad": _pad,
    "Reshape": lambda _attributes, inputs, _opset: inputs[0].reshape(inputs[1].tolist()),
    "Resize": _resize,
}
