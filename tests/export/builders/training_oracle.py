"""onnxruntime-training's own kernels as an oracle: it builds gradients and evaluates them.

One process answers for many models, since starting it costs more than most answers. It needs
static shapes: MaxPoolGrad and AveragePoolGrad take the shape of their result from the graph.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from onnx_gradcam.export.builders import training_worker
from onnx_gradcam.export.builders.environment import BuilderStatus, builder_status
from onnx_gradcam.export.builders.training_process import isolation_flags

Array = np.ndarray[Any, np.dtype[Any]]

_SCRIPT = """
import json, sys
folder, worker, jobs = sys.argv[1:]
sys.path.insert(0, worker)
import training_worker
state = training_worker.load_extension(folder)
state.set_default_logger_severity(4)
import numpy as np
for job in json.load(open(jobs)):
    try:
        built = training_worker.build(state, open(job["model"], "rb").read(), "A", "loss")
        options = state.SessionOptions()
        options.log_severity_level = 4
        session = state.InferenceSession(options, built, False, False)
        session.initialize_session([], [], set())
        feeds = dict(np.load(job["feeds"]))
        np.save(job["result"], session.run(["A_grad"], feeds, None)[0])
    except Exception as error:
        open(job["result"] + ".error", "w").write(str(error))
"""


def require_builder() -> BuilderStatus:
    """Return the installed builder; skip the test where there is none."""
    status = builder_status()
    if not status.available:
        pytest.skip(f"{status.problem}; {status.fix}")
    return status


def training_gradients(
    folder: Path, jobs: Mapping[str, tuple[ModelProto, Mapping[str, Array]]]
) -> dict[str, Array | str]:
    """Return dL/dA of each model at its feeds, or the message with which it was refused."""
    status = require_builder()
    rows = []
    for number, (model, feeds) in enumerate(jobs.values()):
        files = {kind: str(folder / f"{number}.{kind}") for kind in ("model", "feeds", "result")}
        Path(files["model"]).write_bytes(model.SerializeToString())
        files["feeds"] += ".npz"
        np.savez(files["feeds"], **dict[str, Any](feeds))
        files["result"] += ".npy"
        rows.append(files)
    (folder / "jobs.json").write_text(json.dumps(rows))
    worker = str(Path(training_worker.__file__).parent)
    assert status.python is not None
    command = [str(status.python), *isolation_flags(status.python), "-c", _SCRIPT]
    subprocess.run(
        [*command, str(status.path), worker, str(folder / "jobs.json")],
        check=True,
        capture_output=True,
        timeout=300,
    )
    results: dict[str, Array | str] = {}
    for name, row in zip(jobs, rows, strict=True):
        error = Path(row["result"] + ".error")
        results[name] = error.read_text() if error.exists() else np.load(row["result"])
    return results
