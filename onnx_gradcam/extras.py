"""Which extra brings which Python package, and the one-line error when it is missing."""

from __future__ import annotations

from onnx_gradcam.errors import MissingDependencyError

EXTRAS = {
    "onnx": ("export",),
    "onnxruntime": ("cpu", "gpu"),
    "pyarrow": ("batch",),
    "ray": ("ray",),
    "matplotlib": ("notebook",),
}
"""Import package -> the extras of onnx-gradcam that install it."""


def missing_dependency(error: ModuleNotFoundError) -> MissingDependencyError | None:
    """Return the error that names the extra to install; None when no extra brings the module."""
    package = (error.name or "").partition(".")[0]
    extras = EXTRAS.get(package)
    if extras is None:
        return None
    ways = " or ".join(f"pip install 'onnx-gradcam[{extra}]'" for extra in extras)
    return MissingDependencyError(f"this needs the package {package}: {ways}", name=package)
