"""The head of a file: the layers between the target layer A and the score, run by themselves.

The trunk, from the images to A, runs once for a batch, and only where something by-passes A or A
has rows without a place. `HeadRun` runs the head on changed maps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from threading import RLock
from typing import Any

import numpy as np

from onnx_gradcam.arrangement import Arrangement
from onnx_gradcam.cam.runs import Rows
from onnx_gradcam.contract import GATE_INPUT, ExportMetadata
from onnx_gradcam.errors import OnnxGradCamError, UnsupportedModelError
from onnx_gradcam.runtime.boundary import (
    Array,
    Boundary,
    ByCopies,
    ByRows,
    Dependence,
    PerImage,
    another_image,
    measure,
)
from onnx_gradcam.runtime.cutting import divide
from onnx_gradcam.runtime.explanation import FloatArray
from onnx_gradcam.runtime.feeds import OPEN, BatchFeeds
from onnx_gradcam.runtime.head_run import COARSE, ELEMENT_TYPES, FLOATS, PER_RUN, HeadRun, run_part
from onnx_gradcam.runtime.image_input import ImageInput
from onnx_gradcam.runtime.parts import Parts

_KNOWN_SIZES = 32
"""For so many sizes of images it is remembered how by-passing tensors depend on the batch."""

_ROUNDING = 1e-3
_COARSE_ROUNDING = 3e-2
"""How far the scores of the head may be from the model's, relative to the largest: in float32, and
where half precision or integers round more coarsely."""

Scores = Callable[[Rows], Array]
"""Some images of a batch -> what the whole model gives for them, ``(N, ...)``."""


@dataclass(frozen=True)
class _Halves:
    """A model divided at its target layer.

    Attributes:
        head: session from A, and what by-passes it, to the score.
        trunk: session from the images to A and what by-passes it; None where nothing of that is
            needed.
        target_type: the type of A.
        is_coarse: whether the head rounds to half precision or integers.
        reads: which inputs of the model the head reads itself.
    """

    head: Any
    trunk: Any
    target_type: str
    is_coarse: bool
    reads: tuple[str, ...]


class Head:
    """The head of a file, made when it is first used. One may be shared by threads."""

    def __init__(
        self,
        parts: Parts,
        metadata: ExportMetadata,
        declared: ImageInput,
        fixed: int | None,
        score: str,
    ) -> None:
        """Take what it is made of.

        Args:
            parts: of the file.
            metadata: of the file.
            declared: its image input.
            fixed: the only number of images that the model takes, None where any goes.
            score: the tensor that the head computes.
        """
        self._parts, self._metadata, self._declared = parts, metadata, declared
        self._fixed, self._score = fixed, score
        self._arrangement = Arrangement.from_metadata(metadata)
        self._known: dict[Any, dict[str, Dependence] | int] = {}
        self._lock = RLock()

    def on(self, feeds: BatchFeeds, activations: FloatArray, whole: Scores) -> HeadRun:
        """Return the head for the images of a batch, at least one.

        Args:
            feeds: the batch.
            activations: its A, ``(N, C, *spatial)``.
            whole: the whole model, to compare with.

        Raises:
            UnsupportedModelError: the model cannot be divided at its target layer, or its head
                gives other scores than the model.
        """
        sizes = [(n, v.shape[1:]) for n, v in sorted(feeds.per_image.items())]
        shared = [(n, v.shape) for n, v in sorted(feeds.shared.items())]
        size = (*sizes, *shared)
        with self._lock:
            known = self._known.get(size)
            if known is None:
                known = self._measured(feeds)
                run = self._run(feeds, activations, known)
                if self._prove(run, activations, whole):
                    if len(self._known) >= _KNOWN_SIZES:
                        self._known.clear()
                    self._known[size] = known
                return run
        return self._run(feeds, activations, known)  # others need not wait for its trunk

    @cached_property
    def _halves(self) -> _Halves:
        """The two sessions, made by the first call of `on`, which holds the lock.

        Raises:
            UnsupportedModelError: the model cannot be divided at its target layer.
        """
        target, score = self._metadata.target, self._score
        with self._parts.index() as model:
            division = divide(model, target, score, [*self._metadata.fed_inputs, GATE_INPUT])
            trunk = self._parts.start(model, [target, *division.boundary])
            types = {node.name: node.type for node in trunk.get_outputs()}
            if types[target] not in FLOATS:
                raise UnsupportedModelError(
                    f"target layer {target!r} is a {types[target]}, whose values cannot be changed"
                    " for the layers behind it; export the model with another --layer"
                )
            unknown = [name for name, kind in types.items() if kind not in ELEMENT_TYPES]
            if unknown:
                raise UnsupportedModelError(
                    f"{unknown[0]!r}, which by-passes target layer {target!r}, is a"
                    f" {types[unknown[0]]}; export the model with another --layer"
                )
            given = {name: ELEMENT_TYPES[kind] for name, kind in types.items()}
            head = self._parts.start(model, [score], given)
        needs_trunk = bool(division.boundary or self._arrangement.grid)
        integers = any("Quant" in name or "Integer" in name for name in division.operators)
        is_coarse = integers or bool(COARSE & set(types.values()))
        return _Halves(head, trunk if needs_trunk else None, types[target], is_coarse, division.fed)

    def _run(
        self, feeds: BatchFeeds, activations: FloatArray, known: dict[str, Dependence] | int
    ) -> HeadRun:
        boundary: Boundary
        if isinstance(known, int):
            boundary = ByCopies(lambda rows: self._trunk(feeds.of(rows)), known)
        else:
            boundary = ByRows(known, self._in_pieces(feeds, len(activations), known))
        halves = self._halves
        reads = set(halves.reads)
        own = BatchFeeds(
            {n: v for n, v in feeds.per_image.items() if n in reads},
            {n: v for n, v in (feeds.shared | OPEN).items() if n in reads},
        )
        return HeadRun(
            halves.head,
            halves.target_type,
            self._metadata.target,
            self._score,
            self._arrangement.on_grid(activations.shape[2:]),
            own,
            boundary,
            activations.shape[:2],
        )

    def _in_pieces(
        self, feeds: BatchFeeds, images: int, known: dict[str, Dependence]
    ) -> dict[str, Array]:
        """Return what the trunk computes for all images of a batch."""
        if not known:
            return {}
        every = np.arange(images)
        pieces = [
            self._trunk(feeds.of(every[start : start + PER_RUN]))
            for start in range(0, images, PER_RUN)
        ]
        return {
            name: np.concatenate([piece[name] for piece in pieces], dependence.axis)
            for name, dependence in known.items()
            if isinstance(dependence, PerImage)
        }

    def _trunk(self, feeds: dict[str, Array]) -> dict[str, Array]:
        trunk = self._halves.trunk
        if trunk is None:
            return {}
        return run_part(trunk, [node.name for node in trunk.get_outputs()], feeds)

    def _measured(self, feeds: BatchFeeds) -> dict[str, Dependence] | int:
        """Return how the trunk's values depend on the batch, or in which batches it must run."""
        if self._fixed is not None:
            return self._fixed
        if self._halves.trunk is None:
            return {}
        name = self._declared.name
        first = feeds.of(np.zeros(1, np.intp))
        width = -2 if self._declared.channels_last else -1
        second = first | {name: another_image(first[name], width)}
        both = first | {n: np.concatenate([first[n], second[n]]) for n in feeds.per_image}
        alone, other = self._trunk(first), self._trunk(second)
        try:
            together = self._trunk(both)
        except OnnxGradCamError:  # it says that it takes any number of images, and takes one
            return 1
        return measure(alone, other, together) or PER_RUN

    def _prove(self, run: HeadRun, activations: FloatArray, whole: Scores) -> bool:
        """Return whether the head gives the model's scores for unchanged activations.

        False where that cannot be told, because they are NaN or infinite for these images.

        Raises:
            UnsupportedModelError: it gives other scores.
        """
        axes = tuple(range(1, activations.ndim))
        finite = np.flatnonzero(np.isfinite(activations).all(axis=axes))
        if not len(finite):
            return False
        rows = finite[[0, -1, 0]]  # three: a number that was not measured
        found = run(activations[rows], rows)
        expected = whole(rows[:2])[[0, 1, 0]].astype(np.float32).reshape(found.shape)
        largest = float(np.abs(expected).max(initial=0))
        coarse = self._halves.is_coarse or self._metadata.straight_through
        error = float(np.abs(found - expected).max(initial=0))
        rounding = _COARSE_ROUNDING if coarse else _ROUNDING
        if not np.isfinite(largest):
            return False
        if not error <= rounding * largest:
            raise UnsupportedModelError(
                f"the layers behind {self._metadata.target!r}, run by themselves, give other scores"
                f" than the model: {error:.2g} apart, of {largest:.2g}; take a method without head"
                " runs, or export the model with another --layer"
            )
        return True
