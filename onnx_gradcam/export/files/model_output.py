"""Write a model file, whole or not at all: a `ModelProto` in, files on disk out.

Everything is first written, flushed to the device and (by the caller) verified in a hidden
staging folder beside the output, so nothing half-written ever carries the output's name. `commit`
then moves a former export into the staging folder, the new weights into place and the new model
last. So a model never stands beside weights of another export: a failure puts the former files
back, and a crash leaves at worst weights without a model, the former files in the staging folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx

from onnx_gradcam.errors import OutputError, WriteError
from onnx_gradcam.export.files.embedded import write_embedded
from onnx_gradcam.export.files.external_data import (
    ExternalReference,
    all_tensors,
    external_chunks,
    is_external,
    refer,
    reference,
    with_values,
)
from onnx_gradcam.export.files.unread import place_of

DATA_SUFFIX = ".data"
"""Appended to the output's name for the file that holds external data."""

ALIGNMENT = 4096
"""Offsets of external tensors are multiples of this page size, so they can be memory-mapped."""

EXTERNAL_FROM = 1024
"""Tensors of at least so many bytes move to the data file; smaller ones stay in the model."""

FORMER = "former"
"""Folder in the staging folder that holds what a commit replaces, until it is done."""

EMBEDDED_LIMIT = 2**31 - 1
"""A model of more bytes cannot be one protobuf message; its weights become external data."""


def data_path(output: Path) -> Path:
    """Return the path of the external data file that belongs to `output`."""
    return output.with_name(output.name + DATA_SUFFIX)


def check_output(
    output: str | Path,
    force: bool = False,
    *,
    source: Path | None = None,
    model: onnx.ModelProto | None = None,
) -> Path:
    """Check before any work that `output` could be written, and return it as a path.

    Args:
        output: the file to be written.
        force: an existing regular file may be replaced.
        source: the input file, which must not be overwritten.
        model: the input model, whose external data files must not be overwritten either.

    Raises:
        OutputError: it exists (without `force`), is the input or one of its data files, is not a
            regular file, or its folder is missing or cannot be written to.
    """
    output = Path(output)
    folder = output.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"no folder {folder} to write {output.name} to")
    if output.is_dir():
        raise OutputError(f"the output {output} is a folder; give a file name")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to the folder {folder}")
    inputs = [] if source is None else [source, *_data_files(model, source.absolute().parent)]
    for path in (output, data_path(output)):
        if not (path.exists() or path.is_symlink()):
            continue
        for used in inputs:
            if used.exists() and path.exists() and path.samefile(used):
                raise OutputError(f"{path} belongs to the input model; choose another output")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path} is not a regular file")
    _refuse_existing([output], force)
    return output


def _data_files(model: onnx.ModelProto | None, folder: Path) -> set[Path]:
    if model is None:
        return set()
    return {folder / reference(t).location for t in all_tensors(model) if is_external(t)}


@dataclass(frozen=True)
class StagedModel:
    """A model written to a staging folder, not yet under its own name.

    Attributes:
        path: the staged model file; its external data, if any, lies beside it.
        output: where `commit` will put it.
        bytes_written: size of the model file and its data file together.
        force: an existing output may be replaced.
    """

    path: Path
    output: Path
    bytes_written: int
    force: bool

    def commit(self) -> None:
        """Move the staged files to their final names, the model last.

        Raises:
            OutputError: the output has appeared meanwhile, and may not be replaced.
            WriteError: a move failed; the former files are back in place.
        """
        staged_files = [p for p in (data_path(self.path), self.path) if p.exists()]
        moves = [(p, self.output.with_name(p.name)) for p in staged_files]
        _refuse_existing([final for _, final in moves], self.force)
        former = self.path.parent / FORMER
        try:
            former.mkdir()
            for _, final in reversed(moves):
                if final.exists() or final.is_symlink():
                    final.replace(former / final.name)
            for staged, final in moves:
                staged.replace(final)
            _flush_folder(self.output.absolute().parent)
        except BaseException as error:
            _put_back(moves, former)
            if isinstance(error, OSError):
                raise WriteError(_failure(self.output, error)) from error
            raise
        shutil.rmtree(former, ignore_errors=True)


def _put_back(moves: list[tuple[Path, Path]], former: Path) -> None:
    """Undo a commit however far it came: what is in `former` was there before."""
    for staged, final in moves:
        if not staged.exists() and final.exists():
            final.replace(staged)
        if (former / final.name).exists():
            (former / final.name).replace(final)
    former.rmdir()


def _refuse_existing(paths: list[Path], force: bool) -> None:
    for path in paths:
        if not force and (path.exists() or path.is_symlink()):
            raise OutputError(f"{path} exists; replace it with --force")


