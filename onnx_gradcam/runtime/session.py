"""Opens a model as an onnxruntime session on the device that was asked for, or says why not."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnx_gradcam.errors import (
    InvalidModelError,
    MissingDependencyError,
    OnnxGradCamError,
    ProviderError,
    UnsupportedModelError,
    UsageError,
)
from onnx_gradcam.extras import missing_dependency

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
LOG_ERRORS_ONLY = 3
"""onnxruntime's log severity; below it, loading warns about the optional input cam_class."""

LOG_FATAL_ONLY = 4
"""Severity for runs: what goes wrong there is raised as well, and reported in one line."""

BYTES = "the model"
"""How errors call a model that has no path."""

EXTERNAL_DATA = "session.model_external_initializers_file_folder_path"
"""Where a session that was made from bytes looks for external data."""

GRAPH_OPTIONS = frozenset({"enable_cuda_graph", "trt_cuda_graph_enable"})
"""Options of execution providers that record runs as CUDA graphs."""

Options = Mapping[str, Any]
ModelSource = str | os.PathLike[str] | bytes


@dataclass(frozen=True)
class ProviderRequest:
    """Execution providers to hand to onnxruntime.

    Attributes:
        names: providers in order of preference.
        options: one mapping per provider.
        strict: whether it is an error when one of them does not come up.
    """

    names: tuple[str, ...]
    options: tuple[dict[str, Any], ...]
    strict: bool

    def without_graphs(self) -> ProviderRequest:
        """Return the same providers without CUDA graphs, for sessions that run in many shapes."""
        options = [{n: v for n, v in own.items() if n not in GRAPH_OPTIONS} for own in self.options]
        return replace(self, options=tuple(options))


def asks_for_graphs(options: Options) -> bool:
    """Return whether options of an execution provider ask for CUDA graphs."""
    return any(str(options.get(name, 0)).lower() in {"1", "true"} for name in GRAPH_OPTIONS)


