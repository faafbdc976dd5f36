"""Gradients of many cases from onnxruntime-training, built in one process: starting it is slow."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.builders import training_worker
from onnx_gradcam.export.builders.environment import BuilderStatus
from onnx_gradcam.export.builders.lowering import lower
from onnx_gradcam.export.builders.onnxruntime_training import _LOSS, tail_model
from onnx_gradcam.export.builders.preparation import prepare_tail
from onnx_gradcam.export.builders.training_graph import _request
from onnx_gradcam.export.builders.training_process import isolation_flags
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.tail import Tail, cut_tail
from onnx_gradcam.gradients.emitter import Emitter
from tests.gradients.case import Case
from tests.gradients.checks import SEED, Build

_SCRIPT = """
import json, sys
folder, worker, jobs, loss = sys.argv[1:]
sys.path.insert(0, worker)
import training_worker
state = training_worker.load_extension(folder)
state.set_default_logger_severity(4)
for prepared, built in json.load(open(jobs)):
    try:
        result = training_worker.build(state, open(prepared, "rb").read(), "A", loss)
        open(built, "wb").write(result)
    except Exception as error:
        open(built + ".error", "w").write(str(error))
"""


def training_builds(
    opsets: Mapping[Case, int], status: BuilderStatus, folder: Path
) -> dict[Case, Build | str]:
    """Return per case what builds its gradient, or the message with which it was refused.

    Args:
        opsets: what to build, and the opset of its forward model.
        status: the installed builder.
        folder: an empty one.
    """
    results: dict[Case, Build | str] = {}
    prepared: dict[Case, ModelProto] = {}
    jobs: list[tuple[str, str]] = []
    for case, opset in opsets.items():
        graph = Graph(case.model(np.float32, opset, symbolic=True))
        try:
            prepared[case] = prepare_tail(tail_model(graph, cut_tail(graph, "A", "y")))
        except UnsupportedModelError as error:
            results[case] = str(error)
            continue
        files = str(folder / f"{len(jobs)}.onnx"), str(folder / f"{len(jobs)}.built.onnx")
        Path(files[0]).write_bytes(_request(prepared[case]))
        jobs.append(files)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    worker = str(Path(training_worker.__file__).parent)
    assert status.python is not None
    command = [str(status.python), *isolation_flags(status.python), "-c", _SCRIPT]
    subprocess.run(
        [*command, str(status.path), worker, str(folder / "jobs.json"), _LOSS],
        check=True,
        capture_output=True,
        timeout=300,
    )
    for (case, model), (_, file) in zip(prepared.items(), jobs, strict=True):
        error_file = Path(f"{file}.error")
        if error_file.exists():
            results[case] = error_file.read_text()
        else:
            results[case] = _lowering(model, ModelProto.FromString(Path(file).read_bytes()))
    return results


def _lowering(prepared: ModelProto, built: ModelProto) -> Build:
    def build(graph: Graph, tail: Tail, emit: Emitter) -> str:
        return lower(graph, tail, prepared, built, emit, SEED)[0]

    return build
