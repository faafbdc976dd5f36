"""Read a model file: path, bytes or `ModelProto` in, a checked `LoadedModel` out.

External data stays in its files; `LoadedModel.tensor_values` fetches one tensor at a time, so a
model larger than memory's 2 GB message limit can be read as well. Large weights inside the model
file can be left there too (`light_model`). Writing is in `model_output`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_gradcam.errors import InvalidModelError, UsageError
from onnx_gradcam.export.expansion.foreign import as_checked
from onnx_gradcam.export.files.external_data import (
    all_tensors,
    check_references,
    is_external,
    with_values,
)
from onnx_gradcam.export.files.file_kinds import SNIFFED_BYTES, describe_content, missing_bytes
from onnx_gradcam.export.files.light_model import read_light
from onnx_gradcam.export.files.unread import is_unread, without_unread

MESSAGE_LIMIT = 2**31 - 1
"""Largest protobuf message in bytes; larger models keep their weights as external data."""

_HARMLESS = (
    "Field 'shape' of 'type' is required",
    "Field 'type' of 'value_info' is required",
    "Op registered for GroupNormalization is deprecated",
)
"""The checker refuses graph outputs without a shape, and GroupNormalization of opset 18 to 20;
onnxruntime runs both."""

_UNREGISTERED = "No Op registered for"
"""What the checker says of operators that onnxruntime has in the default domain."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that passed the structural check.

    Attributes:
        model: the graph; tensors with external data keep their references, and large weights may
            have been left in the file.
        path: the file it came from, None for bytes and `ModelProto`.
        sha256: hex digest of that file, or of the (deterministically serialised) bytes.
        base_dir: folder in which external data lies, None when there is no file.
        has_external_data: whether any tensor refers to another file.
    """

    model: onnx.ModelProto
    path: Path | None
    sha256: str
    base_dir: Path | None
    has_external_data: bool

    def tensor_values(self, tensor: onnx.TensorProto) -> np.ndarray[Any, Any]:
        """Return the values of one tensor of the model, fetched from its file if need be.

        Raises:
            InvalidModelError: its external data is missing, too short or outside the folder.
        """
        return numpy_helper.to_array(with_values(tensor, self.base_dir))

    def whole(self) -> LoadedModel:
        """Return the model with all weights of its file; external data stays where it is.

        Raises:
            InvalidModelError: the file is gone, or has changed since.
        """
        if not any(map(is_unread, self.model.graph.initializer)):
            return self
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for tensor in filter(is_unread, model.graph.initializer):
            tensor.CopyFrom(with_values(tensor, None))
        return replace(self, model=model)


def load_model(
    model: str | Path | bytes | onnx.ModelProto, *, check: bool = True, weights: bool = True
) -> LoadedModel:
    """Read and check a model.

    Args:
        model: path of an ``.onnx`` file, the bytes of one, or a `ModelProto` (kept, not copied).
        check: have onnx.checker look at its structure.
        weights: read the large weights as well; otherwise those of a file stay in it until
            `LoadedModel.tensor_values` is asked for them.

    Raises:
        UsageError: the path does not exist, is no file or cannot be read.
        InvalidModelError: not an ONNX model, damaged, structurally wrong, or its external data
            is missing, too short or outside its folder.
    """
    if isinstance(model, onnx.ModelProto):
        proto, path, name = model, None, "the model"
        digest = hashlib.sha256(_serialise(model)).hexdigest()
    else:
        path = None if isinstance(model, bytes) else Path(model)
        name = "the model" if path is None else str(path)
        light = None if weights or path is None else read_light(path)
        proto, digest = light or _read_whole(model, name)
    base_dir = None if path is None else path.absolute().parent
    external = any(map(is_external, all_tensors(proto)))
    if external:
        if base_dir is None:
            raise InvalidModelError(
                f"{name} refers to external data, but bytes and ModelProto have no folder;"
                " give the path of the model file"
            )
        try:
            check_references(proto, base_dir)
        except InvalidModelError as error:
            raise InvalidModelError(f"{name}: {error}") from error
    if not proto.HasField("graph"):
        raise InvalidModelError(f"{name} is no ONNX model: it has no graph")
    if not proto.graph.node:
        raise InvalidModelError(f"{name} has an empty graph: no operators")
    if twice := imported_twice(proto):
        raise InvalidModelError(
            f"{name} is not a valid ONNX model: it imports {twice}, two versions of one domain"
        )
    loaded = LoadedModel(proto, path, digest, base_dir, external)
    problem = _structural_problem(loaded) if check else None
    if problem:
        raise InvalidModelError(f"{name} is not a valid ONNX model: {problem}")
    return loaded


def _structural_problem(loaded: LoadedModel) -> str | None:
    """Return what onnx.checker has against a model; unread weights are well-formed."""
    if loaded.has_external_data and loaded.path:
        return structural_problem(loaded.path)
    problem = structural_problem(without_unread(loaded.model))
    whole = loaded if problem is None else loaded.whole()
    return problem if whole is loaded else structural_problem(whole.model)


def imported_twice(model: onnx.ModelProto) -> str:
    """Return the versions of an operator domain of which several are imported, else "".

    Merged models list the same version more than once: `onnx.compose` does not join the lists.
    """
    versions: dict[str, list[int]] = {}
    for entry in model.opset_import:
        known = versions.setdefault(entry.domain or "ai.onnx", [])
        if entry.version not in known:
            known.append(entry.version)
    for domain, found in versions.items():
        if len(found) > 1:
            return " and ".join(f"{domain} {version}" for version in found)
    return ""


def structural_problem(model: Path | onnx.ModelProto, *, full: bool = False) -> str | None:
    """Return what onnx.checker has against a model, on one line, or None.

    What onnxruntime runs all the same is let pass.

    Args:
        model: a path (needed when there is external data) or the model itself.
        full: infer all shapes and types as well.
    """
    target = str(model) if isinstance(model, Path) else model
    try:
        _check(target, full)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return None if _is_harmless(error) else _one_line(error)
    except (ValueError, RuntimeError, OSError) as error:
        return _one_line(error)
    return None


def _check(target: str | onnx.ModelProto, full: bool) -> None:
    """Have onnx.checker look at a model; it does not object to onnxruntime's own operators.

    Raises:
        ValidationError: what it objects to; full checks raise an `InferenceError` as well.
    """
    try:
        onnx.checker.check_model(target, full_check=full)
    except onnx.checker.ValidationError as error:
        if _UNREGISTERED not in str(error):
            raise
        model = onnx.load(target, load_external_data=False) if isinstance(target, str) else target
        standard = as_checked(model)
        if standard is None:
            raise
        onnx.checker.check_model(standard, full_check=full)


def _is_harmless(error: Exception) -> bool:
    return str(error).startswith(_HARMLESS)


def _one_line(error: Exception, limit: int = 300) -> str:
    text = " ".join(str(error).replace("==> Context:", "-").split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _read_whole(model: str | Path | bytes, name: str) -> tuple[onnx.ModelProto, str]:
    """Return a model with all its weights, and the hex digest of its bytes."""
    data = model if isinstance(model, bytes) else _read(Path(model))
    return _parse(data, name), hashlib.sha256(data).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"no model file {path}") from error
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a folder, not a model file") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    if not data:
        raise InvalidModelError(f"{name} is empty")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:  # protobuf's back ends raise different types
        if kind := describe_content(data[:SNIFFED_BYTES]):
            raise InvalidModelError(f"{name} is no ONNX model: it looks like {kind}") from error
        if len(data) > MESSAGE_LIMIT:
            raise InvalidModelError(
                f"{name} is larger than 2 GB in one file; save its weights as external data"
            ) from error
        if lacking := missing_bytes(data):
            raise InvalidModelError(
                f"{name} is truncated: at least {lacking} bytes are missing at its end"
            ) from error
        raise InvalidModelError(f"{name} is no ONNX model, or is corrupt") from error
    if not proto.HasField("graph") and (kind := describe_content(data[:SNIFFED_BYTES])):
        raise InvalidModelError(f"{name} is no ONNX model: it looks like {kind}")
    return proto


def _serialise(model: onnx.ModelProto) -> bytes:
    try:
        data: bytes = model.SerializeToString(deterministic=True)
    except Exception as error:  # protobuf's back ends raise different types
        raise InvalidModelError(
            "the model is larger than 2 GB; save it with external data and give its path"
        ) from error
    return data
