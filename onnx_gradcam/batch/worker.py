"""One shard explained: its images in, a table and pictures out. The same for every engine."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_gradcam.batch.layout import arrays_path, overlay_path
from onnx_gradcam.batch.options import BatchOptions
from onnx_gradcam.batch.rows import ImageResult, failure, rows_of_explanation
from onnx_gradcam.batch.schema import Row, table_of
from onnx_gradcam.batch.shards import Shard
from onnx_gradcam.batch.sources import Reference
from onnx_gradcam.errors import ImageError, OnnxGradCamError, UsageError
from onnx_gradcam.pipeline import explain_images
from onnx_gradcam.runtime import Explainer, Explanation
from onnx_gradcam.runtime.image_header import read_header
from onnx_gradcam.runtime.photo import PhotoSource

UNNAMED = "the given bytes: "
"""How errors of images in memory begin; the table says which image it is."""

USUAL_SIDE = 224
"""Of a photo to try with, where the model takes any."""

Save = Callable[[str, bytes], None]
"""Takes a file of results, by its path in their folder."""


@dataclass(frozen=True)
class ShardResult:
    """What became of a shard.

    Attributes:
        number: of the shard.
        digest: of the names of its images.
        table: its rows, a ``pyarrow.Table``.
        images: how many it has.
        errors: how many of them could not be explained.
        first_error: what is wrong with the first of these; empty where there is none.
    """

    number: int
    digest: str
    table: Any
    images: int
    errors: int
    first_error: str = ""


class ShardWorker:
    """Explains shards, one after the other, with a session of its own."""

    def __init__(
        self, explainer: Explainer, options: BatchOptions, workers: int | None = None
    ) -> None:
        """Take what explains, and what is wanted.

        Args:
            explainer: a loaded file.
            options: what is wanted.
            workers: how many images are under way at a time; None as `pipeline.divide` says.

        Raises:
            UsageError: it cannot be had from this file, of no image: a class that it does not
                have, no preprocessing.
            UnsupportedModelError: likewise: a method that it cannot serve.
        """
        if options.top_k is not None and options.top_k > explainer.num_classes:
            raise UsageError(
                f"no {options.top_k} highest scores: the model has {explainer.num_classes} classes"
            )
        _refuse_what_differs_by_image(explainer)
        self._explainer, self._options, self._workers = explainer, options, workers
        declared = explainer.image_input
        shape = tuple(size or USUAL_SIDE for size in declared.shape)
        sides = declared.spatial(shape)
        blank = np.zeros((*(sides if len(sides) == 2 else (USUAL_SIDE,) * 2), 3), np.uint8)
        explainer.explain_image(blank, options.wanted, options.method, **self._how)

    @property
    def _how(self) -> Any:
        return dict(self._options.how)

    def run(
        self, shard: Shard, save: Save, on_image: Callable[[ImageResult], None] | None = None
    ) -> ShardResult:
        """Explain a shard.

        Args:
            shard: its images.
            save: takes overlays and arrays, as they become ready.
            on_image: is told of each image; what it raises stops the run.

        Raises:
            OnnxGradCamError: of `save`, or of `on_image`.
        """
        rows: list[Row] = []
        errors, first_error = 0, ""
        arrays: dict[str, Any] = {}
        with closing(self.results(shard)) as results:
            for result in results:
                if result.picture is not None:
                    number = result.rows[0]["image"]
                    path = overlay_path(shard.number, number, self._options.overlays or "")
                    save(path, result.picture)
                    result.rows[0]["overlay"] = path
                for rank, raw in result.maps.items():
                    arrays[f"{result.rows[0]['image']}-{rank}"] = raw
                if result.failed:
                    errors += 1
                    first_error = first_error or result.told
                rows += result.rows
                if on_image is not None:
                    on_image(result)
        if self._options.arrays:
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            save(arrays_path(shard.number), buffer.getvalue())
        table, images = table_of(rows), len(shard.images)
        return ShardResult(shard.number, shard.digest, table, images, errors, first_error)

    def results(self, shard: Shard) -> Generator[ImageResult, None, None]:
        """Yield what becomes of each image, in order."""
        numbered = enumerate(shard.images, start=shard.first)
        explained = explain_images(
            self._explainer,
            numbered,
            self._options.wanted,
            self._options.method,
            read=self._read,
            finish=self._finish,
            batch=self._options.batch,
            workers=None if self._workers is None else min(self._workers, len(shard.images)),
            failures=(OnnxGradCamError,),
            **self._how,
        )
        with closing(explained):
            for one in explained:
                number, image = one.source
                if one.result is not None:
                    yield one.result
                else:
                    text = str(one.error).removeprefix(UNNAMED)
                    yield failure(number, image.name, ImageError(text))

    def _read(self, numbered: tuple[int, Reference]) -> PhotoSource:
        data = numbered[1].read()
        size = data.shape[:2] if isinstance(data, np.ndarray) else _encoded_size(data)
        most = self._options.max_pixels
        if size is not None and math.prod(size) > most:
            raise ImageError(
                f"{size[1]} x {size[0]} pixels, more than the {most} allowed;"
                " raise --max-pixels if you trust it"
            )
        return data

    def _finish(self, numbered: tuple[int, Reference], explanation: Explanation) -> ImageResult:
        number, image = numbered
        return rows_of_explanation(number, image.name, explanation, self._options)


def _encoded_size(data: bytes) -> tuple[int, int] | None:
    header = read_header(data)
    return None if header is None else (header.height, header.width)


def _refuse_what_differs_by_image(explainer: Explainer) -> None:
    """Refuse a file that is told more about each image than which class to explain.

    Raises:
        UsageError: it compares with an embedding, or the model has other inputs that must be fed.
    """
    needed = [f"input {name!r}" for name in explainer.extra_inputs.required]
    if explainer.metadata.objective == "similarity":
        needed.append("an embedding to compare with")
    if needed:
        raise UsageError(
            f"the file needs {' and '.join(needed)}, which a batch cannot give; use"
            " onnx-gradcam explain, or Explainer.explain"
        )
