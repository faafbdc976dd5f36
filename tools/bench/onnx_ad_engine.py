"""The worker with onnx-ad as the gradient engine, on onnxruntime, the CAM in NumPy.

Two files for each batch size, whose shapes it needs to know: the model with A and what by-passes it
as further outputs, and the adjoint of the part behind A. The seed is one-hot in the class of the
highest score. Both files are made by another process: the memory counts that explains, not that
which prepares.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.cam import heat_maps
from tools.bench.ort_engines import open_session
from tools.bench.protocol import ROOT, Task, WorkerError
from tools.bench.subjects import CHANNELS_LAST, TOKENS
from tools.bench.worker import Array, Prepare, Prepared

FULL, ADJOINT = "full.onnx", "adjoint.onnx"
LAST_AXES = {TOKENS: lambda x: _grid(x[:, 1:]), CHANNELS_LAST: lambda x: np.moveaxis(x, -1, 1)}


def grad_cam(task: Task) -> Prepare:
    """Return Grad-CAM by onnx-ad."""
    return partial(_prepare, task)


def _prepare(task: Task, images: Array) -> Prepared:
    folder = Path(task.folder) / f"onnx-ad-{len(images)}"
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [task.model, task.tensor, str(len(images)), str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "tools.bench.onnx_ad_files", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise WorkerError(f"onnx-ad: {done.stderr.strip().splitlines()[-1]}")
    full = open_session(str(folder / FULL), task.threads)
    adjoint = open_session(str(folder / ADJOINT), task.threads)
    run = partial(_explain, full, adjoint, task, images)
    return Prepared({"onnx-ad": run}, run)


def _explain(full: Any, adjoint: Any, task: Task, images: Array) -> Array:
    """Return heat maps ``(N, H, W)``."""
    scores, *rest = full.run(None, {full.get_inputs()[0].name: images})
    names = [node.name for node in full.get_outputs()[1:]]
    found = dict(zip(names, rest, strict=True))
    *given, seed = [node.name for node in adjoint.get_inputs()]
    one_hot = np.zeros((*scores.shape, 1), np.float32)
    one_hot[np.arange(len(scores)), scores.argmax(1)] = 1
    (gradient,) = adjoint.run(None, {**{name: found[name] for name in given}, seed: one_hot})
    arrange = LAST_AXES.get(task.form, np.asarray)
    activations, gradients = arrange(found[task.tensor]), arrange(gradient[..., 0])
    raw = np.einsum("nc,nchw->nhw", gradients.mean((2, 3)), activations)
    return heat_maps(raw, images.shape[2:])


def _grid(tokens: Array) -> Array:
    side = round(tokens.shape[1] ** 0.5)
    return np.moveaxis(tokens, -1, 1).reshape(len(tokens), -1, side, side)
