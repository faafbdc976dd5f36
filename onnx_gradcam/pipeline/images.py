"""Explains whatever an iterable of image sources gives: results in order, failures as results.

Decoding, preprocessing, the run, the heat map and what the caller makes of it belong to one piece
of work; the pieces of several workers overlap. So every core is busy without one of them waiting
for another, and what is under way is bounded by the number of pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import ImageError, OnnxGradCamError, UsageError
from onnx_gradcam.pipeline.cores import divide
from onnx_gradcam.pipeline.overlap import overlapped
from onnx_gradcam.runtime import Explainer, Explanation
from onnx_gradcam.runtime.classes import ClassIds, is_single
from onnx_gradcam.runtime.options import ExplainOptions
from onnx_gradcam.runtime.photo import PhotoSource

S = TypeVar("S")
R = TypeVar("R")

ONE_IMAGE_EACH = ("extra_inputs", "weights", "mask", "box", "embedding")
"""Options whose meaning depends on how many images a run has."""


@dataclass(frozen=True, eq=False)
class Explained(Generic[S, R]):
    """What became of one source.

    Attributes:
        source: as it came.
        result: its explanation, or what `finish` made of it; None where there is an error.
        error: why it could not be explained; None where it could.
    """

    source: S
    result: R | None = None
    error: OnnxGradCamError | None = None


def _itself(source: Any) -> PhotoSource:
    photo: PhotoSource = source
    return photo


def _unchanged(_source: Any, explanation: Explanation) -> Any:
    return explanation


def explain_images(
    explainer: Explainer,
    sources: Iterable[S],
    classes: ClassIds | None = None,
    method: str | None = None,
    *,
    read: Callable[[S], PhotoSource] = _itself,
    finish: Callable[[S, Explanation], R] = _unchanged,
    batch: int | None = None,
    workers: int | None = None,
    ahead: int | None = None,
    failures: tuple[type[OnnxGradCamError], ...] = (ImageError,),
    **options: Unpack[ExplainOptions],
) -> Generator[Explained[S, R], None, None]:
    """Explain many photos; one that is no image does not stop the others.

    For the most images per second, load the file with ``divide().session_options()``: then each
    worker runs the model on its own core.

    Args:
        explainer: a loaded file, with preprocessing for photos.
        sources: what to explain, in any number; read in the thread that asks for results.
        classes: as in `Explainer.explain_image`, the same for all.
        method: likewise.
        read: source -> path, encoded bytes or pixels; may raise ImageError. Without it the sources
            are photos themselves.
        finish: source, explanation -> result, done by the workers too: draw, encode, reduce. Of
            what it returns, up to `ahead` wait for their turn.
        batch: images per run; without it the number that the model is fixed to, else one. Results
            of other numbers are equal to rounding.
        workers: how many runs are under way at a time; without it as `divide` says.
        ahead: how many results may be under way or wait; without it four runs per worker.
        failures: what makes a source an error, and does not stop the others.
        options: as in `Explainer.explain_image`. With several images per run, those for one image
            alone are refused: extra inputs, weights, masks, boxes and embeddings.

    Yields:
        For each source in order what became of it.

    Raises:
        UsageError: what `Explainer.explain_image` refuses of any photo, or several images per run
            where the model or an option takes one.
    """
    fixed = explainer.image_input.batch
    alone = [name for name in ONE_IMAGE_EACH if options.get(name) is not None]
    together = (1 if alone else fixed or 1) if batch is None else batch
    if together < 1:
        raise UsageError(f"{together} images per run; take at least one")
    if together > 1 and alone:
        raise UsageError(f"{', '.join(alone)} with {together} images per run; take batch=1")
    if workers is None:
        division = divide(method=method or explainer.default_method)
        workers = division.workers_on(explainer.providers)
    job = _Job(explainer, classes, method, options, read, finish, failures)
    work = job.one if together == 1 else job.several
    groups = _groups(sources, together)
    room = ahead and max(ahead // together, 1)
    with closing(overlapped(work, groups, workers, room)) as results:
        for done in results:
            yield from done


@dataclass(frozen=True)
class _Job(Generic[S, R]):
    """What is done with each group of sources."""

    explainer: Explainer
    classes: ClassIds | None
    method: str | None
    options: ExplainOptions
    read: Callable[[S], PhotoSource]
    finish: Callable[[S, Explanation], R]
    failures: tuple[type[OnnxGradCamError], ...]

    def one(self, group: Sequence[S]) -> list[Explained[S, R]]:
        """Explain a group of one."""
        (source,) = group
        try:
            photo = self.read(source)
            explanation = self.explainer.explain_image(
                photo, self.classes, self.method, **self.options
            )
            return [Explained(source, self.finish(source, explanation))]
        except self.failures as error:
            return [Explained(source, error=error)]

    def several(self, group: Sequence[S]) -> list[Explained[S, R]]:
        """Explain in one run those of a group that can be read."""
        prepared, failed = [], {}
        for place, source in enumerate(group):
            try:
                prepared.append((place, self.explainer.prepare(self.read(source))))
            except self.failures as error:
                failed[place] = error
        found: dict[int, Explained[S, R]] = {
            place: Explained(group[place], error=error) for place, error in failed.items()
        }
        try:
            together, maps = self._together([one.image for _, one in prepared])
        except self.failures:
            return [explained for source in group for explained in self.one([source])]
        if together is not None:
            for row, (place, one) in enumerate(prepared):
                rows = slice(row * maps, (row + 1) * maps)
                own = together.of_photo(rows, one.photo, one.geometry)
                found[place] = self._finished(group[place], own)
        return [found[place] for place in range(len(group))]

    def _together(self, images: Sequence[NDArray[Any]]) -> tuple[Explanation | None, int]:
        """Return what one run gives for images, and how many maps each has."""
        if not images:
            return None, 0
        classes, maps = self._classes(len(images))
        batch = np.concatenate(images)
        return self.explainer.explain(batch, classes, self.method, **self.options), maps

    def _finished(self, source: S, explanation: Explanation) -> Explained[S, R]:
        try:
            return Explained(source, self.finish(source, explanation))
        except self.failures as error:
            return Explained(source, error=error)

    def _classes(self, images: int) -> tuple[ClassIds | None, int]:
        """Return the classes of all images, ``(N, T)`` where there are several, and T."""
        if self.classes is None or is_single(self.classes):
            return self.classes, 1
        each = np.asarray(self.classes, object).reshape(-1)
        return np.tile(each, (images, 1)), len(each)


def _groups(sources: Iterable[S], size: int) -> Iterator[list[S]]:
    feed = iter(sources)
    while group := list(islice(feed, size)):
        yield group
