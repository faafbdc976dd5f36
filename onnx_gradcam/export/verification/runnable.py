"""Models that onnxruntime cannot run on the CPU even without an explanation, and so not verify."""

from __future__ import annotations

import re
from typing import Any

from onnx import TensorProto

from onnx_gradcam.errors import MissingDependencyError, UnsupportedModelError
from onnx_gradcam.export.files.model_file import LoadedModel
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.sessions import runtime_version
from onnx_gradcam.export.verification.subject import session_of

_LIMITED = {TensorProto.BFLOAT16: "bfloat16", TensorProto.DOUBLE: "float64"}
"""Types that onnxruntime on the CPU lacks kernels for: docs/precision.md."""

_PREAMBLE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from \S+ failed: ?")


def original_session(source: LoadedModel) -> Any:
    """Return a session of the original model with optimisations off.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        UnsupportedModelError: it does not load the model; one line with the way out.
    """
    try:
        return session_of(source, optimise=False)
    except MissingDependencyError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no base class
        reason = _PREAMBLE.sub("", " ".join(str(error).split()))[:200].rstrip(".")
        found = _limited_types(source)
        cause = f"; it computes in {' and '.join(found)}: convert it to float32" if found else ""
        raise UnsupportedModelError(
            f"onnxruntime {runtime_version()} cannot run the model on the CPU, with or without an"
            f" explanation: {reason}{cause}, or export it unproven with --no-verify, for a device"
            " that runs it"
        ) from error


def _limited_types(source: LoadedModel) -> list[str]:
    graph = Graph(source.model, source.tensor_values)
    made = (graph.type_of(name) for name in graph.producer)
    dtypes = {known.dtype for known in made if known is not None}
    return [name for dtype, name in _LIMITED.items() if dtype in dtypes]
