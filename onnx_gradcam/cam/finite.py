"""NaN and infinity: whether arrays hold them, and arrays without them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROWS, _COLUMNS = 8, 1024
"""Of the pieces that are added up at once: too small for a BLAS to wake its other threads, which
would then spin beside those of onnxruntime."""

_ONES = np.ones(_COLUMNS, np.float32)


def all_finite(values: NDArray[Any]) -> bool:
    """Return whether floats hold neither NaN nor infinity.

    Where a sum is finite, so is all that was added, and to add is faster than to look at each
    value. A sum that is not finite may have overflowed, and says nothing.
    """
    if values.dtype == np.float32 and values.flags.c_contiguous:
        flat = values.reshape(-1)
        pieces = flat.size // (_ROWS * _COLUMNS)
        rest = flat[pieces * _ROWS * _COLUMNS :]
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.add.reduce(rest)
            if pieces:
                sums = flat[: flat.size - rest.size].reshape(pieces, _ROWS, _COLUMNS) @ _ONES
                total += np.add.reduce(sums, axis=None)
        if math.isfinite(total):
            return True
    return bool(np.isfinite(values).all())


def finite_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return `values` as float32 with NaN as 0 and infinities as the largest finite numbers."""
    if values.dtype == np.float32:
        narrowed: NDArray[np.float32] = values
    else:
        with np.errstate(over="ignore"):
            narrowed = np.asarray(values, dtype=np.float32)
    return narrowed if all_finite(narrowed) else np.nan_to_num(narrowed)
