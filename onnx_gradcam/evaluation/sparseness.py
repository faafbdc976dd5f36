"""Sparseness: is the heat in a few places?"""

from __future__ import annotations

import numpy as np

from onnx_gradcam.evaluation.prediction import Maps, Values


def sparseness(maps: Maps) -> Values:
    """Return the Gini index of each map's absolute values; higher is better.

    G = sum_i (2 i - n - 1) v_i / (n sum_i v_i) with v sorted upwards, i from 1 to n: 0 for values
    that are all equal, 1 - 1/n for a single one that is not zero.

    Args:
        maps: float ``(N, *spatial)``.

    Returns:
        float64 ``(N,)`` in [0, 1); NaN for a map of zeros.

    Source: Chalasani et al., arXiv:1810.06583 (the Gini index of Hurley and Rickard).
    """
    values = np.sort(np.abs(maps.reshape(len(maps), -1)).astype(np.float64), axis=1)
    count = values.shape[1]
    weights = 2 * np.arange(1, count + 1) - count - 1
    total = values.sum(axis=1)
    result: Values = np.where(
        total > 0, values @ weights / (count * np.where(total > 0, total, 1)), np.nan
    )
    return result
