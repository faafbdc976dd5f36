"""Which elements of a tensor can be reached by a change of certain elements of another one.

With class-token pooling the patch tokens behind the last attention reach no score: their gradient
is zero, and a heat map of them empty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_gradcam.export.spatial.fields import Field, Shape
from onnx_gradcam.export.spatial.tracking import Fields


class Reach:
    """The kind of fields: True where an element is reached."""

    blank = False

    def combine(self, operands: Sequence[Fields]) -> Fields:
        """Return whether any operand is reached."""
        return (_any([fields[0] for fields in operands]),)

    def reduce(self, fields: Fields, axes: Sequence[int]) -> Fields:
        """Return whether any of the reduced elements is reached."""
        return (np.asarray(fields[0].any(axis=tuple(axes), keepdims=True)),)

    def product(self, rows: Fields | None, columns: Fields | None) -> Fields | None:
        """Return whether any in the row or the column is reached."""
        return (_any([side[0] for side in (rows, columns) if side is not None]),)

    def normalise(self, fields: Fields, axes: Sequence[int]) -> Fields:
        """Return whether any of those normalised together is reached."""
        return self.reduce(fields, axes)

    def convolve(self, fields: Fields, shape: Shape, result: Shape) -> Fields | None:
        """Return whether any at all is reached; which windows does not matter here."""
        return self.other([fields], [shape], result)

    def other(
        self, operands: Sequence[Fields], shapes: Sequence[Shape], result: Shape
    ) -> Fields | None:
        """Return whether any at all is reached."""
        reached = any(fields[0].any() for fields in operands)
        return (np.full((1,) * len(result), reached),)


def _any(fields: Sequence[Field]) -> Field:
    result = fields[0]
    for other in fields[1:]:
        result = np.logical_or(result, other)
    return result
