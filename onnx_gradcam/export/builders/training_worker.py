r"""Builds a gradient graph with onnxruntime-training, in a process of its own.

Run as ``PYTHON training_worker.py FOLDER REQUEST RESPONSE``. FOLDER holds the unpacked
onnxruntime-training. REQUEST is one line of JSON, then the bytes of the model::

    {"targets": ["A"], "loss": "loss"}\n<model>

RESPONSE likewise: ``{"ok": true, "version": "1.19.2"}\n<model with gradient nodes>`` or
``{"ok": false, "kind": "import" | "gradient", "error": "..."}\n``. A request without a model
(``{}``) only tries the import. Files carry both, because onnxruntime logs to stdout and stderr.

The Python that runs this may be another one than ours: nothing of onnx_gradcam is imported, and
the code is valid from Python 3.8 on. The extension module is loaded by itself, without the
onnxruntime package around it, so that nothing it would import (PyTorch, if present) is loaded.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

_ERRORS_ONLY = 3


def load_extension(folder: str) -> Any:
    """Import the extension module of the onnxruntime-training in `folder`."""
    # numpy may have been installed into the folder for a Python that has none.
    sys.path.insert(0, folder)
    sys.path.insert(0, os.path.join(folder, "onnxruntime", "capi"))  # noqa: PTH118
    state = importlib.import_module("onnxruntime_pybind11_state")
    state.GradientGraphBuilder  # noqa: B018  # an inference build has none
    return state


def build(state: Any, model: bytes, targets: list[str], loss: str) -> bytes:
    """Return the model with the nodes that compute d loss / d target added, for each target."""
    builder = state.GradientGraphBuilder(model, {loss}, set(targets), loss)
    builder.build()
    return bytes(builder.get_model())


def respond(folder: str, request: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the response to one request: its header and the model."""
    line, _, model = request.partition(b"\n")
    header = json.loads(line)
    try:
        state = load_extension(folder)
        state.set_default_logger_severity(_ERRORS_ONLY)
        version = str(state.get_version_string())
    except Exception as error:  # whatever keeps it from loading is what the caller must be told
        return {"ok": False, "kind": "import", "error": f"{type(error).__name__}: {error}"}, b""
    if not model:
        return {"ok": True, "version": version}, b""
    try:
        result = build(state, model, header["targets"], header["loss"])
    except Exception as error:  # pybind11 maps C++ exceptions to several types
        return {"ok": False, "kind": "gradient", "error": str(error)}, b""
    return {"ok": True, "version": version}, result


def main(arguments: list[str]) -> None:
    """Answer the request file with the response file."""
    folder, request, response = arguments
    header, model = respond(folder, Path(request).read_bytes())
    Path(response).write_bytes(json.dumps(header).encode() + b"\n" + model)


if __name__ == "__main__":
    main(sys.argv[1:])
