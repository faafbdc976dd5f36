"""onnxruntime sessions for verification: CPU only, quiet, with optimisations on or off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx_gradcam.extras import missing_dependency

_FATAL_ONLY = 4
"""Log severity: an optional input warns at every load, a size that does not fit logs an error."""


def open_session(model: Path | bytes, *, optimise: bool, base_dir: Path | None = None) -> Any:
    """Return an `onnxruntime.InferenceSession` on the CPU.

    Args:
        model: path, or the bytes of a model.
        optimise: run at the default optimisation level, else with optimisations disabled.
        base_dir: where the external data of a model given as bytes lies.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """
    try:
        import onnxruntime as ort
    except ModuleNotFoundError as error:
        raise (missing_dependency(error) or error) from error
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    if base_dir is not None and isinstance(model, bytes):
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(base_dir)
        )
    given = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def runtime_version() -> str:
    """Return the version of the installed onnxruntime."""
    import onnxruntime as ort

    return str(ort.__version__)
