"""Every error this package raises on purpose, and the exit code that the command line gives it.

::

    OnnxGradCamError                 1  anything below
    ├── UsageError                   2  an argument that cannot be met (also a ValueError)
    │   ├── LayerNotFoundError       2  no tensor, node or candidate of that name
    │   ├── ScoreNotFoundError       2  no output or tensor of that name
    │   ├── ClassNotFoundError       2  class index out of range, or a label nobody knows
    │   ├── ImageError               2  a file or array that is not an image
    │   └── OutputError              2  output exists, or its folder is missing or read-only
    ├── ModelError                   3  the model file itself
    │   ├── InvalidModelError        3  corrupt, truncated, empty, not ONNX, external data missing
    │   ├── UnsupportedModelError    3  valid, but no heat map can be had from it as asked
    │   └── NotExportedError         3  valid, but not a file that `onnx-gradcam export` wrote
    ├── VerificationError            4  the exported file did not prove equal or its gradient wrong
    ├── UnavailableError             5  something that was asked for is not there
    │   ├── ProviderError            5  an execution provider
    │   ├── BuilderUnavailableError  5  onnxruntime-training: missing, or of the wrong version
    │   └── MissingDependencyError   5  a Python package of an extra
    ├── BatchError                   6  some items of a batch failed
    └── WriteError                   1  the disk is full, or the device failed, while writing

Each message is one line: what is wrong, which node or file, and the way out.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class OnnxGradCamError(Exception):
    """Base class of all errors raised on purpose by this package."""

    exit_code = 1


class UsageError(OnnxGradCamError, ValueError):
    """An argument that cannot be met."""

    exit_code = 2


class LayerNotFoundError(UsageError):
    """No tensor, node or candidate layer of the given name or index."""


class ScoreNotFoundError(UsageError):
    """No output or tensor of the given name that could serve as the score."""


class ClassNotFoundError(UsageError):
    """A class index out of range, or an unknown label."""


class ImageError(UsageError):
    """A file or array that cannot be read as an image."""


class OutputError(UsageError):
    """The output exists already, or its folder is missing or cannot be written to."""


class ModelError(OnnxGradCamError):
    """Base class for everything wrong with a model file."""

    exit_code = 3


class InvalidModelError(ModelError):
    """Corrupt, truncated, empty or no ONNX file, or external data that is missing."""


class UnsupportedModelError(ModelError):
    """A valid model from which the requested explanation cannot be made."""


class NotExportedError(ModelError):
    """A valid model that carries no explanation: it was not written by the export."""


class VerificationError(OnnxGradCamError):
    """The exported file changes the original outputs, or its gradient is wrong."""

    exit_code = 4


class UnavailableError(OnnxGradCamError):
    """Something that was asked for is not installed or not present."""

    exit_code = 5


class ProviderError(UnavailableError):
    """An execution provider that was asked for and is not there."""


class BuilderUnavailableError(UnavailableError):
    """onnxruntime-training is missing, or not the version the builder was written for."""


class MissingDependencyError(UnavailableError, ImportError):
    """A Python package that belongs to an extra is not installed."""


class BatchError(OnnxGradCamError):
    """Some items of a batch failed; the others are done."""

    exit_code = 6


class WriteError(OnnxGradCamError):
    """Writing failed: disk full or device error. Nothing half-written is left."""


def nearest_names(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return a hint such as ``; did you mean 'a' or 'b'?``, empty when nothing is near."""
    matches = get_close_matches(name, list(dict.fromkeys(known)), n=limit, cutoff=0.4)
    return f"; did you mean {' or '.join(map(repr, matches))}?" if matches else ""