@contextmanager
def staged_model(
    model: onnx.ModelProto,
    output: str | Path,
    *,
    base_dir: Path | None = None,
    external: bool = False,
    force: bool = False,
    source: Path | None = None,
) -> Iterator[StagedModel]:
    """Write `model` to a staging folder beside `output`; without a `commit` it vanishes.

    The same model gives the same bytes. External and unread tensors are copied one by one.

    Args:
        model: not modified; may refer to external data.
        output: final path.
        base_dir: folder of the external data that `model` refers to.
        external: put tensors of `EXTERNAL_FROM` bytes or more into ``<output name>.data``;
            done in any case for a model too large for one file.
        force: `commit` may replace an existing output.
        source: the input file, which must not be overwritten.

    Yields:
        The staged model.

    Raises:
        OutputError: the output cannot be written, see `check_output`.
        InvalidModelError: external data of `model` cannot be read.
        WriteError: the disk is full or the device failed.
    """
    output = check_output(output, force, source=source, model=model if source else None)
    external = external or _size(model) > EMBEDDED_LIMIT
    if external:
        _refuse_existing([data_path(output)], force)
    folder = output.absolute().parent
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{output.name[:64]}.", suffix=".tmp", dir=folder))
    except OSError as error:
        raise OutputError(f"cannot write to the folder {folder}: {error.strerror}") from error
    try:
        path = staging / output.name
        try:
            size = _write_model(model, path, base_dir, external)
        except OSError as error:
            raise WriteError(_failure(output, error)) from error
        yield StagedModel(path, output, size, force)
    finally:
        if not (staging / FORMER).exists():  # else an undo failed: keep the former files
            shutil.rmtree(staging, ignore_errors=True)


def save_model(
    model: onnx.ModelProto,
    output: str | Path,
    *,
    base_dir: Path | None = None,
    external: bool = False,
    force: bool = False,
    source: Path | None = None,
) -> int:
    """Write `model` to `output`, whole or not at all, and return the number of bytes written.

    Arguments and errors are those of `staged_model`.

    Raises:
        OnnxGradCamError: `OutputError`, `InvalidModelError` or `WriteError`.
    """
    with staged_model(
        model, output, base_dir=base_dir, external=external, force=force, source=source
    ) as staged:
        staged.commit()
        return staged.bytes_written


def _size(model: onnx.ModelProto) -> int:
    embedded: int = model.ByteSize()
    places = map(place_of, model.graph.initializer)
    unread = sum(place.length for place in places if place is not None)
    elsewhere = sum(reference(t).length for t in all_tensors(model) if is_external(t))
    return embedded + unread + elsewhere


def _write_model(model: onnx.ModelProto, path: Path, base_dir: Path | None, external: bool) -> int:
    light = model
    if external or any(t.data_location == onnx.TensorProto.EXTERNAL for t in all_tensors(model)):
        light = onnx.ModelProto()
        light.CopyFrom(model)
    written = 0
    if external:
        written = _write_data(light, data_path(path), base_dir)
    else:
        for tensor in filter(is_external, all_tensors(light)):
            tensor.CopyFrom(with_values(tensor, base_dir))
    with path.open("xb") as file:
        written += write_embedded(light, file)
        file.flush()
        os.fsync(file.fileno())
    return written


def _write_data(light: onnx.ModelProto, path: Path, base_dir: Path | None) -> int:
    """Move the large tensors of `light` to `path`; tensors that share bytes keep sharing them.

    Attributes (of Constant nodes, say) move only if they were external before.
    """
    initializers = len(light.graph.initializer)
    placed: dict[ExternalReference, int] = {}
    with path.open("xb") as file:
        for index, tensor in enumerate(all_tensors(light)):
            origin = reference(tensor) if is_external(tensor) else None
            if origin is None and index >= initializers:
                continue
            if origin in placed:
                refer(tensor, path.name, placed[origin], origin.length)
                continue
            chunks = _values(tensor, origin, base_dir)
            if chunks is None:
                if origin:
                    tensor.CopyFrom(with_values(tensor, base_dir))
                continue
            offset = _align(file)
            refer(tensor, path.name, offset, sum(map(file.write, chunks)))
            if origin:
                placed[origin] = offset
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def _align(file: BinaryIO) -> int:
    """Fill a file up to the next page, and return where that starts."""
    file.write(b"\0" * (-file.tell() % ALIGNMENT))
    return file.tell()


def _values(
    tensor: onnx.TensorProto, origin: ExternalReference | None, base_dir: Path | None
) -> Iterable[bytes] | None:
    """Return the values of a tensor in chunks, None for those that stay in the model."""
    if (place := place_of(tensor)) is not None:
        return place.chunks()
    if origin is not None:
        large = origin.length >= EXTERNAL_FROM
        return external_chunks(tensor, base_dir) if large else None
    values = tensor.raw_data
    return [values] if len(values) >= EXTERNAL_FROM else None


def _flush_folder(folder: Path) -> None:
    """Make the renames durable where the platform can flush a folder; Windows cannot."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failure(output: Path, error: OSError) -> str:
    return f"cannot write {output}: {error.strerror}; nothing was left behind"
