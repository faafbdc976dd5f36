"""The folder of a model in a Triton model repository: an exported file in, the folder out.

    DIR/NAME/config.pbtxt
    DIR/NAME/labels.txt      where the file holds labels
    DIR/NAME/1/model.onnx    the exported file, byte for byte; external data beside it

The folder is written under a hidden name in DIR and then renamed, whole or not at all.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnx_gradcam.contract import ExportMetadata
from onnx_gradcam.errors import (
    MissingDependencyError,
    OutputError,
    UnsupportedModelError,
    UsageError,
    WriteError,
)
from onnx_gradcam.export.files.external_data import all_tensors, is_external, reference
from onnx_gradcam.export.files.model_file import LoadedModel, load_model
from onnx_gradcam.export.sessions import open_session, runtime_version
from onnx_gradcam.export.triton.batching import obstacle
from onnx_gradcam.export.triton.config import (
    LABELS_FILE,
    MODEL_FILE,
    config_text,
    has_labels,
    labels_text,
)
from onnx_gradcam.export.triton.tensors import signature
from onnx_gradcam.files import DEVICE_ERRORS, make_folder, refuse_existing

CONFIG_FILE = "config.pbtxt"
VERSION = "1"

MAX_BATCH_SIZE = 8
"""Images that the scheduler puts together at most; a number in config.pbtxt, to be tuned."""

_OWN = {CONFIG_FILE, LABELS_FILE, VERSION}
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class TritonModel:
    """A model in a Triton model repository.

    Attributes:
        folder: that of the model, ``DIR/NAME``.
        max_batch_size: images that Triton puts together at most, 0 where it cannot.
        obstacle: why it cannot, with the way out; else empty.
    """

    folder: Path
    max_batch_size: int
    obstacle: str = ""

    def __str__(self) -> str:
        """Return a line for reports."""
        if self.obstacle:
            return f"{self.folder}, without dynamic batching: {self.obstacle}"
        return f"{self.folder}, with dynamic batching up to {self.max_batch_size} images"


def write_triton(
    exported: str | Path,
    repository: str | Path,
    *,
    name: str | None = None,
    max_batch_size: int = MAX_BATCH_SIZE,
    force: bool = False,
    inputs: Mapping[str, NDArray[Any]] | None = None,
) -> TritonModel:
    """Write the folder of a Triton model for a file that `export_model` wrote.

    Requests are put together (``dynamic_batching``) where every input and output has an axis of
    images and no input is optional; otherwise max_batch_size is 0, and a request is run as it is.

    Args:
        exported: the exported file.
        repository: folder of models; created when missing.
        name: of the model; None makes one of the file's name.
        max_batch_size: images that Triton puts together at most.
        force: replace what an earlier call wrote.
        inputs: values to try the file with, for inputs that random ones do not do for.

    Raises:
        OutputError: the folder exists (without `force`), holds other things, or cannot be written.
        UsageError: the file does not exist, or a name or size that Triton does not take.
        NotExportedError: the file carries no explanation.
        ModelError: the file cannot be read, or holds what Triton does not serve.
        MissingDependencyError: onnxruntime is not installed.
        WriteError: the disk is full; nothing is left behind.
    """
    if max_batch_size < 1:
        raise UsageError(f"max_batch_size is {max_batch_size}; it takes 1 or more")
    path = Path(exported)
    folder = triton_folder(path, repository, name, force)
    loaded = load_model(path, check=False, weights=False)
    props = {prop.key: prop.value for prop in loaded.model.metadata_props}
    metadata = ExportMetadata.from_props(props, str(path))
    session = _session(path)
    found = signature(session, loaded.model.graph)
    problem = obstacle(session, loaded, metadata, found, inputs or {})
    size = 0 if problem else max_batch_size
    texts = {CONFIG_FILE: config_text(folder.name, found, metadata, size)}
    if metadata.labels is not None and has_labels(found, metadata):
        texts[LABELS_FILE] = labels_text(metadata.labels)
    make_folder(folder.parent)
    with _staged(folder, force) as staged:
        version = staged / VERSION
        version.mkdir(parents=True)
        shutil.copyfile(path, version / MODEL_FILE)
        for location in _data_files(loaded):
            target = version / location
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path.absolute().parent / location, target)
        for file, text in texts.items():
            (staged / file).write_text(text, encoding="utf-8", newline="\n")
    return TritonModel(folder, size, problem)


def triton_folder(
    exported: Path, repository: str | Path, name: str | None = None, force: bool = False
) -> Path:
    """Return the folder of a model, once it is clear that it may be written.

    Raises:
        UsageError: a name that is not one of letters, digits, `_`, `-` and `.`.
        OutputError: it exists (without `force`), or holds what an export does not write.
    """
    if name is None:
        stem = exported.name.removesuffix(".onnx")
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_") or "model"
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a Triton model; use letters, digits, _ - and .")
    root = Path(repository)
    if root.exists() and not root.is_dir():
        raise OutputError(f"the Triton repository {root} is no folder")
    folder = root / name
    refuse_existing(folder, force)
    if folder.exists() and (strange := _not_ours(folder)):
        raise OutputError(f"{folder} {strange}, and so is not replaced; remove it yourself")
    return folder


def _not_ours(folder: Path) -> str:
    """Return what tells a folder from what an export writes; empty where nothing does."""
    if not (folder / CONFIG_FILE).is_file():
        return f"has no {CONFIG_FILE}"
    others = sorted(path.name for path in folder.iterdir() if path.name not in _OWN)
    return f"holds {others[0]!r}, which no export wrote" if others else ""


def _session(path: Path) -> Any:
    try:
        return open_session(path, optimise=True)
    except MissingDependencyError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no base class
        reason = " ".join(str(error).split())[:200]
        raise UnsupportedModelError(
            f"onnxruntime {runtime_version()} does not load {path} here, so what to tell Triton of"
            f" it is not known: {reason}"
        ) from error


def _data_files(loaded: LoadedModel) -> list[str]:
    """Return the paths of external data, relative to the file; they lie below its folder."""
    return sorted({reference(t).location for t in all_tensors(loaded.model) if is_external(t)})


@contextmanager
def _staged(folder: Path, force: bool) -> Iterator[Path]:
    """Give a hidden folder to write to, which gets the name of `folder` in the end.

    Raises:
        OutputError: the folder has appeared meanwhile, or cannot be written.
        WriteError: the disk is full or the device failed.
    """
    staging = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    former = staging.with_suffix(".former")
    try:
        yield staging
        refuse_existing(folder, force)
        if folder.exists():
            folder.rename(former)
        staging.rename(folder)
    except BaseException as error:
        if former.exists() and not folder.exists():
            former.rename(folder)
        if not isinstance(error, OSError):
            raise
        kind = WriteError if error.errno in DEVICE_ERRORS else OutputError
        raise kind(f"cannot write {folder}: {error.strerror}") from error
    finally:
        for left in (staging, former):
            shutil.rmtree(left, ignore_errors=True)
