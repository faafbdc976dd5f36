"""The CAM methods as ONNX nodes, one function each, equal to those of `onnx_gradcam.cam.methods`.

A is float32 ``(N, C, *spatial)``, G ``(N, C, *spatial)`` or, for T classes of an image,
``(N, T, C, *spatial)``. A raw map is ``(N, 1, *spatial)`` or ``(N, T, *spatial)``. The docstrings
say where a formula is written in another way than in NumPy; the result is the same to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from onnx_gradcam.gradients.emitter import Dim, Emitter
from onnx_gradcam.gradients.reduction import reduced
from onnx_gradcam.gradients.sizes import product_of, reshape, size_of, sizes_of

UNIFORM = 1e-4
"""Largest difference of G between positions, relative to its largest value, that method ``cam``
takes for a head of global average pooling; as in `onnx_gradcam.cam.methods`."""


class Site:
    """A and G, and what the formulas do with them.

    Args:
        emit: where to write nodes.
        activations: A, float32 ``(N, C, *spatial)``.
        gradients: G, float32 ``(N, C, *spatial)`` or ``(N, T, C, *spatial)``.
        shape: that of A, as far as it is known.
        classes: whether G has the axis T.
        spread: G before it was spread over the positions, ``(N, [T,] C, 1, ...)``, where every
            position has the same gradient.
    """

    def __init__(
        self,
        emit: Emitter,
        activations: str,
        gradients: str,
        shape: Sequence[Dim],
        *,
        classes: bool = False,
        spread: str | None = None,
    ) -> None:
        """Emit nothing yet."""
        self.emit = emit
        self.gradients = gradients
        self.spread = spread
        self._activations = activations
        self._classes = classes
        self._axes = range(2, len(shape))
        self.space = [axis + classes for axis in self._axes]
        """The spatial axes of G and of products with it."""
        emit.declare(activations, emit.dtype(activations), shape)

    @cached_property
    def activations(self) -> str:
        """A, shaped to go with G."""
        return self.emit.unsqueeze(self._activations, [1]) if self._classes else self._activations

    @property
    def mean_gradients(self) -> str:
        """The mean of G over the positions, ``(N, [T,] C, 1, ...)``."""
        return self.spread or self.emit.reduce_mean(self.gradients, self.space)

    @property
    def positions(self) -> str:
        """The number of positions Z, float32 ``()`` or ``(1,)``."""
        count = product_of(sizes_of(self.emit, self._activations, self._axes))
        if isinstance(count, int):
            return self.emit.constant(np.array(count, np.float32))
        return self.emit.cast(count.name, self.emit.dtype(self._activations))

    def sum_over_space(self, values: str) -> str:
        """Return the sum over the positions, ``(N, [T,] C, 1, ...)``."""
        return self.emit.reduce_sum(values, self.space)

    def sum_over_channels(self, summands: str) -> str:
        """Return the raw map of summands ``(N, [T,] C, *spatial)``."""
        return self.emit.reduce_sum(summands, [1 + self._classes], keepdims=not self._classes)

    def weighted_sum(self, weights: str) -> str:
        """Return the raw map sum_k w_k A^k of weights ``(N, [T,] C, 1, ...)``.

        As a product of matrices: half the time of a product and a sum, and no array of A's size.
        """
        emit, known = self.emit, emit_shape(self.emit, self._activations)
        channels = known[1] if isinstance(known[1], int) else 0
        rows = emit.reshape(weights, [0, 0 if self._classes else 1, -1])
        columns = emit.reshape(self._activations, [0, channels, -1])
        extents = [size_of(emit, self._activations, axis) for axis in self._axes]
        return reshape(emit, emit.matmul(rows, columns), [0, 0 if self._classes else 1, *extents])

    def relu(self, values: str) -> str:
        """Return the positive values, 0 in place of others."""
        return self.emit.unary("Relu", values)


def emit_shape(emit: Emitter, name: str) -> tuple[Dim, ...]:
    """Return a shape that was declared."""
    shape = emit.shape(name)
    assert shape is not None, "Site declares it"
    return shape


def _gradcam(site: Site) -> str:
    """sum_k mean(G^k) A^k."""
    return site.weighted_sum(site.mean_gradients)


def _gradcam_plus_plus(site: Site) -> str:
    """sum_k w_k A^k with w_k = sum relu(G) a, a = G^2 / (2 G^2 + (sum A^k) G^3 + 1e-6).

    With relu(G) in place of G throughout: where G is not positive, its summand is 0.
    """
    emit, positive = site.emit, site.relu(site.gradients)
    squared = emit.mul(positive, positive)
    total = site.sum_over_space(site.activations)
    below = emit.add(emit.mul(squared, 2.0), emit.mul(emit.mul(squared, positive), total))
    a = emit.div(squared, emit.add(below, 1e-6))
    return site.weighted_sum(site.sum_over_space(emit.mul(positive, a)))


def _hirescam(site: Site) -> str:
    """sum_k G^k * A^k."""
    if site.spread:
        return site.weighted_sum(site.spread)
    return site.sum_over_channels(site.emit.mul(site.gradients, site.activations))


def _gradcam_elementwise(site: Site) -> str:
    """sum_k relu(G^k * A^k)."""
    return site.sum_over_channels(site.relu(site.emit.mul(site.gradients, site.activations)))


def _layercam(site: Site) -> str:
    """sum_k relu(G^k) * A^k."""
    if site.spread:
        return site.weighted_sum(site.relu(site.spread))
    return site.sum_over_channels(site.emit.mul(site.relu(site.gradients), site.activations))


def _xgradcam(site: Site) -> str:
    """sum_k w_k A^k with w_k = sum(G^k * A^k) / (sum A^k + 1e-7), divided after the sum."""
    emit = site.emit
    total = emit.add(site.sum_over_space(site.activations), 1e-7)
    product = site.sum_over_space(emit.mul(site.gradients, site.activations))
    return site.weighted_sum(emit.div(product, total))


def _cam(site: Site) -> str:
    """sum_k w_k A^k with w_k = Z mean(G^k); NaN where the gradient differs between positions."""
    emit = site.emit
    raw = site.weighted_sum(emit.mul(site.mean_gradients, site.positions))
    if site.spread:
        return raw
    channel = [site.space[0] - 1]
    low, high = (reduced(emit, op, site.gradients, site.space) for op in ("ReduceMin", "ReduceMax"))
    largest = emit.unary("Abs", site.gradients)
    for axes in (site.space, channel):
        largest = reduced(emit, "ReduceMax", largest, axes)
    spread = reduced(emit, "ReduceMax", emit.sub(high, low), channel)
    differs = emit.greater(spread, emit.mul(largest, UNIFORM))
    none = emit.sub(1.0, emit.cast(differs, emit.dtype(raw)))  # 0/0 is NaN
    poison = emit.add(emit.div(none, none), -1.0)
    if site.space[0] > 2:  # the axis of classes takes that of the channels
        poison = emit.squeeze(poison, channel)
    return emit.add(raw, poison)


FUSABLE: dict[str, Callable[[Site], str]] = {
    "gradcam": _gradcam,
    "gradcam++": _gradcam_plus_plus,
    "hirescam": _hirescam,
    "gradcamelementwise": _gradcam_elementwise,
    "layercam": _layercam,
    "xgradcam": _xgradcam,
    "cam": _cam,
}
"""The methods that can be computed in the graph: those of plain tensor algebra."""
