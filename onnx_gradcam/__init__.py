"""Grad-CAM heat maps from plain ONNX files: export once, explain on any ONNX Runtime.

    export_model("model.onnx", "model.cam.onnx")  # needs the extra [export]
    explainer = load("model.cam.onnx")  # needs the extra [cpu] or [gpu]
    explanation = explainer.explain_image("photo.jpg")

The public names below are loaded when they are first used: importing this package loads neither
onnx, onnxruntime, cv2 nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onnx_gradcam.errors import (
        BatchError,
        BuilderUnavailableError,
        ClassNotFoundError,
        ImageError,
        InvalidModelError,
        LayerNotFoundError,
        MissingDependencyError,
        ModelError,
        NotExportedError,
        OnnxGradCamError,
        OutputError,
        ProviderError,
        ScoreNotFoundError,
        UnavailableError,
        UnsupportedModelError,
        UsageError,
        VerificationError,
        WriteError,
    )
    from onnx_gradcam.export.inspection import ModelReport, inspect_model
    from onnx_gradcam.export.pipeline import export_model
    from onnx_gradcam.export.report import ExportReport
    from onnx_gradcam.export.triton.repository import TritonModel, write_triton
    from onnx_gradcam.export.verification.verify import VerificationReport, check_export
    from onnx_gradcam.pipeline import explain_images
    from onnx_gradcam.preprocessing import PRESETS, Preprocessing
    from onnx_gradcam.runtime import Explainer, Explanation, load

__all__ = [
    "PRESETS",
    "BatchError",
    "BuilderUnavailableError",
    "ClassNotFoundError",
    "Explainer",
    "Explanation",
    "ExportReport",
    "ImageError",
    "InvalidModelError",
    "LayerNotFoundError",
    "MissingDependencyError",
    "ModelError",
    "ModelReport",
    "NotExportedError",
    "OnnxGradCamError",
    "OutputError",
    "Preprocessing",
    "ProviderError",
    "ScoreNotFoundError",
    "TritonModel",
    "UnavailableError",
    "UnsupportedModelError",
    "UsageError",
    "VerificationError",
    "VerificationReport",
    "WriteError",
    "__version__",
    "check_export",
    "explain_images",
    "export_model",
    "inspect_model",
    "load",
    "write_triton",
]

_HOMES = {
    "onnx_gradcam.export.inspection": ("ModelReport", "inspect_model"),
    "onnx_gradcam.export.pipeline": ("export_model",),
    "onnx_gradcam.export.report": ("ExportReport",),
    "onnx_gradcam.export.triton.repository": ("TritonModel", "write_triton"),
    "onnx_gradcam.export.verification.verify": ("VerificationReport", "check_export"),
    "onnx_gradcam.runtime": ("Explainer", "Explanation", "load"),
    "onnx_gradcam.pipeline": ("explain_images",),
    "onnx_gradcam.preprocessing": ("PRESETS", "Preprocessing"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first used.

    Raises:
        AttributeError: no public name.
        MissingDependencyError: the extra that it needs is not installed.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME_OF.get(name, "onnx_gradcam.errors")
    try:
        value = getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        from onnx_gradcam.extras import missing_dependency

        raise (missing_dependency(error) or error) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted(__all__)
