"""Inputs to try a model with: declared types and shapes in, deterministic random arrays out.

Sizes that the model leaves open are guessed; the caller tries the candidates in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_gradcam.bfloat16 import BFLOAT16
from onnx_gradcam.errors import UnsupportedModelError

Array = np.ndarray[Any, Any]

SPATIAL_SIZES = {
    1: (16000, 1024, 4000, 48000, 224, 128, 64),
    2: (224, 32, 64, 96, 128, 256, 299, 384, 28, 512),
    3: (32, 16, 64, 112, 128, 8),
}
"""Sizes tried for open axes by the number of spatial axes, the usual one first."""

CHANNEL_COUNTS = (3, 1, 4)

DTYPES = {
    "tensor(float)": np.float32,
    BFLOAT16: np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(uint16)": np.uint16,
    "tensor(int16)": np.int16,
    "tensor(uint32)": np.uint32,
    "tensor(int32)": np.int32,
    "tensor(uint64)": np.uint64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class InputSpec:
    """A required graph input as onnxruntime describes it.

    Attributes:
        name: of the input.
        type: such as ``tensor(float)``.
        shape: sizes, names of symbolic sizes, or None for unknown ones.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class ValueRange:
    """How image values are drawn: uniform in ``[low, high)``, or standard normal when both None."""

    low: float | None = None
    high: float | None = None


def value_ranges(preprocessing: Mapping[str, Any] | None) -> tuple[ValueRange, ...]:
    """Return the ranges to draw image values from, the likeliest first.

    Args:
        preprocessing: `Preprocessing.to_dict()` of the exported file, if it has one.
    """
    guesses = (ValueRange(), ValueRange(0, 255), ValueRange(0, 1))
    if preprocessing is None:
        return guesses
    mean, std = np.asarray(preprocessing["mean"]), np.asarray(preprocessing["std"])
    ends = (np.array([[0.0], [255.0]]) * preprocessing["scale"] - mean) / std
    return (ValueRange(float(ends.min()), float(ends.max())), *guesses)


def has_open_batch(specs: Sequence[InputSpec], image: str) -> bool:
    """Tell whether the first axis of the image input has no fixed size."""
    shape = next((spec.shape for spec in specs if spec.name == image), ())
    return bool(shape) and not isinstance(shape[0], int)


def candidate_shapes(
    specs: Sequence[InputSpec], image: str, batch: int, spatial_axes: int | None = None
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Yield shapes for all inputs, the most likely first.

    Args:
        specs: the required inputs.
        image: name of the image input.
        batch: size of its first axis where that is open.
        spatial_axes: how many axes are neither batch nor channels; None where that is not known.
    """
    shape = next(spec.shape for spec in specs if spec.name == image)
    seen = []
    for guess in _image_shapes(shape, batch, spatial_axes):
        symbols = {s: n for s, n in zip(shape, guess, strict=True) if isinstance(s, str) and s}
        for rows in (batch, 1):  # of inputs whose first axis has no name in common with the image
            shapes = {spec.name: _other_shape(spec.shape, symbols, rows) for spec in specs}
            shapes[image] = guess
            if shapes not in seen:
                seen.append(shapes)
                yield shapes


def _other_shape(
    shape: tuple[int | str | None, ...], symbols: Mapping[str, int], rows: int
) -> tuple[int, ...]:
    return tuple(
        size if isinstance(size, int) else symbols.get(size or "", 1 if axis else rows)
        for axis, size in enumerate(shape)
    )


def _image_shapes(
    shape: tuple[int | str | None, ...], batch: int, spatial_axes: int | None
) -> Iterator[tuple[int, ...]]:
    if not shape:
        yield ()
        return
    first = shape[0] if isinstance(shape[0], int) else batch
    rest = shape[1:]
    last_is_channels = (
        len(rest) > 1 and rest[-1] in CHANNEL_COUNTS and rest[0] not in CHANNEL_COUNTS
    )
    channel_axis = len(rest) - 1 if last_is_channels else 0
    if spatial_axes is None:
        spatial_axes = len(rest) - 1
    if len(rest) == spatial_axes:  # no axis of channels
        channel_axis = -1
    for size in SPATIAL_SIZES.get(spatial_axes, SPATIAL_SIZES[2]):
        for channels in CHANNEL_COUNTS:
            yield (
                first,
                *(
                    known
                    if isinstance(known, int)
                    else (channels if axis == channel_axis else size)
                    for axis, known in enumerate(rest)
                ),
            )


def draw(
    specs: Sequence[InputSpec],
    shapes: Mapping[str, tuple[int, ...]],
    image: str,
    values: ValueRange,
    seed: int,
) -> dict[str, Array]:
    """Return deterministic random values for all inputs.

    Raises:
        UnsupportedModelError: an input of a type that cannot be made up, such as strings.
    """
    rng = np.random.default_rng(seed)
    return {
        spec.name: _values(spec, shapes[spec.name], values if spec.name == image else None, rng)
        for spec in specs
    }


def _values(
    spec: InputSpec,
    shape: tuple[int, ...],
    values: ValueRange | None,
    rng: np.random.Generator,
) -> Array:
    if spec.type not in DTYPES:
        raise UnsupportedModelError(
            f"no values can be made up for input {spec.name!r} of type {spec.type}"
        )
    dtype = np.dtype(DTYPES[spec.type])
    if dtype.kind == "b":
        return np.ones(shape, dtype)
    if dtype.kind in "iu":
        low, high = (0, 2) if values is None else (0, 256)
        if values is not None and dtype == np.int8:
            low, high = -128, 128
        return rng.integers(low, high, size=shape).astype(dtype)
    if values is None:
        return rng.uniform(0, 1, size=shape).astype(dtype)
    if values.low is None or values.high is None:
        return rng.standard_normal(shape).astype(dtype)
    return rng.uniform(values.low, values.high, size=shape).astype(dtype)
