"""Tensors that by-pass the target layer, for any number of changed maps.

The head runs on other batches than the trunk: 32 changed maps of one image. What by-passes A on its
way there (residuals, masks, position biases, sizes of the batch) must suit that batch. How a tensor
depends on the batch is measured: the trunk runs on an image, on another one, and on both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam.runs import Rows

Array = NDArray[Any]
Values = Mapping[str, Array]

_ROUNDING = 1e-3
_HALF_ROUNDING = 3e-2
"""By how much a value may differ with the size of the batch, relative to the largest."""


class Dependence(Protocol):
    """How a tensor depends on the batch."""

    def of(self, value: Array | None, rows: Rows) -> Array:
        """Return the tensor for a batch made of some images, from its value for all of them."""
        ...


@dataclass(frozen=True)
class PerImage:
    """A tensor that holds the same number of rows for each image, one image after the other.

    Attributes:
        axis: the axis of the rows.
        rows: how many an image has.
    """

    axis: int
    rows: int

    def of(self, value: Array | None, rows: Rows) -> Array:
        """Return the rows of some images."""
        assert value is not None, "of such a tensor the values for all images are known"
        places = rows[:, None] * self.rows + np.arange(self.rows)
        return value.take(places.ravel(), self.axis)


@dataclass(frozen=True, eq=False)
class OfTheSize:
    """A tensor that depends on the number of images alone, linearly; mostly not at all.

    Attributes:
        one: its value for one image.
        step: what each further image adds.
    """

    one: Array
    step: Array | None

    def of(self, value: Array | None, rows: Rows) -> Array:
        """Return the value for as many images as there are rows."""
        del value
        if self.step is None:
            return self.one
        return np.asarray(self.one + self.step * (len(rows) - 1), self.one.dtype)


@dataclass(frozen=True, eq=False)
class OfThePlace:
    """A tensor with rows for each image that depend on its number in the batch alone, linearly.

    Such are indices into a tensor in which the batch is flattened.

    Attributes:
        axis: the axis of the rows.
        first: the rows of the first image.
        step: what each further image adds.
    """

    axis: int
    first: Array
    step: Array

    def of(self, value: Array | None, rows: Rows) -> Array:
        """Return the value for as many images as there are rows."""
        del value
        each = [self.first + number * self.step for number in range(len(rows))]
        return np.concatenate(each, self.axis).astype(self.first.dtype, copy=False)


def measure(alone: Values, other: Values, both: Values) -> dict[str, Dependence] | None:
    """Return how tensors depend on the batch; None where one of them does otherwise.

    Args:
        alone: their values for an image.
        other: for an image with other content.
        both: for the batch of the two.
    """
    found: dict[str, Dependence] = {}
    for name, value in alone.items():
        dependence = _dependence(value, other[name], both[name])
        if dependence is None:
            return None
        found[name] = dependence
    return found


def _dependence(alone: Array, other: Array, both: Array) -> Dependence | None:
    if alone.shape != other.shape or alone.ndim != both.ndim:
        return None
    if alone.shape == both.shape:
        if _equal(alone, other) and _equal(alone, both):
            return OfTheSize(alone, None)
        if alone.dtype == np.bool_ or not np.array_equal(alone, other):
            return None
        return OfTheSize(alone, both - alone)
    grown = [axis for axis in range(both.ndim) if both.shape[axis] != alone.shape[axis]]
    if len(grown) != 1 or both.shape[grown[0]] != 2 * alone.shape[grown[0]]:
        return None
    (axis,) = grown
    if _equal(np.concatenate([alone, other], axis), both):
        return PerImage(axis, alone.shape[axis])
    first, second = np.split(both, 2, axis)
    if alone.dtype == np.bool_ or not (np.array_equal(alone, other) and _equal(alone, first)):
        return None
    return OfThePlace(axis, alone, second - alone)


def _equal(expected: Array, found: Array) -> bool:
    if expected.shape != found.shape or expected.dtype.kind != "f":
        return np.array_equal(expected, found)
    tolerance = _HALF_ROUNDING if expected.dtype == np.float16 else _ROUNDING
    largest = float(np.abs(expected).max(initial=0, where=np.isfinite(expected)))
    return np.allclose(found, expected, rtol=0, atol=tolerance * largest, equal_nan=True)


def another_image(image: Array, width: int) -> Array:
    """Return an image with other content than this one, also where this one is of one colour.

    Args:
        image: ``(1, ...)``, in the model's own layout and type.
        width: the axis of the columns.
    """
    shape = [1] * image.ndim
    shape[width] = -1
    ramp = np.linspace(0, 1, image.shape[width], dtype=np.float32).reshape(shape)
    whole = image.dtype.kind in "iu"
    largest = float(np.abs(image.astype(np.float32)).max(initial=0)) or (100.0 if whole else 1.0)
    mixed = np.float32(0.5) * np.flip(image, width).astype(np.float32)
    mixed = mixed + np.float32(0.5 * largest) * ramp
    return np.asarray(mixed.round() if whole else mixed).astype(image.dtype)


class Boundary(Protocol):
    """The tensors for any batch of changed maps.

    Attributes:
        step: the only size of a batch, which must be of one image; None where any goes.
    """

    step: int | None

    def of(self, rows: Rows) -> dict[str, Array]:
        """Return the tensors for a batch made of some images."""
        ...


class ByRows:
    """The tensors for batches of any images, taken out of their values for all of them."""

    def __init__(self, dependences: Mapping[str, Dependence], values: Values) -> None:
        """Take how the tensors depend on the batch, and what they are for all images."""
        self._dependences, self._values = dependences, values
        self.step: int | None = None

    def of(self, rows: Rows) -> dict[str, Array]:
        """Return the tensors for a batch made of some images."""
        return {n: d.of(self._values.get(n), rows) for n, d in self._dependences.items()}


class ByCopies:
    """The tensors for batches of one size, each of one image: the trunk runs on copies of it.

    Attributes:
        step: the size of the batches.
    """

    def __init__(self, run: Callable[[Rows], dict[str, Array]], step: int) -> None:
        """Take what runs the trunk on some images."""
        self._run, self._copies = run, step
        self.step: int | None = step
        self._last: tuple[int, dict[str, Array]] | None = None

    def of(self, rows: Rows) -> dict[str, Array]:
        """Return the tensors for a batch of copies of one image."""
        image = int(rows[0])
        if self._last is None or self._last[0] != image:
            self._last = image, self._run(np.full(self._copies, image))
        return dict(self._last[1])
