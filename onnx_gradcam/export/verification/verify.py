"""Prove an exported file: the original outputs unchanged, the gradient right.

In: the exported file and, where it is at hand, the original model. Out: a `VerificationReport`.
A check that fails is an entry in the report, not an exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_gradcam.contract import ExportMetadata
from onnx_gradcam.errors import OnnxGradCamError
from onnx_gradcam.export.files.model_file import LoadedModel, load_model
from onnx_gradcam.export.verification.report import Check, VerificationReport
from onnx_gradcam.export.verification.runs import check_runs
from onnx_gradcam.export.verification.structure import check_structure

__all__ = ["Check", "VerificationReport", "check_export", "verify_export"]


def verify_export(
    exported: Path,
    source: LoadedModel | str | Path | bytes | onnx.ModelProto | None,
    metadata: ExportMetadata,
    *,
    seed: int = 0,
    inputs: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> VerificationReport:
    """Verify an exported file on deterministic random inputs, on the CPU.

    Args:
        exported: the file.
        source: the original model; None compares only what the file itself allows.
        metadata: what the file says, or should say, about itself.
        seed: of the random inputs and directions.
        inputs: values for the inputs of the model, in place of random ones.

    Returns:
        The report; look at `VerificationReport.passed`.

    Raises:
        ModelError: the file or the original model cannot be read.
        MissingDependencyError: onnxruntime is not installed.
    """
    return _verify(load_model(exported, check=False), source, metadata, seed, inputs)


def check_export(
    exported: str | Path,
    against: str | Path | None = None,
    inputs: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> VerificationReport:
    """Verify a file that was exported earlier.

    Args:
        exported: a file that `export_model` wrote.
        against: the original model. Without it the outputs cannot be compared with the original
            ones; validity, operators, classes and the gradient are checked all the same.
        inputs: values for inputs of the model, in place of random ones.

    Returns:
        The report; look at `VerificationReport.passed`.

    Raises:
        UsageError: a file does not exist.
        NotExportedError: the file carries no explanation.
        ModelError: a file cannot be read.
        MissingDependencyError: onnxruntime is not installed.
    """
    path = Path(exported)
    loaded = load_model(path, check=False)
    props = {prop.key: prop.value for prop in loaded.model.metadata_props}
    metadata = ExportMetadata.from_props(props, str(path))
    return _verify(loaded, against, metadata, inputs=inputs)


def _verify(
    exported: LoadedModel,
    source: LoadedModel | str | Path | bytes | onnx.ModelProto | None,
    metadata: ExportMetadata,
    seed: int = 0,
    inputs: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> VerificationReport:
    original = source if isinstance(source, LoadedModel) or source is None else load_model(source)
    checks = list(check_structure(exported, metadata, original))
    try:
        checks.extend(check_runs(exported, metadata, original, seed=seed, inputs=inputs))
    except OnnxGradCamError:
        raise
    except Exception as error:
        checks.append(Check("runs on onnxruntime", False, " ".join(str(error).split())[:300]))
    return VerificationReport(tuple(checks))
