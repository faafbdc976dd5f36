"""Runs the head on changed maps of the images of one batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_gradcam import bfloat16
from onnx_gradcam.arrangement import Arrangement
from onnx_gradcam.cam.runs import Rows
from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.runtime.boundary import Array, Boundary
from onnx_gradcam.runtime.explanation import FloatArray
from onnx_gradcam.runtime.feeds import BatchFeeds, taken_by
from onnx_gradcam.runtime.image_input import DTYPES
from onnx_gradcam.runtime.session import one_line, run_options

PER_RUN = 32
"""Changed maps in one run of the head, where it takes any number."""

ELEMENT_TYPES = {
    "tensor(float)": 1,
    "tensor(uint8)": 2,
    "tensor(int8)": 3,
    "tensor(uint16)": 4,
    "tensor(int16)": 5,
    "tensor(int32)": 6,
    "tensor(int64)": 7,
    "tensor(bool)": 9,
    "tensor(float16)": 10,
    "tensor(double)": 11,
    "tensor(uint32)": 12,
    "tensor(uint64)": 13,
    bfloat16.BFLOAT16: 16,
}
"""``TensorProto.DataType`` of the types that can be handed from one session to another."""

FLOATS = frozenset({"tensor(float)", "tensor(float16)", "tensor(double)", bfloat16.BFLOAT16})
COARSE = frozenset({"tensor(float16)", bfloat16.BFLOAT16})


@dataclass(frozen=True)
class HeadRun:
    """The head, ready for the images of a batch.

    Attributes:
        session: the head.
        target_type: the type of A in it.
        target: the name of A.
        score: the name of what it computes.
        arrangement: how A is laid out in it, for images of this size.
        feeds: inputs of the model that it reads itself.
        boundary: what by-passes A, and A itself where it has rows without a place.
        shape: number of images and of channels.
    """

    session: Any
    target_type: str
    target: str
    score: str
    arrangement: Arrangement
    feeds: BatchFeeds
    boundary: Boundary
    shape: tuple[int, ...]

    def other_rows(self) -> FloatArray:
        """Return the rows of A without a place, float32 ``(N, R, C)``, of all images."""
        images, channels = self.shape
        if not self.arrangement.has_other_rows:
            return np.zeros((images, 0, channels), np.float32)
        own = (self.boundary.of(np.array([image])) for image in range(images))
        each = [self.arrangement.other_rows(values[self.target])[:1] for values in own]
        return np.concatenate(each).astype(np.float32, copy=False)

    def __call__(
        self, activations: FloatArray, rows: Rows, other_rows: FloatArray | None = None
    ) -> FloatArray:
        """Return the scores, float32 ``(M, ...)``, for at least one changed map.

        Args:
            activations: M changed maps, ``(M, C, *spatial)``; half precision ends them where it
                ends itself.
            rows: which image each of them is of.
            other_rows: changed rows without a place, ``(M, R, C)``; those of the image where None.

        Raises:
            UnsupportedModelError: the head does not run.
        """
        found: FloatArray | None = None
        for piece, own in self._pieces(rows):
            others = None if other_rows is None else other_rows[piece]
            scores = self._scores(activations[piece], rows[piece], others)
            if found is None:
                found = np.zeros((len(rows), *scores.shape[1:]), np.float32)
            found[own] = scores[: len(rows[own])]
        assert found is not None, "there are changed maps"
        return found

    def _pieces(self, rows: Rows) -> Iterator[tuple[slice | Rows, slice | Rows]]:
        """Yield which changed maps go into one run, and those of them that do not repeat others."""
        step = self.boundary.step
        if step is None:
            for start in range(0, len(rows), PER_RUN):
                piece = slice(start, start + PER_RUN)  # a view, where indices would copy
                yield piece, piece
            return
        for image in np.unique(rows):
            group = np.flatnonzero(rows == image)
            for start in range(0, len(group), step):
                own = group[start : start + step]
                yield np.append(own, np.repeat(own[-1:], step - len(own))), own

    def _scores(self, activations: FloatArray, rows: Rows, other_rows: FloatArray | None) -> Array:
        dtype = DTYPES[self.target_type]
        feeds = self.feeds.of(rows) | self.boundary.of(rows)
        raw = feeds.get(self.target)
        if other_rows is None and raw is not None:
            other_rows = self.arrangement.other_rows(raw)
        shape = () if raw is None else raw.shape
        laid = self.arrangement.from_map(
            _as_type(activations, dtype),
            shape,
            None if other_rows is None else _as_type(other_rows, dtype),
        )
        feeds[self.target] = np.ascontiguousarray(laid)
        return run_part(self.session, [self.score], feeds)[self.score]


def run_part(session: Any, outputs: Sequence[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return outputs of a session by name; bfloat16 goes in and out as float32.

    Raises:
        UnsupportedModelError: it does not run.
    """
    try:
        values = bfloat16.run(session, outputs, taken_by(session, feeds), run_options())
    except Exception as error:  # onnxruntime's exceptions share no base class
        shapes = ", ".join(f"{name} {value.shape}" for name, value in feeds.items())
        raise UnsupportedModelError(
            f"a part of the model does not run by itself on {shapes}: {one_line(error)}"
        ) from error
    return dict(zip(outputs, values, strict=True))


def _as_type(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return floats in another type, those beyond its range at its end."""
    if dtype.itemsize < 4:
        values = values.clip(np.finfo(dtype).min, np.finfo(dtype).max)
    return values.astype(dtype, copy=False)
