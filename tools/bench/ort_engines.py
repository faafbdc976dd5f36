"""Workers on onnxruntime: the original file and what the export makes of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import onnxruntime

import onnx_gradcam
from tools.bench.contestants import AGAIN, EXPLAINED, EXPORTED, FUSED, PLAIN, PREDICT
from tools.bench.protocol import Task
from tools.bench.worker import Array, Prepare, Prepared
from tools.timing import session_options


def open_session(path: str, threads: int) -> Any:
    """Return a session of a file on the CPU provider."""
    options = session_options(threads)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def plain(task: Task) -> Prepare:
    """Return the original file alone."""
    session = open_session(task.model, task.threads)
    name = session.get_inputs()[0].name
    return lambda images: Prepared({PLAIN: partial(session.run, None, {name: images})})


def explained(task: Task) -> Prepare:
    """Return `Explainer.explain` alone."""
    explainer = _explainer(task)

    def prepare(images: Array) -> Prepared:
        return Prepared(
            {EXPLAINED: partial(explainer.explain, images)}, lambda: explainer.explain(images).cams
        )

    return prepare


def ours(task: Task) -> Prepare:
    """Return all our ways to run the model; the same session serves both batch sizes."""
    files = {
        PLAIN: task.model,
        AGAIN: task.model,
        EXPORTED: task.exported,
        FUSED: task.fused,
    }
    sessions = {name: open_session(path, task.threads) for name, path in files.items()}
    name = sessions[PLAIN].get_inputs()[0].name
    explainer = _explainer(task)

    def prepare(images: Array) -> Prepared:
        raw = {key: partial(s.run, None, {name: images}) for key, s in sessions.items()}
        return Prepared(
            {
                **raw,
                EXPLAINED: partial(explainer.explain, images),
                PREDICT: partial(explainer.predict, images),
            }
        )

    return prepare


def _explainer(task: Task) -> onnx_gradcam.Explainer:
    options = session_options(task.threads)
    return onnx_gradcam.load(task.exported, device="cpu", session_options=options)
