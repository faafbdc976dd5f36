"""Panels for what is no photo: arrays of one, two or three spatial axes, under their heat maps.

A sample is float or integer ``(C, *spatial)``. A signal becomes a curve, a volume the slice that
the heat is strongest in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import UsageError
from onnx_gradcam.render import HeatMap, Picture, panel, score_text

if TYPE_CHECKING:
    from onnx_gradcam.runtime import Explanation

PLOT_HEIGHT = 160
PLOT_WIDTH = 640
"""Size in pixels of the picture of a signal."""

CURVE = (48, 48, 56)
COLORS = (3, 4)


def array_panel(explanation: Explanation, sample: NDArray[Any], rows: list[int]) -> Picture:
    """Return a sample beside one overlay per class.

    Args:
        explanation: of that sample, one row per class.
        sample: ``(C, *spatial)``, as the model took it.
        rows: which of the heat maps.

    Raises:
        UsageError: more than three spatial axes.
    """
    cams = [explanation.cams[row] for row in rows]
    picture, maps, what = _DRAWN[_axes(sample)](sample, cams)
    captions = [f"{explanation.class_names[r]}\n{score_text(explanation, r)}" for r in rows]
    pairs = list(zip(maps, captions, strict=True))
    return panel(picture, pairs, f"{what}\n{explanation.method}")


def _axes(sample: NDArray[Any]) -> int:
    if sample.ndim - 1 not in _DRAWN:
        raise UsageError(f"no picture of an array with {sample.ndim - 1} spatial axes")
    return sample.ndim - 1


Drawn = tuple[Picture, list[HeatMap], str]


def _image(sample: NDArray[Any], cams: list[HeatMap]) -> Drawn:
    """Three channels are colours, others are averaged; values are stretched to 0 to 255."""
    finite = np.nan_to_num(sample.astype(np.float64))
    colors = finite[:3] if len(finite) in COLORS else finite.mean(axis=0, keepdims=True)
    low, high = colors.min(), colors.max()
    scaled = (colors - low) * (255 / (high - low) if high > low else 0)
    picture = np.rint(np.broadcast_to(scaled, (3, *scaled.shape[1:]))).astype(np.uint8)
    return np.ascontiguousarray(picture.transpose(1, 2, 0)), cams, "input"


def _signal(sample: NDArray[Any], cams: list[HeatMap]) -> Drawn:
    """Per column of the picture, a stroke from the least to the greatest value that falls there."""
    values = np.nan_to_num(sample.astype(np.float64)).mean(axis=0)
    edges = np.linspace(0, len(values), PLOT_WIDTH + 1)
    first = np.minimum(edges[:-1].astype(int), len(values) - 1)
    last = np.maximum(np.ceil(edges[1:]).astype(int), first + 1)
    low, high = values.min(), values.max()
    height = (high - values) / (high - low if high > low else 1) * (PLOT_HEIGHT - 9) + 4
    picture = np.full((PLOT_HEIGHT, PLOT_WIDTH, 3), 255, np.uint8)
    before = height[0]
    for column, (start, stop) in enumerate(zip(first, last, strict=True)):
        part = np.append(height[start:stop], before)
        picture[int(part.min()) : int(part.max()) + 2, column] = CURVE
        before = height[stop - 1]
    wide = [np.broadcast_to(cam[first], (PLOT_HEIGHT, PLOT_WIDTH)) for cam in cams]
    return picture, [np.ascontiguousarray(cam) for cam in wide], f"signal of {len(values)}"


def _volume(sample: NDArray[Any], cams: list[HeatMap]) -> Drawn:
    heat = np.sum([cam.sum(axis=(1, 2)) for cam in cams], axis=0)
    index = int(np.argmax(heat))
    picture, _, _ = _image(sample[:, index], [])
    return picture, [cam[index] for cam in cams], f"slice {index} of 0 to {len(heat) - 1}"


_DRAWN = {1: _signal, 2: _image, 3: _volume}
