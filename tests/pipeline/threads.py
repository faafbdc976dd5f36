"""What tests ask about the threads of the pipeline."""

from __future__ import annotations

import threading

from onnx_gradcam.pipeline.overlap import THREAD_NAME


def pipeline_threads() -> list[str]:
    """Return the names of the pipeline's threads that are alive."""
    return [t.name for t in threading.enumerate() if t.name.startswith(THREAD_NAME)]
