"""What methods see of a loaded file where they run it again, for one call.

The head runs by itself (`head`), the whole model without its gradient (`parts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam import Need
from onnx_gradcam.cam.components import Maps
from onnx_gradcam.cam.runs import Rows
from onnx_gradcam.contract import SCORE_OUTPUT, WEIGHTS_INPUT, ExportMetadata
from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.runtime.extra_inputs import Values
from onnx_gradcam.runtime.feeds import BatchFeeds, BatchRunner
from onnx_gradcam.runtime.found import Found
from onnx_gradcam.runtime.head import Head
from onnx_gradcam.runtime.head_run import PER_RUN, HeadRun
from onnx_gradcam.runtime.parts import Parts
from onnx_gradcam.runtime.same_seeds import same_seeds

Explain = Callable[[NDArray[Any], Mapping[str, NDArray[Any]], Values], tuple[Maps, Maps]]
"""Images in the model's layout, what says which y, extra inputs -> A and G."""


def explained_score(
    scores: NDArray[Any], classes: NDArray[np.int64], *, is_y: bool = False
) -> NDArray[np.float32]:
    """Return which number is explained, float32 ``(M,)``.

    Args:
        scores: y of all classes, ``(M, K)``; further axes have one element each.
        classes: what is explained in each of the M, int64 ``(M,)``.
        is_y: the scores are y themselves, computed in the file.
    """
    flat = scores.reshape(len(classes), -1)
    columns = np.zeros_like(classes) if is_y else classes
    return np.take_along_axis(flat, columns[:, None], axis=1)[:, 0].astype(np.float32, copy=False)


class Reruns:
    """Runs parts of a file again. One may be shared by threads."""

    def __init__(self, parts: Parts, metadata: ExportMetadata, runner: BatchRunner) -> None:
        """Take the file's parts, and what runs all of it."""
        self.metadata, self.runner = metadata, runner
        self.gives_y = SCORE_OUTPUT in metadata.outputs
        self._parts = parts
        self._fixed = runner.fixed_batch(metadata.score_output)
        score = SCORE_OUTPUT if self.gives_y else metadata.score_tensor
        self.head = Head(parts, metadata, runner.image_input, self._fixed, score)

    @property
    def offered(self) -> frozenset[Need]:
        """What methods get: runs of the whole model are of classes alone."""
        if self.metadata.objective != "class":
            return frozenset({Need.HEAD_RUNS})
        weighted = {Need.WEIGHTS} if WEIGHTS_INPUT in self.metadata.fed_inputs else set()
        return frozenset({Need.HEAD_RUNS, Need.MODEL_RUNS, *weighted})

    def scores(self, feeds: BatchFeeds) -> NDArray[Any]:
        """Return the score tensor: y of all classes before softmax."""
        names = [self.metadata.score_output, self.metadata.score_tensor]
        return self.whole.run_on(list(dict.fromkeys(names)), feeds)[-1]

    @cached_property
    def whole(self) -> BatchRunner:
        """The model without its gradient.

        Raises:
            UnsupportedModelError: it cannot be cut out of the file.
        """
        session = self._parts.giving([self.metadata.score_output, self.metadata.score_tensor])
        return BatchRunner(session, self.runner.image_input, self.runner.extra)

    def of(
        self,
        batch: NDArray[Any],
        seeds: Mapping[str, NDArray[Any]],
        found: Found,
        extra_inputs: Values,
        explain: Explain,
    ) -> Mapping[Need, Any]:
        """Return the runs that methods may ask for, of one batch; none has been made yet.

        Args:
            batch: images in the model's own layout and type, a row for each map.
            seeds: what said which y, likewise.
            found: what the file gave.
            extra_inputs: values for the model's other inputs.
            explain: runs the whole file, gradient included.

        Raises:
            UsageError: extra inputs that do not fit.
        """
        feeds = self.runner.feeds(batch, seeds, extra_inputs, self._fixed)
        call = _Call(self, feeds, seeds, found)
        of_model = _ModelRuns(call, explain)
        return {
            Need.HEAD_RUNS: _HeadRuns(call),
            Need.MODEL_RUNS: of_model,
            Need.WEIGHTS: _WeightedRuns(call, of_model),
        }