def import_onnxruntime() -> Any:
    """Return the ``onnxruntime`` module.

    Raises:
        MissingDependencyError: it is not installed, or only its empty folder is left.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise (missing_dependency(error) or error) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MissingDependencyError(
            "onnxruntime is installed in part only (one of onnxruntime and onnxruntime-gpu was"
            " removed); pip install --force-reinstall 'onnx-gradcam[cpu]' (or [gpu])",
            name="onnxruntime",
        )
    return onnxruntime


def open_session(
    model: ModelSource,
    device: str = "auto",
    providers: Sequence[str | tuple[str, Options]] | None = None,
    provider_options: Options | Sequence[Options] | None = None,
    session_options: Any = None,
) -> Any:
    """Return an ``onnxruntime.InferenceSession``.

    Args:
        model: path, or the bytes of a model without external data (for external data beside
            bytes, set ``session.model_external_initializers_file_folder_path`` in
            `session_options`).
        device: ``auto`` (CUDA where it comes up, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.
        providers: onnxruntime's own list, instead of `device`; each one must come up.
        provider_options: one mapping for the device, or one per entry of `providers`.
        session_options: an ``onnxruntime.SessionOptions``, used as it is.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        ProviderError: a provider that was asked for is not there.
        InvalidModelError: corrupt, empty or no ONNX file, or external data missing.
        UnsupportedModelError: this onnxruntime has no implementation of an operator.
        UsageError: no such file, or arguments that contradict each other.
    """
    return open_model(model, device, providers, provider_options, session_options).session


@dataclass(frozen=True)
class OpenedModel:
    """A model that runs, and what it takes to run parts of it likewise.

    Attributes:
        session: the ``onnxruntime.InferenceSession``.
        source: what it was opened from: a path, or the bytes that the caller gave.
        name: how to call it in errors.
        request: the execution providers that were asked for.
        written: size and time of the last change of the file; None for bytes.
    """

    session: Any
    source: str | bytes
    name: str
    request: ProviderRequest
    written: tuple[int, int] | None

    def start_part(self, content: bytes) -> Any:
        """Return a session of a part of the model, with the providers and options of the whole.

        Raises:
            UnsupportedModelError: onnxruntime cannot run it.
        """
        options = self.session.get_session_options()  # a copy
        options.optimized_model_filepath = ""
        options.enable_profiling = False
        if isinstance(self.source, str) and not _has_entry(options, EXTERNAL_DATA):
            options.add_session_config_entry(EXTERNAL_DATA, str(Path(self.source).parent))
        try:
            session = _start(content, options, self.request.without_graphs())
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise UnsupportedModelError(
                f"a part of {self.name} does not run by itself: {one_line(error)}"
            ) from error
        if hasattr(session, "_model_bytes"):  # kept to start over with other providers: all weights
            session._model_bytes = None
        return session


def open_model(
    model: ModelSource,
    device: str = "auto",
    providers: Sequence[str | tuple[str, Options]] | None = None,
    provider_options: Options | Sequence[Options] | None = None,
    session_options: Any = None,
) -> OpenedModel:
    """Return a session as `open_session` does, with what it came from.

    Raises:
        ProviderError: see `open_session`, as for the other errors.
    """
    source, name, written = _checked_source(model)
    ort = import_onnxruntime()
    request = request_providers(device, providers, provider_options, ort.get_available_providers())
    if session_options is None:
        session_options = ort.SessionOptions()
        session_options.log_severity_level = LOG_ERRORS_ONLY
    try:
        session = _start(source, session_options, request)
    except Exception as error:  # onnxruntime's exceptions share no base class
        failure = _explain_failure(error, name, request)
        raise failure from error
    missing = [p for p in request.names if p not in session.get_providers()]
    if missing and request.strict:
        raise ProviderError(
            f"{', '.join(missing)} did not come up, the session would run on"
            f" {', '.join(session.get_providers())}; check the driver and the CUDA and cuDNN"
            " libraries (onnx-gradcam doctor), or ask for device 'cpu'"
        )
    return OpenedModel(session, source, name, request, written)


def _has_entry(options: Any, key: str) -> bool:
    try:
        return bool(options.get_session_config_entry(key))
    except RuntimeError:  # there is none
        return False


def _start(source: str | bytes, options: Any, request: ProviderRequest) -> Any:
    return import_onnxruntime().InferenceSession(
        source,
        options,
        providers=list(request.names),
        provider_options=list(request.options),
        enable_fallback=0,  # else a failing CUDA provider prints a banner and becomes the CPU
    )


def run_options(**entries: str) -> Any:
    """Return ``onnxruntime.RunOptions`` for a run whose failure is reported by its error alone.

    Args:
        entries: further entries of the run's configuration.
    """
    options = import_onnxruntime().RunOptions()
    options.log_severity_level = LOG_FATAL_ONLY
    for key, value in entries.items():
        options.add_run_config_entry(key, value)
    return options


def file_stamp(source: str | bytes) -> tuple[int, int] | None:
    """Return size and time of the last change of a file; None for bytes."""
    if isinstance(source, bytes):
        return None
    return _stamp(Path(source).stat())


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def request_providers(
    device: str,
    providers: Sequence[str | tuple[str, Options]] | None,
    provider_options: Options | Sequence[Options] | None,
    available: Sequence[str],
) -> ProviderRequest:
    """Return which execution providers to ask onnxruntime for.

    Raises:
        ProviderError: one that was asked for is not in `available`.
        UsageError: unknown device, or arguments that contradict each other.
    """
    if providers is None:
        request = _request_device(device, provider_options, available)
    elif device != "auto":
        raise UsageError("give either device or providers, not both")
    else:
        request = _request_list(providers, provider_options)
    missing = [name for name in request.names if name not in available]
    if missing:
        fix = "pip install 'onnx-gradcam[gpu]' in place of onnxruntime, " if CUDA in missing else ""
        raise ProviderError(
            f"{', '.join(missing)} is not part of this onnxruntime (it has"
            f" {', '.join(available)}); {fix}or ask for device 'cpu'"
        )
    return request


def _request_device(
    device: str, options: Options | Sequence[Options] | None, available: Sequence[str]
) -> ProviderRequest:
    match = re.fullmatch(r"(auto|cpu|cuda)|cuda:(\d+)", str(device))
    if match is None:
        raise UsageError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:N")
    if not isinstance(options, Mapping | None):
        raise UsageError("provider_options must be one mapping when a device is given")
    chosen = dict(options or {})
    if device == "cpu" or (device == "auto" and CUDA not in available):
        return ProviderRequest((CPU,), (chosen,), strict=True)
    if match[2] is not None:
        chosen["device_id"] = match[2]
    return ProviderRequest((CUDA, CPU), (chosen, {}), strict=device != "auto")


def _request_list(
    providers: Sequence[str | tuple[str, Options]],
    options: Options | Sequence[Options] | None,
) -> ProviderRequest:
    if isinstance(providers, str) or not providers:
        raise UsageError("providers must be a non-empty list of provider names")
    pairs = [(p, {}) if isinstance(p, str) else (p[0], dict(p[1])) for p in providers]
    if options is not None:
        given = [options] if isinstance(options, Mapping) else list(options)
        if len(given) != len(pairs):
            raise UsageError(
                f"provider_options has {len(given)} entries for {len(pairs)} providers"
            )
        pairs = [(name, {**own, **extra}) for (name, own), extra in zip(pairs, given, strict=True)]
    names, own_options = zip(*pairs, strict=True)
    return ProviderRequest(tuple(names), tuple(own_options), strict=True)


def _checked_source(model: ModelSource) -> tuple[str | bytes, str, tuple[int, int] | None]:
    """Return what onnxruntime opens, how to call it in errors, and its `file_stamp`.

    Raises:
        UsageError: no such file.
        InvalidModelError: nothing in it.
    """
    if isinstance(model, (bytes, bytearray, memoryview)):
        if not len(model):
            raise InvalidModelError(f"{BYTES} is empty (0 bytes)")
        return bytes(model), BYTES, None
    path = Path(model)
    try:
        status = path.stat()
    except (OSError, ValueError):
        status = None
    if status is None or not stat.S_ISREG(status.st_mode):
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"model file {path} {kind}")
    if status.st_size == 0:
        raise InvalidModelError(f"{path} is empty (0 bytes)")
    return str(path), str(path), _stamp(status)


def _explain_failure(error: Exception, name: str, request: ProviderRequest) -> OnnxGradCamError:
    """Return the error of ours, in one line, for what onnxruntime raised at load."""
    reason = one_line(error)
    if re.search(r"(CUDA Graph|graph capture) feature", reason, re.IGNORECASE):
        return UnsupportedModelError(
            f"{name} cannot run as a CUDA graph; load it without enable_cuda_graph: {reason}"
        )
    if CUDA in request.names and re.search(r"cuda|cudnn|cublas", reason, re.IGNORECASE):
        return ProviderError(f"CUDA did not come up: {reason}")
    if type(error).__name__ == "NotImplemented":
        return UnsupportedModelError(f"onnxruntime cannot run {name}: {reason}")
    if re.search(r"external (data|initializer)", reason, re.IGNORECASE):
        by_path = "keep its data files in the model's folder"
        fix = "load it by its path" if name == BYTES else by_path
        return InvalidModelError(f"{name}: external data is missing or damaged; {fix} ({reason})")
    return InvalidModelError(f"{name} is not a model that onnxruntime can load: {reason}")


def one_line(error: Exception, limit: int = 300) -> str:
    """Return onnxruntime's message without code, C++ location and line breaks, shortened."""
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^/\S+:\d+ .*?\) (?=[A-Z\[])", "", text)
    return text if len(text) <= limit else text[: limit - 3] + "..."
