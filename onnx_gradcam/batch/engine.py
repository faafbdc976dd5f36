"""`run_batch`: all shards that are not finished are explained, and put into place one by one.

An engine is what has shards explained: here, by this process; `onnx_gradcam.ray` has it done by a
cluster.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from onnx_gradcam.batch.coco import write_coco
from onnx_gradcam.batch.layout import COCO, MANIFEST
from onnx_gradcam.batch.manifest import (
    SAME,
    DamagedManifestError,
    manifest_of,
    read_manifest,
    refuse_foreign,
    refuse_other,
    write_manifest,
)
from onnx_gradcam.batch.options import BatchOptions
from onnx_gradcam.batch.parts import ResultFolder
from onnx_gradcam.batch.rows import ImageResult
from onnx_gradcam.batch.shards import Shard, shards
from onnx_gradcam.batch.sources import Sources
from onnx_gradcam.batch.tables import import_pyarrow
from onnx_gradcam.batch.worker import Save, ShardResult, ShardWorker
from onnx_gradcam.errors import BatchError, OutputError
from onnx_gradcam.pipeline import Division
from onnx_gradcam.runtime import Explainer

OnImage = Callable[[ImageResult], None]
OnProgress = Callable[[int], None]


class Engine(Protocol):
    """Has shards explained."""

    def results(
        self, todo: Iterable[Shard], save: Save, on_image: OnImage
    ) -> Iterator[ShardResult]:
        """Yield what becomes of shards, in any order.

        Args:
            todo: the shards, read as they can be taken.
            save: takes files of results.
            on_image: is told of each image, or of none before its shard is done.
        """


class LocalEngine:
    """Explains in this process, with as many threads as the machine has cores."""

    def __init__(self, explainer: Explainer, options: BatchOptions, division: Division) -> None:
        """Take a loaded file, what is wanted, and how the machine is divided.

        Raises:
            OnnxGradCamError: what `ShardWorker` refuses.
        """
        self._worker = ShardWorker(explainer, options, division.workers_on(explainer.providers))

    def results(
        self, todo: Iterable[Shard], save: Save, on_image: OnImage
    ) -> Iterator[ShardResult]:
        """Yield what becomes of shards, in order."""
        for shard in todo:
            yield self._worker.run(shard, save, on_image)


@dataclass(frozen=True)
class BatchSummary:
    """What a batch came to.

    Attributes:
        images: how many there are.
        errors: how many of them could not be explained.
        rows: how many rows the table has.
        parts: in how many files.
        done_before: images that an earlier run had done.
        seconds: what this run took.
        first_error: what is wrong with the first image of this run that failed; empty without one.
    """

    images: int
    errors: int
    rows: int
    parts: int
    done_before: int
    seconds: float
    first_error: str = ""


def run_batch(
    exported: Path,
    explainer: Explainer,
    engine: Engine,
    sources: Sources,
    folder: Path,
    options: BatchOptions,
    *,
    max_errors: int | None = None,
    coco: bool = False,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> BatchSummary:
    """Explain all images and write what was found; what is there already is not done again.

    Args:
        exported: the exported file, for the manifest.
        explainer: it, loaded.
        engine: has shards explained.
        sources: the images.
        folder: where results go; created when missing.
        options: what is wanted.
        max_errors: stop when more images than this cannot be explained; None to go on.
        coco: also write ``coco.json``.
        force: begin anew where the folder holds results.
        on_progress: is told how many images are done, again and again.

    Raises:
        UsageError: an input that is not there, or holds no images.
        OutputError: the folder holds another batch, images that have changed since, or is in use.
        BatchError: more than `max_errors` images cannot be explained.
        WriteError: the disk is full. All parts that were written before are intact.
    """
    import_pyarrow()
    began = time.monotonic()
    tell = on_progress or (lambda _images: None)
    manifest = manifest_of(explainer, exported, _sha256(exported), sources, options)
    images = sources.beside(folder).references()
    images = chain([next(images)], images)  # an input that is not there is told before all else
    with closing(ResultFolder(folder)) as results:
        manifest["coco"] = _make_ready(results, manifest, force=force, coco=coco)
        write_manifest(folder, manifest)
        count = _Count(max_errors, tell)
        todo = _unfinished(results, shards(images, options.shard_size), count)
        for result in engine.results(todo, results.save, count.image):
            if manifest["coco"]:  # it is of fewer images
                (folder / COCO).unlink(missing_ok=True)
                manifest["coco"] = False
            results.commit(result)
            count.shard(result)
        found = list(results.parts())
        if len(found) != count.shards:
            raise OutputError(
                f"{folder} holds {len(found)} parts, and the inputs make {count.shards}: there are"
                " fewer images than before; take another folder, or begin anew with --force"
            )
        if coco:
            manifest["coco"] = True  # before there is one: a run that is killed leaves it ours
            write_manifest(folder, manifest)
            write_coco(folder, [part.file for part in found])
        totals = {
            "images": sum(part.images for part in found),
            "errors": sum(part.errors for part in found),
            "rows": sum(part.rows for part in found),
            "parts": len(found),
        }
        write_manifest(folder, manifest | {"complete": True} | totals)
    return BatchSummary(
        **totals,
        done_before=count.done_before,
        seconds=time.monotonic() - began,
        first_error=count.first_error,
    )


def _make_ready(
    results: ResultFolder, manifest: dict[str, Any], *, force: bool, coco: bool
) -> bool:
    """Begin, or begin anew, or go on where the same batch was left.

    Returns:
        whether there is a ``coco.json`` of that batch.

    Raises:
        OutputError: the folder holds something else.
        DamagedManifestError: its manifest cannot be read, without `force`.
    """
    folder, has_parts = results.folder, any(results.parts())
    try:
        old = read_manifest(folder)
    except DamagedManifestError as error:
        if not has_parts:
            raise OutputError(
                f"{folder / MANIFEST} is damaged, or of something else; remove it, or take another"
                " folder"
            ) from error
        if not force:
            raise
        old = dict.fromkeys(SAME) | {"coco": True}
    if old is not None:
        refuse_foreign(old, folder)
    elif has_parts:
        raise OutputError(f"{folder} holds parts without a manifest; take another folder")
    has_coco = old is not None and bool(old.get("coco"))
    if coco and not has_coco and (folder / COCO).exists():
        raise OutputError(f"{folder / COCO} is of something else; take another folder")
    if force and old is not None:
        results.clear(coco=has_coco)
        has_coco = False
    elif old is not None:
        refuse_other(old, manifest, folder)
    results.tidy()
    return has_coco


class _Count:
    """What has become of the images so far."""

    def __init__(self, max_errors: int | None, tell: OnProgress) -> None:
        self._max_errors, self._tell = max_errors, tell
        self.errors = self.shards = self.done_before = 0
        self.first_error = ""
        self._told_now = 0

    def before(self, images: int, errors: int) -> None:
        """Count a shard that was done before."""
        self.shards += 1
        self.done_before += images
        self._tell(images)
        self._fail(errors, "in the results of an earlier run")

    def image(self, result: ImageResult) -> None:
        """Count an image."""
        self._told_now += 1
        self._tell(1)
        if result.failed:
            self._fail(1, result.told)

    def shard(self, result: ShardResult) -> None:
        """Count a shard, and those of its images that were not counted one by one."""
        self.shards += 1
        self.first_error = self.first_error or result.first_error
        if not self._told_now:
            for _ in range(result.images):  # one by one, as images of this run are told
                self._tell(1)
            self._fail(result.errors, result.first_error)
        self._told_now = 0

    def _fail(self, errors: int, last: str) -> None:
        self.errors += errors
        if self._max_errors is not None and self.errors > self._max_errors:
            raise BatchError(
                f"more than {self._max_errors} images failed (--max-errors), the last one: {last}"
            )


def _unfinished(results: ResultFolder, every: Iterable[Shard], count: _Count) -> Iterator[Shard]:
    """Yield the shards that have no part yet.

    Raises:
        OutputError: a part is of other images than its shard.
    """
    for shard in every:
        part = results.finished(shard.number)
        if part is None:
            yield shard
        elif part.digest != shard.digest:
            raise OutputError(
                f"the images have changed since {part.file} was written: its first one should be"
                f" {shard.images[0].name}; take another folder, or begin anew with --force"
            )
        else:
            count.before(part.images, part.errors)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
