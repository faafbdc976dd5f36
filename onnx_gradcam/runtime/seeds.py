"""Which y to explain, as the user says it, turned into what an exported file is fed.

Flows in: classes, weights, masks, boxes, embeddings. Flows out: `Seeds`, arrays with an axis N of
images and an axis T of maps per image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnx_gradcam.contract import (
    BOX_INPUT,
    CLASS_INPUT,
    EMBEDDING_INPUT,
    MASK_INPUT,
    WEIGHTS_INPUT,
    ExportMetadata,
)
from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.runtime.classes import HIGHEST, ClassIds, ClassResolver
from onnx_gradcam.runtime.options import ExplainOptions

OPTIONS = {
    "weights": WEIGHTS_INPUT,
    "mask": MASK_INPUT,
    "box": BOX_INPUT,
    "embedding": EMBEDDING_INPUT,
}
"""Option of the explaining calls -> the input that takes it."""

_REMEDIES = {
    CLASS_INPUT: "it compares with an embedding",
    WEIGHTS_INPUT: "export the model again with --weights",
    MASK_INPUT: "export the model again with --objective segmentation",
    BOX_INPUT: "export the model again with --objective detection",
    EMBEDDING_INPUT: "export the model again with --objective similarity",
}


@dataclass(frozen=True)
class Seeds:
    """What says which y, for N images and T maps of each.

    Attributes:
        maps: T.
        feeds: input -> value ``(N, T, ...)``; the mask is ``(N, *places)``.
    """

    maps: int
    feeds: Mapping[str, NDArray[Any]]

    def together(self, several: bool) -> dict[str, NDArray[Any]]:
        """Return the feeds of one run: ``(N, T, ...)``, or ``(N T, ...)`` a row for each map."""
        if several:
            return dict(self.feeds)
        return {
            name: np.repeat(value, self.maps, axis=0)
            if name == MASK_INPUT
            else value.reshape(-1, *value.shape[2:])
            for name, value in self.feeds.items()
        }


@dataclass(frozen=True)
class SeedReader:
    """Reads the options of a call for one file.

    Attributes:
        metadata: of the file.
        classes: its classes.
        required: node arguments of the inputs that say which y and have no default, by name.
        mask_shape: the places of a mask, None where there is no mask.
    """

    metadata: ExportMetadata
    classes: ClassResolver
    required: Mapping[str, Any]
    mask_shape: Sequence[int | str | None] | None = None

    def read(
        self, classes: ClassIds | None, options: ExplainOptions, images: int, *, each: bool
    ) -> Seeds:
        """Return the seeds of a call.

        Args:
            classes: as in `Explainer.explain`.
            options: of the call.
            images: N.
            each: the call is about one image, and several classes, weights, boxes or embeddings
                are maps of it; else there is one for all images or one for each.

        Raises:
            ClassNotFoundError: a class that does not exist.
            UsageError: values that do not fit the file or each other.
            UnsupportedModelError: the file does not take what was given.
        """
        if classes is None and not options:
            return self._usual(images)
        return self._read(classes, options, images, each=each)

    @cached_property
    def _usual(self) -> Callable[[int], Seeds]:
        """What a call asks for that says nothing, of N images: kept, and not to be changed."""

        @lru_cache(maxsize=16)
        def usual(images: int) -> Seeds:
            seeds = self._read(None, {}, images, each=False)
            for value in seeds.feeds.values():
                value.flags.writeable = False
            return seeds

        return usual

    def _read(
        self, classes: ClassIds | None, options: ExplainOptions, images: int, *, each: bool
    ) -> Seeds:
        """Return what `read` returns.

        Raises:
            ClassNotFoundError: see `read`.
            UsageError: likewise.
            UnsupportedModelError: likewise.
        """
        taken = self.metadata.seed_inputs
        given = {
            name: options.get(option)
            for option, name in (OPTIONS.items() if options else ())
            if options.get(option) is not None
        }
        if classes is not None:
            given[CLASS_INPUT] = classes
        for name in given:
            if name not in taken:
                raise UnsupportedModelError(
                    f"the file takes no {name.removeprefix('cam_')}: its objective is"
                    f" {self.metadata.objective}; {_REMEDIES[name]}"
                )
        if EMBEDDING_INPUT in taken and EMBEDDING_INPUT not in given:
            raise UsageError(
                "the file compares images with an embedding; give one: embedding=array, on the"
                " command line --embedding FILE.npy"
            )
        if {CLASS_INPUT, WEIGHTS_INPUT} <= set(given):
            raise UsageError("give either classes or weights, not both")
        default: dict[str, Any] = {CLASS_INPUT: None} if CLASS_INPUT in taken else {}
        asked = default | given
        read: dict[str, NDArray[Any]] = {
            n: _READERS[n](self, value, images, each) for n, value in asked.items()
        }
        maps = max((value.shape[1] for n, value in read.items() if n != MASK_INPUT), default=1)
        feeds: dict[str, NDArray[Any]] = {}
        for name, value in (self._defaults(images) | read).items():
            if name not in self._fed:
                continue
            shape: tuple[int, ...] = (images, *value.shape[1:])
            if name != MASK_INPUT:
                if value.shape[1] not in {1, maps}:
                    raise UsageError(f"{value.shape[1]} of {name} for {maps} maps of each image")
                shape = (images, maps, *value.shape[2:])
            wide = value if value.shape == shape else np.broadcast_to(value, shape)
            feeds[name] = np.ascontiguousarray(wide)
        return Seeds(maps, feeds)

    def unasked(self, images: int) -> dict[str, NDArray[Any]]:
        """Return what must be fed where only the model's own outputs are wanted."""
        return Seeds(1, self._defaults(images)).together(self.metadata.several)

    def _defaults(self, images: int) -> dict[str, NDArray[Any]]:
        """Return values, ``(N, 1, ...)``, for the inputs that have no default in the file."""
        values: dict[str, NDArray[Any]] = {}
        for name, node in self.required.items():
            if name == MASK_INPUT:
                places = [size if isinstance(size, int) else 1 for size in node.shape[1:]]
                values[name] = np.zeros((images, *places), np.float32)
            else:
                values[name] = _DEFAULTS[name](images, self.metadata.num_classes)
        return values

    @cached_property
    def _fed(self) -> frozenset[str]:
        """The inputs that the file has for what says which y."""
        return frozenset(self.metadata.fed_inputs)


