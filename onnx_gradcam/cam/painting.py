"""From activations and gradients to heat maps, with a note on each map that shows nothing.

Normalising stretches any map to [0, 1], also one of NaN, of rounding noise, or of nothing but
evidence against the class. Such a map is not painted: it stays zero, and a note says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam.components import Maps
from onnx_gradcam.cam.postprocess import heat_maps
from onnx_gradcam.cam.registry import Need, evaluate, get_method

CONTRAST = 1e-6
"""Least difference within a map, relative to its largest value, that is more than rounding."""


@dataclass(frozen=True)
class Painted:
    """Maps of N images.

    Attributes:
        raw: float32 ``(N, *spatial)`` at the size of A, or at that of the image from a method that
            sees no activations; NaN where A, G or the map overflowed.
        cams: float32 ``(N, *size)`` in [0, 1]; zeros where there is a note.
        notes: N texts: why a map shows nothing; empty where it shows something.
    """

    raw: Maps
    cams: Maps
    notes: tuple[str, ...]


def paint(
    method: str,
    activations: NDArray[Any],
    gradients: NDArray[Any] | None,
    size: tuple[int, ...],
    *,
    eigen_smooth: bool = False,
    seed: int = 0,
    further: Mapping[Need, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Painted:
    """Return raw maps, heat maps of the image's size, and a note on each that shows nothing.

    Args:
        method: name of the method.
        activations: A, float ``(N, C, *spatial)``.
        gradients: dy/dA of the same shape, or None for a method that needs none.
        size: the image's extents, one per spatial axis.
        eigen_smooth: see `registry.compute`.
        seed: likewise.
        further: likewise.
        settings: likewise.

    Raises:
        UsageError: what `registry.compute` refuses, or a size of other axes than A.
        UnsupportedModelError: likewise.
    """
    found = get_method(method)
    needed = {"activations": activations} if found.sees_activations else {}
    if gradients is not None and found.needs_gradients:
        needed["gradients"] = gradients
    notes = [""] * len(activations)
    for name, array in needed.items():
        finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        for image in np.flatnonzero(~finite):
            notes[image] = notes[image] or f"the {name} hold NaN or infinite values"
    if any(notes):
        dead = np.array([bool(note) for note in notes])
        activations = np.where(_broad(dead, activations), 0, activations)
        if gradients is not None:
            gradients = np.where(_broad(dead, gradients), 0, gradients)
    options: dict[str, Any] = {"eigen_smooth": eigen_smooth, "seed": seed, "further": further}
    raw = evaluate(method, activations, gradients, settings=settings, **options)
    if any(notes):
        raw = np.where(_broad(dead, raw), np.float32(np.nan), raw)
    return painted(method, raw, size, notes)


def painted(
    method: str, raw: Maps, size: tuple[int, ...], notes: Sequence[str] | None = None
) -> Painted:
    """Return heat maps of raw maps that a method has made, with a note on each that shows nothing.

    Args:
        method: name of the method.
        raw: float32 ``(N, *spatial)``.
        size: the image's extents.
        notes: N texts, what is known of the maps already; empty where it is nothing.

    Raises:
        UsageError: a size of other axes than the maps.
    """
    rectify = get_method(method).rectified
    known = notes or [""] * len(raw)
    final = [n or note_on(one, rectify=rectify) for n, one in zip(known, raw, strict=True)]
    cams = heat_maps(raw, size, rectify=rectify)
    cams[[bool(note) for note in final]] = 0
    return Painted(raw, cams, tuple(final))


def note_on(raw: Maps, *, rectify: bool = True) -> str:
    """Return why one raw map ``(*spatial)`` shows nothing; empty where it shows something.

    Args:
        raw: the map.
        rectify: whether what is below zero is cut off.
    """
    if not np.isfinite(raw).all():
        return "the raw map holds NaN or infinite values"
    if not raw.size:
        return "the raw map is empty"
    low, high = float(raw.min()), float(raw.max())
    if high - low <= CONTRAST * max(abs(low), abs(high)):
        return f"the raw map is {high:.3g} everywhere, to rounding"
    if rectify and high <= 0:
        return f"the raw map is nowhere positive, but {low:.3g} to {high:.3g}"
    return ""


def _broad(images: NDArray[np.bool_], array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return one truth value per image, shaped to go with an array ``(N, ...)``."""
    return images.reshape(-1, *[1] * (array.ndim - 1))
