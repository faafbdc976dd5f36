"""``aug_smooth``: the average of heat maps of six versions of each image, as in pytorch-grad-cam.

The versions are the image and its mirror image, each multiplied by 0.9, 1 and 1.1: the prepared
array, not the photo. The heat maps of the mirror images are mirrored back; the average is not
normalised again, so that its maximum is 1 only where all six agree on the place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam import Painted
from onnx_gradcam.runtime.image_input import ImageInput

VERSIONS = tuple((mirror, factor) for mirror in (False, True) for factor in (1.0, 0.9, 1.1))
"""Mirrored or not, and what to multiply by; the image itself comes first."""


def other_versions(batch: NDArray[Any], declared: ImageInput) -> Iterator[NDArray[Any]]:
    """Yield a batch in all `VERSIONS` but the first, in the model's layout and type.

    Values are clipped to the range of the type, integers rounded.
    """
    width = -2 if declared.channels_last else -1
    kind = batch.dtype
    is_float = kind.kind == "f"
    limits = np.finfo(kind) if is_float else np.iinfo(kind)
    for mirror, factor in VERSIONS[1:]:
        with np.errstate(over="ignore"):  # of half precision: clipped below
            changed = batch * np.asarray(factor, kind if is_float else np.float32)
        whole = changed if is_float else changed.round()
        version = whole.clip(limits.min, limits.max).astype(kind)
        yield np.ascontiguousarray(np.flip(version, width)) if mirror else version


def average(painted: Sequence[Painted]) -> Painted:
    """Return the average of the maps of all `VERSIONS`, those of mirror images mirrored back.

    An image's note is that of the image itself, or says how many versions have one.
    """
    raw, cams = (
        np.mean(np.stack([_unmirrored(*pair) for pair in zip(maps, VERSIONS, strict=True)]), axis=0)
        for maps in ([p.raw for p in painted], [p.cams for p in painted])
    )
    notes = zip(*(p.notes for p in painted), strict=True)
    return Painted(np.asarray(raw), np.asarray(cams), tuple(map(_note, notes)))


def _unmirrored(maps: NDArray[Any], version: tuple[bool, float]) -> NDArray[Any]:
    return np.flip(maps, -1) if version[0] else maps


def _note(notes: tuple[str, ...]) -> str:
    """Return the note on an average of maps with these notes."""
    given = [note for note in notes if note]
    if len(given) in {0, len(notes)}:
        return notes[0]
    return f"{len(given)} of the {len(notes)} maps averaged are empty: {given[0]}"