@dataclass(frozen=True, eq=False)
class _Call:
    """One batch, a row for each map."""

    file: Reruns
    given: BatchFeeds
    seeds: Mapping[str, NDArray[Any]]
    found: Found

    @cached_property
    def feeds(self) -> BatchFeeds:
        """What the file is fed; it leaves no choice of y."""
        same = same_seeds(
            self.file.metadata, self.seeds, self.found, lambda: self.file.scores(self.given)
        )
        return BatchFeeds(self.given.per_image | same, self.given.shared)

    @property
    def images(self) -> NDArray[Any]:
        """The images in the model's own layout and type."""
        return self.feeds.per_image[self.file.runner.image_input.name]

    def whole(self, rows: Rows) -> NDArray[Any]:
        """Return what the head must give for some of the images."""
        if self.found.y is not None:
            return self.found.y[rows]
        some = {name: value[rows] for name, value in self.feeds.per_image.items()}
        return self.file.scores(BatchFeeds(some, self.feeds.shared))


@dataclass(frozen=True, eq=False)
class _HeadRuns:
    """See `cam.runs.HeadRuns`."""

    call: _Call

    @cached_property
    def _run(self) -> HeadRun:
        call = self.call
        return call.file.head.on(call.feeds, call.found.known_maps[0], call.whole)

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        return self(self.call.found.known_maps[0], np.arange(len(self.call.found.classes)))

    @cached_property
    def other_rows(self) -> Maps:
        return self._run.other_rows()

    def __call__(
        self, activations: Maps, rows: Rows, other_rows: Maps | None = None
    ) -> NDArray[np.float32]:
        scores = self._run(activations, rows, other_rows)
        classes = self.call.found.classes[rows]
        return explained_score(scores, classes, is_y=self.call.file.gives_y)


@dataclass(frozen=True, eq=False)
class _ModelRuns:
    """See `cam.runs.ModelRuns`."""

    call: _Call
    explained: Explain

    @cached_property
    def images(self) -> NDArray[np.float32]:
        declared = self.call.file.runner.image_input
        return declared.channels_first(self.call.images).astype(np.float32)

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """The classes explained.

        Raises:
            UnsupportedModelError: y is no class but a weighted sum of them.
        """
        classes = self.call.found.classes
        if (classes < 0).any():
            raise UnsupportedModelError(
                "methods of whole-model runs explain classes, and these are weights; use a method"
                " that needs no such runs"
            )
        return classes

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        return self(self.images, np.arange(len(self.classes)))

    def __call__(self, images: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
        pieces = [
            self.call.file.scores(self._fed(images[piece], rows[piece]))
            for piece in _pieces(len(images))
        ]
        scores = np.concatenate(pieces).reshape(len(images), self.call.file.metadata.num_classes)
        return scores.astype(np.float32, copy=False)

    def explain(self, images: NDArray[np.float32], rows: Rows) -> tuple[Maps, Maps]:
        found = [
            self.explain_fed(self._fed(images[piece], rows[piece]), {})
            for piece in _pieces(len(images))
        ]
        activations, gradients = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return activations, gradients

    def explain_fed(self, fed: BatchFeeds, other: Mapping[str, NDArray[Any]]) -> tuple[Maps, Maps]:
        """Return A and G of what is fed; `other` replaces some of what says which y."""
        per_image = dict(fed.per_image)
        batch = per_image.pop(self.call.file.runner.image_input.name)
        asked = self.call.file.metadata.fed_inputs
        seeds = {name: per_image.pop(name) for name in asked if name in per_image}
        return self.explained(batch, {**seeds, **other}, per_image | dict(fed.shared))

    def _fed(self, images: NDArray[np.float32], rows: Rows) -> BatchFeeds:
        feeds, declared = self.call.feeds, self.call.file.runner.image_input
        per_image = {name: value[rows] for name, value in feeds.per_image.items()}
        per_image[declared.name] = declared.from_channels_first(images)
        return BatchFeeds(per_image, feeds.shared)


@dataclass(frozen=True, eq=False)
class _WeightedRuns:
    """See `cam.runs.WeightedRuns`."""

    call: _Call
    model: _ModelRuns

    @property
    def classes(self) -> NDArray[np.int64]:
        return self.model.classes

    @property
    def scores(self) -> NDArray[np.float32]:
        return self.model.scores

    def __call__(self, weights: NDArray[np.float32]) -> Maps:
        column = weights[:, None] if self.call.file.metadata.several else weights
        return self.model.explain_fed(self.call.feeds, {WEIGHTS_INPUT: column})[1]


def _pieces(images: int) -> list[slice]:
    """Return which images run at once; one piece for none."""
    return [slice(start, start + PER_RUN) for start in range(0, max(images, 1), PER_RUN)]
