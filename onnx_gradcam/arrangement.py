"""How a layer's axes make up a feature map ``(N, C, *spatial)``: what export and runtime share.

`Arrangement` moves arrays between the layout of the graph and channels-first maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.contract import ExportMetadata, LayerMetadata

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Arrangement:
    """The axes of a tensor, and where its rows lie.

    Attributes:
        layout: one letter per axis: ``N``, ``C``, spatial letters; ``T`` for tokens, ``B`` for an
            axis that holds batch and windows.
        grid: ``(h, w)`` for tokens, empty where every spatial axis is an axis of the tensor.
        order: for tokens: the row of each cell of the grid, among the rows of one image.
        rows: for tokens: rows per image, those without a place included.
        source: for tokens whose number depends on the size of the image: the map that has their
            grid as its spatial axes; `grid`, `order` and `rows` are then an example.
        source_layout: axes of that map.
    """

    layout: str
    grid: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    rows: int = 0
    source: str = ""
    source_layout: str = ""

    @property
    def channel(self) -> int:
        """The axis of the channels."""
        return self.layout.index("C")

    @property
    def is_contiguous(self) -> bool:
        """Whether the cells of the grid are consecutive rows in their order."""
        start = self.order[0]
        return self.order == tuple(range(start, start + len(self.order)))

    @property
    def has_other_rows(self) -> bool:
        """Whether there are rows without a place: class, distillation or register tokens."""
        return self.rows > len(self.order)

    def channels_first(self) -> list[int]:
        """Return the axes in the order batch, channels, spatial; for maps only."""
        rest = [i for i, letter in enumerate(self.layout) if letter not in "NC"]
        return [self.layout.index("N"), self.channel, *rest]

    def channels_last(self) -> list[int]:
        """Return the axes with the channels moved to the end; for tokens."""
        rest = [i for i in range(len(self.layout)) if i != self.channel]
        return [*rest, self.channel]

    @property
    def source_axes(self) -> list[int]:
        """The spatial axes of the source."""
        return [i for i, letter in enumerate(self.source_layout) if letter not in "NC"]

    def sized(self, source_shape: Shape) -> Arrangement:
        """Return the arrangement for a known size of the source."""
        return self.on_grid(tuple(source_shape[axis] for axis in self.source_axes))

    def on_grid(self, grid: Shape) -> Arrangement:
        """Return the arrangement for a known grid, of tokens whose number depends on the image."""
        if not self.source:
            return self
        first, behind = self.order[0], self.rows - self.order[-1] - 1
        last = first + math.prod(grid)
        return Arrangement(self.layout, grid, tuple(range(first, last)), last + behind)

    @classmethod
    def from_metadata(cls, meta: LayerMetadata | ExportMetadata) -> Arrangement:
        """Return what an exported file says of a target layer."""
        grid = tuple(meta.token_grid or ())
        order = tuple(meta.token_order)
        if len(order) == 1 < math.prod(grid):
            order = tuple(range(order[0], order[0] + math.prod(grid)))
        source = meta.token_source
        return cls(
            meta.target_layout, grid, order, meta.token_rows, source, meta.token_source_layout
        )

    @property
    def token_order(self) -> list[int]:
        """The order as the metadata hold it: the first row alone where the rows are consecutive."""
        return list(self.order[:1] if self.grid and self.is_contiguous else self.order)

    def to_metadata(self, target: str) -> LayerMetadata:
        """Return what an exported file says of the target layer that is so arranged."""
        return LayerMetadata(
            target=target,
            target_layout=self.layout,
            token_grid=list(self.grid) or None,
            token_order=self.token_order,
            token_rows=self.rows,
            token_source=self.source,
            token_source_layout=self.source_layout,
        )

    def to_map(self, tensor: Array) -> Array:
        """Return a value of the tensor as ``(N, C, *spatial)``."""
        if not self.grid:
            return tensor.transpose(self.channels_first())
        rows = self._rows_of(tensor)[:, list(self.order)]
        return rows.transpose(0, 2, 1).reshape(rows.shape[0], rows.shape[2], *self.grid)

    def other_rows(self, tensor: Array) -> Array:
        """Return the rows without a place, ``(N, R, C)``: class, distillation, register tokens."""
        if not self.grid:
            return np.zeros((tensor.shape[0], 0, tensor.shape[self.channel]), tensor.dtype)
        return self._rows_of(tensor)[:, self._others]

    def from_map(self, values: Array, shape: Shape, other_rows: Array | None = None) -> Array:
        """Return a map in the layout of the tensor.

        Args:
            values: ``(N, C, *spatial)``.
            shape: of the tensor; only the sizes of its axes of tokens matter.
            other_rows: ``(N, R, C)``, what has no place; zero where it is not given.
        """
        if not self.grid:
            return values.transpose(np.argsort(self.channels_first()))
        rows = np.zeros((values.shape[0], self.rows, values.shape[1]), values.dtype)
        rows[:, list(self.order)] = values.reshape(*values.shape[:2], -1).transpose(0, 2, 1)
        if other_rows is not None:
            rows[:, self._others] = other_rows
        sizes = [shape[axis] for axis in self.channels_last()[1:]]
        last = rows.reshape(rows.size // math.prod(sizes), *sizes)
        return last.transpose(np.argsort(self.channels_last()))

    @property
    def _others(self) -> list[int]:
        return sorted({*range(self.rows)} - {*self.order})

    def _rows_of(self, tensor: Array) -> Array:
        """Return the rows of each image, ``(N, rows, C)``."""
        last = tensor.transpose(self.channels_last())
        return last.reshape(-1, self.rows, last.shape[-1])
