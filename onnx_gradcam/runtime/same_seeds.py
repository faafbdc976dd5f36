"""What says which y, for runs of changed images or activations: always the same y.

A rank, the best box or the region of a class would be other ones of a changed image. Flows in: what
a call fed, and what the file chose. Flows out: inputs with a row for each map that leave no choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.contract import BOX_INPUT, CLASS_INPUT, MASK_INPUT, ExportMetadata
from onnx_gradcam.runtime.found import Found

Feeds = Mapping[str, NDArray[Any]]


def seed_rows(metadata: ExportMetadata, feeds: Feeds, maps: int) -> dict[str, NDArray[Any]]:
    """Return the feeds of a run with a row for each map: as if each were of an image of its own.

    Args:
        metadata: of the file.
        feeds: ``(N, T, ...)`` where the file takes several, but for the mask; else rows already.
        maps: T.
    """
    if not metadata.several:
        return dict(feeds)
    return {
        name: np.repeat(value, maps, axis=0)
        if name == MASK_INPUT
        else value.reshape(-1, 1, *value.shape[2:])
        for name, value in feeds.items()
    }


def same_classes(feeds: Feeds, classes: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the feeds with the classes that ranks stood for; those of weights stay."""
    same = dict(feeds)
    if CLASS_INPUT in same:
        known = classes.reshape(same[CLASS_INPUT].shape)
        same[CLASS_INPUT] = np.where(known < 0, same[CLASS_INPUT], known)
    return same


def same_seeds(
    metadata: ExportMetadata,
    rows: Feeds,
    found: Found,
    scores: Callable[[], NDArray[Any]],
) -> dict[str, NDArray[Any]]:
    """Return feeds that ask for what was found.

    Args:
        metadata: of the file.
        rows: the feeds, see `seed_rows`.
        found: what the file made of them.
        scores: gives the score tensor of the images, a row for each map.
    """
    same = dict(rows)
    column = (-1, 1) if metadata.several else (-1,)
    if CLASS_INPUT in metadata.fed_inputs:  # where weights are given, no class matters
        same[CLASS_INPUT] = found.classes.clip(min=0).reshape(column)
    if found.boxes is not None:
        same[BOX_INPUT] = found.boxes.reshape(column)
    if MASK_INPUT in metadata.seed_inputs:
        same[MASK_INPUT] = _mask(metadata, same.get(MASK_INPUT), found.classes, scores)
    return same


def _mask(
    metadata: ExportMetadata,
    given: NDArray[Any] | None,
    classes: NDArray[np.int64],
    scores: Callable[[], NDArray[Any]],
) -> NDArray[np.float32]:
    """Return the mask of each map: the one given, or the region that the model gives to the class.

    Where y is weighted and there is no class, that is everywhere.
    """
    if given is not None and given.reshape(len(given), -1).any(axis=1).all():
        return np.asarray(given, np.float32)
    start, count = metadata.first_channel, metadata.num_classes
    tensor = scores().transpose(0, metadata.class_axis, *metadata.places)
    of_classes = tensor[:, start : start + count]
    winners = of_classes.argmax(axis=1) if count > 1 else (of_classes[:, 0] > 0) - 1
    wide = classes.reshape(-1, *[1] * (winners.ndim - 1))
    return np.asarray((winners == wide) | (wide < 0), np.float32)