_DEFAULTS: dict[str, Callable[[int, int], NDArray[Any]]] = {
    CLASS_INPUT: lambda images, _width: np.full((images, 1), HIGHEST, np.int64),
    WEIGHTS_INPUT: lambda images, width: np.zeros((images, 1, width), np.float32),
    BOX_INPUT: lambda images, _width: np.full((images, 1), HIGHEST, np.int64),
    EMBEDDING_INPUT: lambda images, width: np.ones((images, 1, width), np.float32),
}
"""Input without a default in the file -> what asks for nothing, of N images and K classes."""


def _read_classes(
    reader: SeedReader, value: ClassIds | None, images: int, each: bool
) -> NDArray[np.int64]:
    resolver = reader.classes
    if isinstance(value, np.ndarray) and value.ndim == 2:
        if len(value) != images:
            raise UsageError(f"classes of shape {value.shape} for {images} images")
        return resolver.several(value.reshape(-1)).reshape(value.shape)
    if each:
        return resolver.several(value)[None]
    return resolver.per_image(value, images)[:, None]


def _read_weights(reader: SeedReader, value: Any, images: int, each: bool) -> NDArray[np.float32]:
    count = reader.metadata.num_classes
    if isinstance(value, Mapping):
        row = np.zeros(count, np.float32)
        for name, weight in value.items():
            index = reader.classes.resolve(name)
            if index < 0:
                raise UsageError("weights go with indices and labels, not with ranks")
            row[index] = weight
        value = row
    read = _vectors("weights", value, count, images, each)
    if not read.any(axis=-1).all():
        raise UsageError("weights that are all zero weight no class")
    return read


def _read_embedding(reader: SeedReader, value: Any, images: int, each: bool) -> NDArray[np.float32]:
    read = _vectors("embedding", value, reader.metadata.num_classes, images, each)
    if not read.any(axis=-1).all():
        raise UsageError("an embedding that is all zero has no direction")
    return read


def _read_mask(reader: SeedReader, value: Any, images: int, _each: bool) -> NDArray[np.float32]:
    mask = _floats("mask", value)
    places = len(reader.metadata.places)
    if mask.ndim == places:
        mask = mask[None]
    if mask.ndim != places + 1 or len(mask) not in {1, images}:
        raise UsageError(
            f"a mask of shape {mask.shape} for {images} images with scores on {places} axes"
        )
    for given, size in zip(mask.shape[1:], reader.mask_shape or (), strict=False):
        if isinstance(size, int) and size > 0 and given != size:
            raise UsageError(
                f"a mask of {given} where the model has {size}: masks have the size of the score"
                f" map, {' x '.join(map(str, reader.mask_shape or ()))}"
            )
    if not mask.any(axis=tuple(range(1, mask.ndim))).all():
        raise UsageError(
            "a mask that is zero everywhere masks nothing; leave it out for the"
            " region that the model gives to the class"
        )
    return mask


def _read_box(_reader: SeedReader, value: Any, images: int, each: bool) -> NDArray[np.int64]:
    boxes = np.asarray(value)
    if boxes.dtype.kind not in "iu" or boxes.ndim > 1:
        raise UsageError(f"a box is an index, or -k for the k-th highest score, not {value!r}")
    boxes = boxes.astype(np.int64).reshape(-1)
    return boxes[None] if each or len(boxes) == 1 else _rows("box", boxes, images)[:, None]


_READERS: dict[str, Callable[[SeedReader, Any, int, bool], NDArray[Any]]] = {
    CLASS_INPUT: _read_classes,
    WEIGHTS_INPUT: _read_weights,
    MASK_INPUT: _read_mask,
    BOX_INPUT: _read_box,
    EMBEDDING_INPUT: _read_embedding,
}


def _vectors(
    name: str, value: ArrayLike, count: int, images: int, each: bool
) -> NDArray[np.float32]:
    """Return vectors ``(N or 1, T, count)`` from one, or a row for each image or map.

    Raises:
        UsageError: another number of them, or of another length.
    """
    vectors = _floats(name, value)
    if vectors.ndim not in {1, 2} or vectors.shape[-1] != count:
        raise UsageError(
            f"{name} of shape {vectors.shape}: the model has {count} numbers per image"
        )
    vectors = np.atleast_2d(vectors)
    return vectors[None] if each or len(vectors) == 1 else _rows(name, vectors, images)[:, None]


def _rows(name: str, values: NDArray[Any], images: int) -> NDArray[Any]:
    if len(values) != images:
        raise UsageError(f"{len(values)} of {name} for {images} images; give one, or one each")
    return values


def _floats(name: str, value: ArrayLike) -> NDArray[np.float32]:
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} is no array of numbers: {error}") from error
    if not np.isfinite(array).all():
        raise UsageError(f"{name} holds NaN or infinite values")
    return array
