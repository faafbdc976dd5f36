"""Write the gradients that PyTorch finds for the cases that onnx-ad cannot be asked for.

Usage: python -m tools.make_gradient_references [FAMILY ...]     (needs torch and onnx, any recent)

In: `tests.gradients.cases`. Out: `tests/gradients/torch_references/FAMILY.npz`, for all families
by default: dL/dA in float64 per name of a case. Each model is run node by node with the PyTorch
function that its ONNX operator is exported from, and differentiated by autograd, so that the tests
need no PyTorch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from onnx import NodeProto, helper, numpy_helper

from tests.gradients.case import TORCH_REFERENCES, Array, Case, seed_like
from tests.gradients.cases import FAMILIES
from tools import torch_layout, torch_operators
from tools.torch_operators import Attributes, Operator


def _padded(x: torch.Tensor, attributes: Attributes, kernel: Sequence[int], fill: float) -> Any:
    """Return x with its paddings put in, so that the window operators need none."""
    rank = len(kernel)
    strides, dilations = (attributes.get(n, [1] * rank) for n in ("strides", "dilations"))
    pads = list(attributes.get("pads", [0] * (2 * rank)))
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    for i in range(rank):
        size, reach = x.shape[2 + i], dilations[i] * (kernel[i] - 1)
        if auto.startswith("SAME"):
            windows = math.ceil(size / strides[i])
            total = max(0, (windows - 1) * strides[i] + reach + 1 - size)
            small, large = total // 2, total - total // 2
            upper = auto == "SAME_UPPER"
            pads[i], pads[rank + i] = (small, large) if upper else (large, small)
    backwards = [p for i in reversed(range(rank)) for p in (pads[i], pads[rank + i])]
    return F.pad(x, backwards, value=fill)


def _conv(attributes: Attributes, inputs: Sequence[Any], _opset: int) -> torch.Tensor:
    x, weight = inputs[:2]
    rank = weight.dim() - 2
    run: Any = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    result: torch.Tensor = run(
        _padded(x, attributes, weight.shape[2:], 0.0),
        weight,
        inputs[2] if len(inputs) > 2 else None,
        stride=attributes.get("strides", [1] * rank),
        dilation=attributes.get("dilations", [1] * rank),
        groups=attributes.get("group", 1),
    )
    return result


def _unfolded(x: Any, attributes: Attributes, fill: float) -> torch.Tensor:
    """Return ``(N, C, *out, *kernel)``: the values under each window, `fill` where there is none.

    A last window that ceil_mode adds may reach beyond the padding.
    """
    kernel = attributes["kernel_shape"]
    rank = len(kernel)
    strides, dilations = (attributes.get(n, [1] * rank) for n in ("strides", "dilations"))
    begin = attributes.get("pads", [0] * rank)[:rank]
    whole = _padded(x, attributes, kernel, fill)
    for i in range(rank):
        room = whole.shape[2 + i] - dilations[i] * (kernel[i] - 1) - 1
        count = room // strides[i] + 1
        # torch.nn.MaxPool2d: "Sliding windows that would start in the right padded region are
        # ignored"
        rounded = attributes.get("ceil_mode", 0) and room % strides[i]
        if rounded and count * strides[i] < x.shape[2 + i] + begin[i]:
            count += 1
        length = (count - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1
        grow = [0, 0] * (rank - 1 - i) + [0, max(0, length - whole.shape[2 + i])]
        whole = F.pad(whole, grow, value=fill)
    for i in range(rank):
        whole = whole.unfold(2 + i, dilations[i] * (kernel[i] - 1) + 1, strides[i])
    steps = tuple(slice(None, None, d) for d in dilations)
    result: torch.Tensor = whole[(..., *steps)]
    return result


def _max_pool(attributes: Attributes, inputs: Sequence[Any], _opset: int) -> torch.Tensor:
    windows = _unfolded(inputs[0], attributes, -math.inf)
    rank = len(attributes["kernel_shape"])
    return windows.flatten(-rank).max(dim=-1).values


def _lp_pool(attributes: Attributes, inputs: Sequence[Any], _opset: int) -> torch.Tensor:
    windows = _unfolded(inputs[0], attributes, 0.0)
    order = attributes.get("p", 2)
    powers = windows.flatten(-len(attributes["kernel_shape"])).abs() ** order
    return powers.sum(dim=-1) ** (1 / order)


def _average_pool(attributes: Attributes, inputs: Sequence[Any], _opset: int) -> torch.Tensor:
    x = inputs[0]
    rank = len(attributes["kernel_shape"])
    pads = attributes.get("pads", [0] * (2 * rank))
    plain = pads[:rank] == pads[rank:] and "dilations" not in attributes
    if plain and attributes.get("auto_pad", b"VALID") == b"VALID":
        run: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
        return torch.as_tensor(
            run(
                x,
                attributes["kernel_shape"],
                attributes.get("strides", [1] * rank),
                padding=pads[:rank],
                ceil_mode=bool(attributes.get("ceil_mode", 0)),
                count_include_pad=bool(attributes.get("count_include_pad", 0)),
            )
        )
    ones = torch.ones_like(x)
    if attributes.get("count_include_pad", 0):
        assert not attributes.get("ceil_mode", 0)
        ones = _padded(ones, attributes, attributes["kernel_shape"], 1.0)
        x = _padded(x, attributes, attributes["kernel_shape"], 0.0)
        kept = {n: v for n, v in attributes.items() if n not in {"pads", "auto_pad"}}
        attributes = kept
    total, count = (_unfolded(v, attributes, 0.0).flatten(-rank).sum(-1) for v in (x, ones))
    return total / count


def _softmax(attributes: Attributes, inputs: Sequence[Any], opset: int) -> torch.Tensor:
    x = inputs[0]
    if opset >= 13:
        return F.softmax(x, attributes.get("axis", -1))
    axis = attributes.get("axis", 1) % x.dim()
    rows = x.reshape(math.prod(x.shape[:axis]), -1)
    return F.softmax(rows, 1).reshape(x.shape)


def _log_softmax(attributes: Attributes, inputs: Sequence[Any], opset: int) -> torch.Tensor:
    return _softmax(attributes, inputs, opset).log()


def _slice(_attributes: Attributes, inputs: Sequence[Any], _opset: int) -> torch.Tensor:
    x, starts, ends, axes, steps = inputs
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        taken = range(x.shape[axis])[int(start) : int(end) : int(step)]
        x = x.index_select(int(axis), torch.tensor(list(taken)))
    result: torch.Tensor = x
    return result


def _clip(attributes: Attributes, inputs: Sequence[Any], _opset: int) -> torch.Tensor:
    return torch.clamp(inputs[0], attributes.get("min"), attributes.get("max"))


OPERATORS: dict[str, Operator] = {
    **torch_layout.OPERATORS,
    **torch_operators.OPERATORS,
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Conv": _conv,
    "LogSoftmax": _log_softmax,
    "LpPool": _lp_pool,
    "MatMul": lambda _attributes, inputs, _opset: inputs[0] @ inputs[1],
    "MaxPool": _max_pool,
    "Mod": lambda attributes, inputs, _opset: (
        torch.fmod if attributes.get("fmod", 0) else torch.remainder
    )(*inputs),
    "Mul": lambda _attributes, inputs, _opset: inputs[0] * inputs[1],
    "Sigmoid": lambda _attributes, inputs, _opset: torch.sigmoid(inputs[0]),
    "Slice": _slice,
    "Softmax": _softmax,
}


def gradient(case: Case) -> Array:
    """Return dL/dA by autograd in float64, L = sum(y * seed)."""
    model = case.model(np.float64, case.main_opset)
    leaf = torch.from_numpy(case.feeds(np.float64)["A"]).requires_grad_()
    others = {n: torch.from_numpy(v) for n, v in case.feeds(np.float64).items() if n in case.inputs}
    tensors: dict[str, Any] = {"A": leaf, **others}
    for tensor in model.graph.initializer:
        tensors[tensor.name] = torch.from_numpy(numpy_helper.to_array(tensor).copy())
    for node in model.graph.node:
        tensors[node.output[0]] = _run(node, tensors, case.main_opset)
    y = tensors["y"]
    (result,) = torch.autograd.grad((y * torch.from_numpy(seed_like(tuple(y.shape)))).sum(), leaf)
    return np.asarray(result.numpy())


def _run(node: NodeProto, tensors: Mapping[str, Any], opset: int) -> torch.Tensor:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return OPERATORS[node.op_type](attributes, [tensors.get(name) for name in node.input], opset)


def main() -> None:
    """Write the files; a family without cases for PyTorch has none."""
    TORCH_REFERENCES.mkdir(exist_ok=True)
    for family in sys.argv[1:] or FAMILIES:
        gradients: dict[str, Any] = {c.name: gradient(c) for c in FAMILIES[family] if c.ad}
        file = TORCH_REFERENCES / f"{family}.npz"
        file.unlink(missing_ok=True)
        if gradients:
            np.savez_compressed(file, **gradients)
        print(f"{family}: {len(gradients)} gradients of PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()
