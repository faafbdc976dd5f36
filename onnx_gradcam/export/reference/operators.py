"""Operators that ONNX's reference implementation (onnx 1.23) gets wrong, in float64.

Written from the operators' specifications, in NumPy, and without a look at the gradient formulas.
They serve the float64 opinion of the verification and the tests: `tests/gradients` compares every
case with onnxruntime, and shows that these are needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from onnx_gradcam.export.reference.base import Array
from onnx_gradcam.export.reference.base import Operator as _Operator
from onnx_gradcam.export.reference.layout import LAYOUT


def _erf(x: Array) -> Array:
    return np.asarray(np.vectorize(math.erf, otypes=[x.dtype])(x))


class Erf(_Operator):
    """The one of onnx rounds to float32."""

    def _run(self, x: Array) -> tuple[Array]:
        return (_erf(x),)


class Gelu(_Operator):
    """The one of onnx is made of its Erf."""

    def _run(self, x: Array, approximate: str) -> tuple[Array]:
        if approximate == "tanh":
            normal = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        else:
            normal = _erf(x / math.sqrt(2))
        return ((x * (1 + normal) / 2).astype(x.dtype),)


class Mean(_Operator):
    """The one of onnx does not broadcast its first operand."""

    def _run(self, *operands: Array) -> tuple[Array]:
        return (sum(operands[1:], operands[0]) / operands[0].dtype.type(len(operands)),)


class LRN(_Operator):
    """The one of onnx goes over as many channels as there are images."""

    def _run(self, x: Array, alpha: float, beta: float, bias: float, size: int) -> tuple[Array]:
        total = np.zeros_like(x)
        for channel in range(x.shape[1]):
            first = max(0, channel - (size - 1) // 2)
            last = channel + size - 1 - (size - 1) // 2
            total[:, channel] = (x[:, first : last + 1] ** 2).sum(axis=1)
        return ((x / (bias + alpha / size * total) ** beta).astype(x.dtype),)


class Softmax(_Operator):
    """The one of onnx takes opset 13's meaning of `axis` for all opsets."""

    def _run(self, x: Array, axis: int) -> tuple[Array]:
        return (np.exp(_log_softmax(self, x)).astype(x.dtype),)


class LogSoftmax(_Operator):
    """See Softmax."""

    def _run(self, x: Array, axis: int) -> tuple[Array]:
        return (_log_softmax(self, x).astype(x.dtype),)


def _log_softmax(operator: _Operator, x: Array) -> Array:
    if operator.opset >= 13:
        axes: tuple[int, ...] = (operator.given("axis", -1),)
    else:
        axes = tuple(range(operator.given("axis", 1) % x.ndim, x.ndim))
    x = x - x.max(axis=axes, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=axes, keepdims=True)))


class Hardmax(_Operator):
    """See Softmax."""

    def _run(self, x: Array, axis: int) -> tuple[Array]:
        axis = self.given("axis", -1 if self.opset >= 13 else 1) % x.ndim
        rows = np.moveaxis(x, axis, -1) if self.opset >= 13 else x
        lead = rows.shape[:axis] if self.opset < 13 else rows.shape[:-1]
        flat = rows.reshape(math.prod(lead), -1)
        hit = np.eye(flat.shape[1], dtype=x.dtype)[flat.argmax(axis=1)].reshape(rows.shape)
        return (np.moveaxis(hit, -1, axis) if self.opset >= 13 else hit,)


class BatchNormalization(_Operator):
    """The one of onnx is in training mode before opset 14."""

    def _run(
        self, x: Array, scale: Array, bias: Array, mean: Array, variance: Array, **_: Any
    ) -> Any:
        factor = scale / np.sqrt(variance + self.given("epsilon", 1e-5))
        shift = bias - mean * factor
        if self.given("spatial", 1):
            along = [1, -1, *[1] * (x.ndim - 2)] if x.ndim > 1 else [-1]
            factor, shift = factor.reshape(along), shift.reshape(along)
        return ((x * factor + shift).astype(x.dtype),)


class GroupNormalization(_Operator):
    """The one of onnx rounds to float32."""

    def _run(self, x: Array, scale: Array, bias: Array, **_: Any) -> tuple[Array]:
        grouped = x.reshape(x.shape[0], self.given("num_groups", 0), -1)
        mean, variance = (f(grouped, axis=2, keepdims=True) for f in (np.mean, np.var))
        normal = (grouped - mean) / np.sqrt(variance + self.given("epsilon", 1e-5))
        if self.opset < 21:
            y = (normal * scale[:, None] + bias[:, None]).reshape(x.shape)
        else:
            along = [-1] + [1] * (x.ndim - 2)
            y = normal.reshape(x.shape) * scale.reshape(along) + bias.reshape(along)
        return (y.astype(x.dtype),)


class MeanVarianceNormalization(_Operator):
    """The one of onnx has a constant of type float32."""

    def _run(self, x: Array, axes: Sequence[int]) -> tuple[Array]:
        over = tuple(self.given("axes", [0, 2, 3]))
        mean, deviation = (f(x, axis=over, keepdims=True) for f in (np.mean, np.std))
        return (((x - mean) / (deviation + 1e-9)).astype(x.dtype),)


class LpNormalization(_Operator):
    """The one of onnx adds without absolute values."""

    def _run(self, x: Array, **_: Any) -> tuple[Array]:
        order, axis = self.given("p", 2), self.given("axis", -1)
        length = np.linalg.norm(x, order, axis, keepdims=True)
        return ((x / np.where(length == 0, 1, length)).astype(x.dtype),)


