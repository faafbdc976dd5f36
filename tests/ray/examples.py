"""Images that kill whatever reads them, and batches that Ray does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.batch import BatchOptions, run_batch
from onnx_gradcam.batch.engine import BatchSummary
from onnx_gradcam.batch.sources import FileImage, Reference, Sources
from onnx_gradcam.ray import Actors, RayEngine
from onnx_gradcam.runtime import load

ALWAYS = 1000
OPTIONS = BatchOptions(shard_size=4, top_k=2)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def take_all_memory() -> None:
    np.ones(2**60, np.uint8)


FATES = {"killed": kill, "memory": take_all_memory}


@dataclass(frozen=True)
class DeadlyImage(FileImage):
    """An image file whose reader meets a fate, as many times as it says."""

    fate: str = "killed"
    times: int = 1
    folder: str = ""

    def read(self) -> bytes:
        told = Path(self.folder)
        before = len(list(told.iterdir()))
        if before < self.times:
            (told / str(before)).touch()
            FATES[self.fate]()
        return super().read()


@dataclass(frozen=True)
class DeadlySources(Sources):
    """Sources in which some images are deadly.

    Attributes:
        deadly: number of the image -> fate and how many times.
        folder: where to count.
    """

    deadly: dict[int, tuple[str, int]] = field(default_factory=dict)
    folder: str = ""

    def references(self) -> Iterator[Reference]:
        for number, image in enumerate(super().references()):
            if number not in self.deadly:
                yield image
                continue
            assert isinstance(image, FileImage)
            counted = Path(self.folder) / str(number)
            counted.mkdir(parents=True, exist_ok=True)
            fate, times = self.deadly[number]
            yield DeadlyImage(image.name, image.file, fate, times, str(counted))


def ray_batch(
    model: Path,
    sources: Sources | Path,
    output: Path,
    options: BatchOptions = OPTIONS,
    actors: Actors | None = None,
    **more: Any,
) -> BatchSummary:
    inputs = Sources((str(sources),)) if isinstance(sources, Path) else sources
    explainer = load(model, device="cpu")
    with RayEngine(model, explainer, options, actors or Actors(2)) as engine:
        return run_batch(model, explainer, engine, inputs, output, options, **more)


def deadly(images: Path, folder: Path, **numbers: tuple[str, int]) -> DeadlySources:
    return DeadlySources(
        (str(images),),
        deadly={int(name[1:]): fate for name, fate in numbers.items()},
        folder=str(folder),
    )


def counted(folder: Path, number: int) -> int:
    return len(list((folder / str(number)).iterdir()))


def parts(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def same(summary: BatchSummary) -> BatchSummary:
    return replace(summary, seconds=0, done_before=0)
