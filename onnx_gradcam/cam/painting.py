"""From activations and gradients to heat maps, with a note on each map that shows nothing.

Normalising stretches any map to [0, 1], also one of NaN, of rounding noise, or of nothing but
evidence against the class. Such a map is not painted: it stays zero, and a note says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam.components import Maps
from onnx_gradcam.cam.finite import all_finite
from onnx_gradcam.cam.postprocess import heat_maps
from onnx_gradcam.cam.registry import Method, Need, evaluate, get_method
from onnx_gradcam.cam.resize import Ends, ends_of

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
    arrays = [activations] if gradients is None else [activations, gradients]
    plain = all(array.dtype == np.float32 for array in arrays)
    options: dict[str, Any] = {"eigen_smooth": eigen_smooth, "seed": seed, "further": further}
    options |= {"settings": settings, "as_they_are": plain}
    if found.shows_overflow and plain and not eigen_smooth:
        raw = evaluate(method, activations, gradients, **options)
        ends = _finite_ends(raw)
        if ends is not None:
            return _painted(found, raw, size, (), ends)
    notes = _notes_on_arrays(found, activations, gradients)
    dead = np.array([bool(note) for note in notes], bool)
    raw = evaluate(method, *(_without(dead, array) for array in arrays), **options)
    return painted(method, _without(dead, raw, np.float32(np.nan)), size, notes)


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
    return _painted(get_method(method), raw, size, notes or (), _finite_ends(raw))


def _painted(
    method: Method, raw: Maps, size: tuple[int, ...], notes: Sequence[str], ends: Ends | None
) -> Painted:
    """Return what `painted` returns; the ends are None where a map is not finite or empty."""
    rectify = method.rectified
    if ends is None:
        own = [note_on(one, rectify=rectify) for one in raw]
    else:
        own = [_note(low, high, rectify=rectify) for low, high in zip(*ends, strict=True)]
    final = [n or note for n, note in zip(notes, own, strict=True)] if notes else own
    cams = heat_maps(raw, size, rectify=rectify, ends=ends)
    if any(final):
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
    return _note(float(raw.min()), float(raw.max()), rectify=rectify)


def _finite_ends(raw: Maps) -> Ends | None:
    """Return the ends of maps, None where one of them is not finite, or there are none."""
    if not raw.size:
        return None
    with np.errstate(invalid="ignore"):
        low, high = ends_of(raw)
    return (low, high) if all(map(math.isfinite, low + high)) else None


def _note(low: float, high: float, *, rectify: bool) -> str:
    """Return what `note_on` returns of a finite map with these ends."""
    if high - low <= CONTRAST * max(abs(low), abs(high)):
        return f"the raw map is {high:.3g} everywhere, to rounding"
    if rectify and high <= 0:
        return f"the raw map is nowhere positive, but {low:.3g} to {high:.3g}"
    return ""


def _notes_on_arrays(
    method: Method, activations: NDArray[Any], gradients: NDArray[Any] | None
) -> list[str]:
    """Return which of the arrays that a method looks at are not finite, for each image."""
    needed = {"activations": activations} if method.sees_activations else {}
    if gradients is not None and method.needs_gradients:
        needed["gradients"] = gradients
    notes = [""] * len(activations)
    for name, array in needed.items():
        if all_finite(array):
            continue
        finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        for image in np.flatnonzero(~finite):
            notes[image] = notes[image] or f"the {name} hold NaN or infinite values"
    return notes


def _without(images: NDArray[np.bool_], array: NDArray[Any], value: Any = 0) -> NDArray[Any]:
    """Return an array ``(N, ...)`` with a value in place of those of some images."""
    if not images.any():
        return array
    return np.where(images.reshape(-1, *[1] * (array.ndim - 1)), value, array)