class GlobalLpPool(_Operator):
    """Onnx has none."""

    def _run(self, x: Array, **_: Any) -> tuple[Array]:
        order = self.given("p", 2)
        total = (np.abs(x) ** order).sum(axis=tuple(range(2, x.ndim)), keepdims=True)
        return ((total ** (1 / order)).astype(x.dtype),)


class GlobalMaxPool(_Operator):
    """The one of onnx fails for other ranks than 4."""

    def _run(self, x: Array) -> tuple[Array]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


# -- windows -----------------------------------------------------------------------------------


def _windows(operator: _Operator, x: Array, kernel: Sequence[int]) -> tuple[Array, Array]:
    """Return the values under each window, ``(N, C, *out, *kernel)``, zero outside of x.

    And a mask of the shape ``(*out, *kernel)``: 2 inside of x, 1 in the padding asked for, else 0.
    """
    rank = len(kernel)
    strides = operator.given("strides", [1] * rank)
    dilations = operator.given("dilations", [1] * rank)
    pads = operator.given("pads", [0] * (2 * rank))
    auto_pad = operator.given("auto_pad", "NOTSET")
    mask = np.full([1] * (2 * rank), 2)
    values = x
    for i in range(rank):
        size, reach = x.shape[2 + i], dilations[i] * (kernel[i] - 1)
        begin, end = (pads[i], pads[rank + i]) if auto_pad == "NOTSET" else (0, 0)
        if auto_pad.startswith("SAME"):
            count = math.ceil(size / strides[i])
            total = max(0, (count - 1) * strides[i] + reach + 1 - size)
            begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            end = total - begin
        elif operator.given("ceil_mode", 0):
            count = math.ceil((size + begin + end - reach - 1) / strides[i]) + 1
            if (count - 1) * strides[i] >= size + begin:
                count -= 1
        else:
            count = (size + begin + end - reach - 1) // strides[i] + 1
        offsets = np.arange(kernel[i]) * dilations[i]
        places = np.arange(count)[:, None] * strides[i] - begin + offsets
        inside = (places >= 0) & (places < size)
        # axis 2 + i becomes the windows, the last axis the places in a window
        taken = np.take(values, np.clip(places, 0, size - 1), axis=2 + i)
        values = np.moveaxis(
            np.where(inside.reshape(_along(i, taken.ndim, places)), taken, 0), 3 + i, -1
        )
        kind = inside.astype(int) + ((places >= -begin) & (places < size + end))
        shape = [1] * (2 * rank)
        shape[i], shape[rank + i] = places.shape
        mask = np.minimum(mask, kind.reshape(shape))
    return values, mask


def _along(i: int, ndim: int, places: Array) -> list[int]:
    shape = [1] * ndim
    shape[2 + i], shape[3 + i] = places.shape
    return shape


class Conv(_Operator):
    """The one of onnx mixes groups."""

    def _run(self, x: Array, weight: Array, bias: Array | None = None, **_: Any) -> tuple[Array]:
        group, rank = self.given("group", 1), weight.ndim - 2
        values, _mask = _windows(self, x, weight.shape[2:])
        parts = []
        for part, w in zip(np.split(values, group, axis=1), np.split(weight, group), strict=True):
            axes = range(2 + rank, 2 + 2 * rank)
            product = np.tensordot(part, w, axes=([1, *axes], range(1, 2 + rank)))
            parts.append(np.moveaxis(product, -1, 1))
        y = np.concatenate(parts, axis=1)
        if bias is not None:
            y = y + bias.reshape([1, -1] + [1] * rank)
        return (y.astype(x.dtype),)


class MaxPool(_Operator):
    """The one of onnx rounds and pads in ways of its own."""

    def _run(self, x: Array, **_: Any) -> Any:
        kernel = self.given("kernel_shape", None)
        values, mask = _windows(self, x, kernel)
        y = np.where(mask == 2, values, -np.inf).max(axis=_last(kernel)).astype(x.dtype)
        if len(self.onnx_node.output) == 1:
            return (y,)
        numbers, _mask = _windows(self, np.arange(x.size).reshape(x.shape), kernel)
        hit = (values == y[(..., *[None] * len(kernel))]) & (mask == 2)
        return y, np.where(hit, numbers, x.size).min(axis=_last(kernel))


class AveragePool(_Operator):
    """See MaxPool."""

    def _run(self, x: Array, **_: Any) -> tuple[Array]:
        kernel = self.given("kernel_shape", None)
        values, mask = _windows(self, x, kernel)
        counted = mask >= (1 if self.given("count_include_pad", 0) else 2)
        total = values.sum(axis=_last(kernel))
        return ((total / counted.sum(axis=_last(kernel))).astype(x.dtype),)


class LpPool(_Operator):
    """See MaxPool; it adds without absolute values, too."""

    def _run(self, x: Array, **_: Any) -> tuple[Array]:
        kernel, order = self.given("kernel_shape", None), self.given("p", 2)
        values, _mask = _windows(self, x, kernel)
        total = (np.abs(values) ** order).sum(axis=_last(kernel))
        return ((total ** (1 / order)).astype(x.dtype),)


def _last(kernel: Sequence[int]) -> tuple[int, ...]:
    return tuple(range(-len(kernel), 0))


CORRECTED: list[type[OpRun]] = [
    *LAYOUT,
    AveragePool,
    BatchNormalization,
    Conv,
    Erf,
    Gelu,
    GlobalLpPool,
    GlobalMaxPool,
    GroupNormalization,
    Hardmax,
    LRN,
    LogSoftmax,
    LpNormalization,
    LpPool,
    MaxPool,
    Mean,
    MeanVarianceNormalization,
    Softmax,
]


def evaluator(model: ModelProto) -> ReferenceEvaluator:
    """Return the reference implementation of a model, corrected."""
    return ReferenceEvaluator(model, new_ops=CORRECTED)
