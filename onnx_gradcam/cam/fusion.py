"""One heat map from several target layers: the mean or the maximum of theirs.

As in pytorch-grad-cam: each layer's map is cut off below zero, stretched to [0, 1] and resized to
the image, then all are fused, and the result is stretched once more. The mean is its own way; the
maximum that of torchcam's ``fuse_cams``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onnx_gradcam.cam.components import Maps
from onnx_gradcam.cam.painting import Painted
from onnx_gradcam.cam.postprocess import normalise, stretched
from onnx_gradcam.errors import UsageError

FUSIONS: dict[str, Callable[..., Any]] = {"mean": np.mean, "max": np.max}
"""Name -> what is taken over the layers, position by position."""


def check_fusion(fusion: str) -> str:
    """Return the name of a fusion.

    Raises:
        UsageError: there is none of that name.
    """
    if fusion not in FUSIONS:
        raise UsageError(f"layers are fused by {' or '.join(FUSIONS)}, not by {fusion!r}")
    return fusion


def fuse(painted: Sequence[Painted], size: Sequence[int], fusion: str = "mean") -> Painted:
    """Return the fused heat maps of several layers; of a single one its own.

    A layer whose map shows nothing counts as zeros. An image has a note where no layer shows
    anything.

    Args:
        painted: the maps of each layer, of the same N images.
        size: the image's extents, one per spatial axis.
        fusion: one of `FUSIONS`.

    Returns:
        Heat maps float32 ``(N, *size)`` in [0, 1] with the raw maps of the first layer.

    Raises:
        UsageError: no such fusion.
    """
    take = FUSIONS[check_fusion(fusion)]
    first = painted[0]
    if len(painted) == 1:
        return first
    notes = tuple(map(_note, zip(*(layer.notes for layer in painted), strict=True)))
    cams: Maps = normalise(take([_shown(layer, size) for layer in painted], axis=0))
    return Painted(first.raw, cams, notes)


def _shown(painted: Painted, size: Sequence[int]) -> Maps:
    """Return one layer's maps at the image's size, zeros where there is a note."""
    maps = stretched(painted.raw, size)
    maps[[bool(note) for note in painted.notes]] = 0
    return maps


def _note(notes: tuple[str, ...]) -> str:
    """Return the note on an image whose maps have these notes, one per layer."""
    if not all(notes):
        return ""
    if len(set(notes)) == 1:
        return notes[0]
    each = "; ".join(f"layer {number}: {note}" for number, note in enumerate(notes, 1))
    return f"no layer shows anything ({each})"
