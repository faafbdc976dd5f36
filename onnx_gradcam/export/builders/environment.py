"""The onnxruntime-training builder's place: what is there (`state`), how it gets there.

What the command line and the export use: `builder_status`, `install_builder`, `BuilderStatus`.
"""

from __future__ import annotations

from onnx_gradcam.export.builders.installation import install_builder
from onnx_gradcam.export.builders.state import ENVIRONMENT_VARIABLE, BuilderStatus, builder_status
from onnx_gradcam.export.builders.wheels import BUILDER_VERSION

__all__ = [
    "BUILDER_VERSION",
    "ENVIRONMENT_VARIABLE",
    "BuilderStatus",
    "builder_status",
    "install_builder",
]
