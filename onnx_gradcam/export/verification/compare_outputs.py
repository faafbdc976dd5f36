"""How far two runs of a model differ, output by output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

ROUNDING = {"float16": 1e-2, "float32": 1e-4, "float64": 1e-9}
"""Difference accepted as rounding, relative to the largest value of the output, by its type."""

INTEGER_STEPS = {"uint8": 2, "int8": 2}
"""Difference accepted in quantized outputs, in steps; other integers have to be equal."""


@dataclass(frozen=True)
class Difference:
    """The difference of one output.

    Attributes:
        name: of the output.
        identical: equal type, shape and bytes.
        within_rounding: the difference is explained by another order of operations.
        absolute: largest absolute difference.
        relative: the same relative to the largest absolute value.
        note: what differs beside values.
        half: half precision, which the CPU computes in float32 and rounds at every graph output:
            exposing a tensor changes the last bit of what follows even without optimisations.
    """

    name: str
    identical: bool
    within_rounding: bool
    absolute: float = 0.0
    relative: float = 0.0
    note: str = ""
    half: bool = False

    @property
    def proves_equal(self) -> bool:
        """Whether a run with optimisations off shows the same computation."""
        return self.identical or (self.half and self.within_rounding)

    def __str__(self) -> str:
        """Return one phrase for a report."""
        if self.note:
            return f"{self.name!r} {self.note}"
        return f"{self.name!r} differs by {self.absolute:.1e} (relative {self.relative:.1e})"


def compare_outputs(
    before: Mapping[str, Any], after: Mapping[str, Any], *, half: bool = False
) -> list[Difference]:
    """Return the difference of each output of `before` in `after`.

    Args:
        before: values by name.
        after: the same of another run.
        half: float32 outputs may come of half precision, and are rounded like it.
    """
    return [_difference(name, value, after.get(name), half) for name, value in before.items()]


def _difference(name: str, before: Any, after: Any, half: bool) -> Difference:
    if after is None:
        return Difference(name, False, False, note="is missing")
    if not isinstance(before, np.ndarray) or not isinstance(after, np.ndarray):
        equal = repr(before) == repr(after)  # sequences and maps of classic classifiers
        return Difference(name, equal, equal, note="" if equal else "differs")
    if before.dtype != after.dtype or before.shape != after.shape:
        note = f"is {after.dtype}{after.shape}, was {before.dtype}{before.shape}"
        return Difference(name, False, False, note=note)
    if before.dtype == object or before.tobytes() == after.tobytes():
        equal = before.dtype != object or bool(np.all(before == after))
        return Difference(name, equal, equal, note="" if equal else "differs")
    return _numeric(name, before, after, half)


def _numeric(
    name: str, before: np.ndarray[Any, Any], after: np.ndarray[Any, Any], half: bool
) -> Difference:
    left, right = before.astype(np.float64), after.astype(np.float64)
    finite = np.isfinite(left) & np.isfinite(right)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        return Difference(name, False, False, note="has NaN or infinite values elsewhere")
    gap = np.abs(left[finite] - right[finite])
    absolute = float(gap.max(initial=0.0))
    relative = absolute / max(float(np.abs(left[finite]).max(initial=0.0)), 1e-30)
    half = before.dtype == np.float16 or (half and before.dtype == np.float32)
    dtype = "float16" if half else before.dtype.name
    if dtype in ROUNDING:
        close = relative <= ROUNDING[dtype]
    else:
        close = absolute <= INTEGER_STEPS.get(dtype, 0)
    return Difference(name, False, close, absolute, relative, half=half)
