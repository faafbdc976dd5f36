"""Operators that move or resize, which ONNX's reference implementation (onnx 1.23) gets wrong.

See `operators`. Sources: ONNX operator specifications; for the arithmetic of Resize,
onnxruntime's documentation of coordinates in float32 (they decide what is nearest).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_resize import Resize as _OnnxResize

from onnx_gradcam.export.reference.base import Array, Operator


class Pad(Operator):
    """The one of onnx cannot crop."""

    def _run(self, x: Array, *inputs: Array | None, **_: Any) -> tuple[Array]:
        pads, value = self.given("pads", None), self.given("value", 0.0)
        axes = list(range(x.ndim))
        if self.opset >= 11:
            pads, given, among = (*inputs, None, None)[:3]
            value = 0.0 if given is None else given
            axes = axes if among is None else [int(a) for a in among]
        before, after = np.asarray(pads).reshape(2, -1)
        width = [(0, 0)] * x.ndim
        for axis, *both in zip(axes, before, after, strict=True):
            width[axis] = (int(both[0]), int(both[1]))
        crop = tuple(slice(max(0, -a), x.shape[i] - max(0, -b)) for i, (a, b) in enumerate(width))
        grown: Any = [(max(0, a), max(0, b)) for a, b in width]
        mode = self.given("mode", "constant")
        more = {"constant_values": x.dtype.type(value)} if mode == "constant" else {}
        return (np.pad(x[crop], grown, mode=mode, **more),)


class GatherElements(Operator):
    """The one of onnx wants indices of the size of the data along the other axes."""

    def _run(self, x: Array, index: Array, **_: Any) -> tuple[Array]:
        axis = self.given("axis", 0) % x.ndim
        return (np.take_along_axis(x[_corner(index, axis)], index, axis),)


class Scatter(Operator):
    """The one of opset 9, which onnx lacks."""

    def _run(self, x: Array, index: Array, updates: Array, **_: Any) -> tuple[Array]:
        axis, y = self.given("axis", 0) % x.ndim, x.copy()
        np.put_along_axis(y[_corner(index, axis)], index, updates, axis)
        return (y,)


def _corner(index: Array, axis: int) -> tuple[slice, ...]:
    return tuple(slice(None) if a == axis else slice(n) for a, n in enumerate(index.shape))


# -- transposed convolution ----------------------------------------------------------------------


class ConvTranspose(Operator):
    """The one of onnx mixes groups."""

    def _run(self, x: Array, weight: Array, bias: Array | None = None, **_: Any) -> tuple[Array]:
        rank, group = weight.ndim - 2, self.given("group", 1)
        strides, dilations = (self.given(n, [1] * rank) for n in ("strides", "dilations"))
        pads = self.given("pads", [0] * (2 * rank))
        extra = self.given("output_padding", [0] * rank)
        auto = self.given("auto_pad", "NOTSET")
        kernel = weight.shape[2:]
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        full = [(n - 1) * s + w for n, s, w in zip(x.shape[2:], strides, spans, strict=True)]
        ends = [n + e for n, e in zip(full, extra, strict=True)]
        shape = self.given("output_shape", None)
        if shape is None and auto.startswith("SAME"):
            shape = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
        if shape:
            total = [n - wanted for n, wanted in zip(ends, shape[-rank:], strict=True)]
            small, large = [t // 2 for t in total], [t - t // 2 for t in total]
            pads = small + large if auto == "SAME_UPPER" else large + small
        size = [max(full[i], ends[i] - pads[rank + i]) for i in range(rank)]
        parts = zip(np.split(x, group, axis=1), np.split(weight, group), strict=True)
        y = np.concatenate([_scatter(a, w, strides, dilations, size) for a, w in parts], axis=1)
        for i in range(rank):
            y = y.take(np.arange(pads[i], ends[i] - pads[rank + i]), axis=2 + i)
        return ((y if bias is None else y + bias.reshape([1, -1] + [1] * rank)).astype(x.dtype),)


def _scatter(
    x: Array, weight: Array, strides: list[int], dilations: list[int], size: list[int]
) -> Array:
    """Return the sum of a copy of the kernel per element of x, ``(N, M, *size)``."""
    y = np.zeros((x.shape[0], weight.shape[1], *size))
    for offset in np.ndindex(*weight.shape[2:]):
        place = tuple(
            slice(k * d, k * d + (n - 1) * s + 1, s)
            for k, d, s, n in zip(offset, dilations, strides, x.shape[2:], strict=True)
        )
        tap = weight[(slice(None), slice(None), *offset)]
        y[(slice(None),) * 2 + place] += np.moveaxis(np.tensordot(x, tap, axes=(1, 0)), -1, 1)
    return y


# -- resizing ------------------------------------------------------------------------------------


class Upsample(Operator):
    """The one of onnx has neither the form of opset 7 nor all modes."""

    def _run(self, x: Array, scales: Array | None = None, **_: Any) -> tuple[Array]:
        factors = self.given("scales", None) if scales is None else scales
        mode = self.given("mode", "nearest")
        return (_resized(x, _asymmetric(factors, x), mode, "floor"),)


class Resize(Operator):
    """The one of onnx has no form of opset 10 or of other axes, and its own idea of nearest."""

    def _run(self, x: Array, *inputs: Array | None, **attributes: Any) -> tuple[Array]:
        mode = self.given("mode", "nearest")
        if self.opset < 11:
            assert inputs[0] is not None
            return (_resized(x, _asymmetric(inputs[0], x), mode, "floor"),)
        roi, scales, sizes = (*inputs, None, None, None)[:3]
        if self.given("antialias", 0):
            run: Any = _OnnxResize._run
            result = run(self, x, roi, scales, sizes, **attributes)
            return (np.asarray(result[0]),)
        assert self.given("keep_aspect_ratio_policy", "stretch") == "stretch"
        axes = [a % x.ndim for a in self.given("axes", None) or range(x.ndim)]
        transformation = self.given("coordinate_transformation_mode", "half_pixel")
        regions = np.zeros(0) if roi is None else np.asarray(roi)
        positions: dict[int, Array] = {}
        for i, axis in enumerate(axes):
            length = x.shape[axis]
            crop = transformation == "tf_crop_and_resize"
            start, end = regions.reshape(2, -1)[:, i] if crop else (0.0, 1.0)
            if scales is not None and scales.size:
                scale = np.float32(scales[i])
                count = math.floor(np.float32(length) * scale)
            else:
                assert sizes is not None
                count = int(sizes[i])
                scale = np.float32(count) / np.float32(length)
            if scale != 1:  # else onnxruntime copies, whatever the region
                positions[axis] = _coordinates(
                    transformation, count, length, scale, np.float32(start), np.float32(end)
                )
        cubic = self.given("cubic_coeff_a", -0.75), bool(self.given("exclude_outside", 0))
        rounding = self.given("nearest_mode", "round_prefer_floor")
        y = _resized(x, positions, mode, rounding, *cubic)
        if transformation == "tf_crop_and_resize":
            value = self.given("extrapolation_value", 0.0)
            for axis, places in positions.items():
                outside = (places < 0) | (places > x.shape[axis] - 1)
                y[(slice(None),) * axis + (outside,)] = value
        return (y,)


def _asymmetric(scales: Any, x: Array) -> dict[int, Array]:
    result = {}
    for axis, scale in enumerate(np.asarray(scales, np.float32)):
        if scale != 1:
            count = math.floor(np.float32(x.shape[axis]) * scale)
            result[axis] = _coordinates("asymmetric", count, x.shape[axis], scale)
    return result


def _coordinates(
    transformation: str,
    count: int,
    length: int,
    scale: Any,
    start: Any = np.float32(0),  # noqa: B008 - immutable
    end: Any = np.float32(1),  # noqa: B008
) -> Array:
    """Return where in the input each output lies, in the float32 arithmetic of onnxruntime."""
    o, half = np.arange(count, dtype=np.float32), np.float32(0.5)
    last, last_out = np.float32(length - 1), np.float32(count - 1)
    centre = (o + half) / scale - half
    if transformation == "asymmetric":
        return np.asarray(o / scale)
    if transformation == "tf_half_pixel_for_nn":
        return np.asarray((o + half) / scale)
    if transformation == "align_corners":
        return np.asarray(o * last / last_out if count > 1 else o)
    if transformation == "pytorch_half_pixel":
        return np.asarray(centre if count > 1 else np.zeros_like(o))
    if transformation == "half_pixel_symmetric":
        adjustment = np.float32(count) / (scale * np.float32(length))
        return np.asarray(np.float32(length) / 2 * (1 - adjustment) + centre)
    if transformation == "tf_crop_and_resize":
        if count > 1:
            return np.asarray(start * last + o * (end - start) * last / last_out)
        return np.asarray(half * (start + end) * last + o)
    assert transformation == "half_pixel", transformation
    return np.asarray(centre)


_ROUNDINGS: dict[str, Any] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
}


def _resized(
    x: Array,
    positions: dict[int, Array],
    mode: str,
    rounding: str,
    cubic: float = -0.75,
    exclude: bool = False,
) -> Array:
    """Return x with some axes resampled at positions."""
    y = x
    for axis, places in positions.items():
        length = x.shape[axis]
        if mode == "nearest":
            nearest = np.clip(_ROUNDINGS[rounding](places), 0, length - 1)
            y = np.take(y, nearest.astype(int), axis)
            continue
        matrix = np.zeros((len(places), length))
        for o, place in enumerate(places.astype(float)):
            for i, weight in _weights(mode, place, length, cubic, exclude):
                matrix[o, min(max(i, 0), length - 1)] += weight
        y = np.moveaxis(np.tensordot(y, matrix, axes=(axis, 1)), -1, axis)
    return np.array(y, dtype=x.dtype)


def _weights(
    mode: str, place: float, length: int, cubic: float, exclude: bool
) -> Sequence[tuple[int, float]]:
    """Return the inputs that an output is made of, and how much of each."""
    if mode == "linear":
        place = min(max(place, 0.0), length - 1.0)
        low = math.floor(place)
        return [(low, low + 1 - place), (low + 1, place - low)]
    low = math.floor(place)
    taken = [(i, _cubic(abs(place - i), cubic)) for i in range(low - 1, low + 3)]
    if exclude:
        taken = [(i, weight) for i, weight in taken if 0 <= i < length]
        total = sum(weight for _, weight in taken)
        taken = [(i, weight / total) for i, weight in taken]
    return taken


def _cubic(distance: float, a: float) -> float:
    """Return the kernel of cubic convolution (Keys, 1981)."""
    d = distance
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


LAYOUT: list[type[OpRun]] = [ConvTranspose, GatherElements, Pad, Resize, Scatter, Upsample]
