"""Where a heat map is hot: peak, box, area and run lengths in pixels of the photo.

A map is looked at as the model saw the photo, and what is found is carried over to the photo, pixel
by nearest pixel: a photo of 12 megapixels costs no more than its number of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.runtime.photo import import_cv2
from onnx_gradcam.runtime.preprocess import CropGeometry

HeatMap = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """The pixels of a photo where a heat map is hot.

    Attributes:
        box: ``(x, y, width, height)`` around them in pixels.
        area: how many they are.
        counts: their run lengths down the columns, from the first column on, zeros first, as COCO
            has them.
    """

    box: tuple[int, int, int, int]
    area: int
    counts: list[int]

    @property
    def encoded(self) -> str:
        """The run lengths as the text that COCO calls a compressed RLE."""
        return encode_counts(self.counts)


def peak_of(cam: HeatMap, geometry: CropGeometry) -> tuple[int, int]:
    """Return ``(x, y)``: the pixel of the photo where the map is highest, the first of equals."""
    row, column = np.unravel_index(int(cam.argmax()), cam.shape)
    y, x = (
        min(max(int((place + 0.5 + start) * whole / resized), 0), whole - 1)
        for place, start, whole, resized in zip(
            (row, column),
            (geometry.top, geometry.left),
            geometry.photo_size,
            geometry.resized,
            strict=True,
        )
    )
    return x, y


def region_of(
    cam: HeatMap, geometry: CropGeometry, threshold: float, *, largest: bool
) -> Region | None:
    """Return where a map is at least `threshold` times its maximum; None if that is nowhere.

    Args:
        cam: float32 ``(H, W)``, not negative, as the model saw the photo.
        geometry: where that is in the photo.
        threshold: above 0, at most 1.
        largest: take the largest connected region alone (neighbours by edge or corner).
    """
    highest = float(cam.max(initial=0))
    if not highest > 0:
        return None
    part = _Part(cam >= np.float32(threshold) * np.float32(highest)).bounded()
    if largest:
        part = part.largest()
    top, rows = part.reached(geometry, 0)
    left, columns = part.reached(geometry, 1)
    tall = part.hot[rows].T
    height, width = geometry.photo_size
    edges = _edges(tall, columns, top + left * height, height)
    starts, ends = edges[0::2], edges[1::2]
    if not len(starts):
        return None
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    if counts[-1] == 0:
        counts = counts[:-1]
    used = np.flatnonzero(tall[np.unique(columns)].any(axis=0)) + top
    left, right = int(starts[0]) // height, (int(ends[-1]) - 1) // height
    box = (left, int(used[0]), right - left + 1, int(used[-1] - used[0]) + 1)
    return Region(box, int((ends - starts).sum()), counts.tolist())


@dataclass(frozen=True)
class _Part:
    """A part of a map: what is hot in it, and its first row and column."""

    hot: Mask
    corner: tuple[int, int] = (0, 0)

    def bounded(self) -> _Part:
        """Return the part around all that is hot; what follows costs as much as it has."""
        rows, columns = (np.flatnonzero(self.hot.any(axis=axis)) for axis in (1, 0))
        return self._cut(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)

    def largest(self) -> _Part:
        """Return the part around the largest connected region, and that alone."""
        marked = self.hot.astype(np.uint8)
        _, labels, stats, _ = import_cv2().connectedComponentsWithStats(marked)
        index = 1 + int(stats[1:, -1].argmax())  # the first is all that is not hot
        left, top, width, height = (int(value) for value in stats[index][:4])
        return _Part(labels == index, self.corner)._cut(top, left, top + height, left + width)

    def _cut(self, top: int, left: int, bottom: int, right: int) -> _Part:
        corner = self.corner[0] + top, self.corner[1] + left
        return _Part(self.hot[top:bottom, left:right], corner)

    def reached(self, geometry: CropGeometry, axis: int) -> tuple[int, NDArray[np.intp]]:
        """Return which of its rows (columns for axis 1) lie under which of the photo.

        Returns:
            the first row of the photo with one, and, for it and those after it, which one.
        """
        whole, resized = geometry.photo_size[axis], geometry.resized[axis]
        start = (geometry.top, geometry.left)[axis]
        places = np.floor(np.arange(0.5, whole) * (resized / whole) - start).astype(np.intp)
        places -= self.corner[axis]  # they grow
        low, high = np.searchsorted(places, [0, self.hot.shape[axis]]).tolist()
        return low, places[low:high]


def _edges(tall: Mask, columns: NDArray[np.intp], first: int, height: int) -> NDArray[np.int64]:
    """Return where runs of pixels start and end in a photo, one after the other.

    Args:
        tall: columns that occur, each as far down as they are all told.
        columns: which of them each column of the photo is, as far as it has one.
        first: where the first element of the first one lies, counted down the columns.
        height: of the photo.
    """
    deep = tall.shape[1] + 1
    padded = np.zeros(len(tall) * deep + 1, bool)  # before each column, and behind the last
    padded[1:].reshape(-1, deep)[:, :-1] = tall
    place_of, rows = np.divmod(np.flatnonzero(padded[1:] != padded[:-1]), deep)
    each = np.bincount(place_of, minlength=len(tall))
    before = np.cumsum(each) - each
    repeats = each[columns]
    begin = np.repeat(np.cumsum(repeats) - repeats, repeats)
    within = np.arange(len(begin)) - begin
    taken = rows[np.repeat(before[columns], repeats) + within]
    edges = taken.astype(np.int64) + np.repeat(np.arange(len(columns)), repeats) * height + first
    joins = np.flatnonzero(edges[1:-1:2] == edges[2::2])  # from one column into the next
    return np.delete(edges, np.concatenate([2 * joins + 1, 2 * joins + 2]))


def encode_counts(counts: Sequence[int]) -> str:
    """Return run lengths as COCO's text.

    From the fourth on, each is told as the difference to the one before the last; numbers go in
    groups of five bits, the lowest first, a sixth bit says that more follow, and 48 is added to
    make letters of them.

    Source: the RLE of the COCO API (https://github.com/cocodataset/cocoapi), format only.
    """
    text = bytearray()
    for place, count in enumerate(counts):
        left = count - counts[place - 2] if place > 2 else count
        while True:
            group, left = left & 0x1F, left >> 5
            more = left != (-1 if group & 0x10 else 0)
            text.append(48 + (group | 0x20 if more else group))
            if not more:
                break
    return text.decode("ascii")


def decode_counts(text: str) -> list[int]:
    """Return the run lengths that `encode_counts` made a text of."""
    counts: list[int] = []
    value = shift = 0
    for letter in text.encode("ascii"):
        group = letter - 48
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts
