"""One architecture of the zoo in a process of its own, and its results as a JSON file."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tools.zoo_export import EXPORTERS, UNFOLDED, export_network, file_of
from tools.zoo_measure import LAYERS, Job, Row, measure
from tools.zoo_models import Architecture, images, network


@dataclass(frozen=True)
class Plan:
    """What to do with an architecture.

    Attributes:
        folder: where ONNX files and results stand.
        exporters: which of `EXPORTERS`.
        builder: as ``--gradient-builder``.
        measure: False builds the files only.
        wanted: whether to measure a row anew, given its last result (None: there is none).
        limit_s: time for one architecture, in seconds.
        keep_mb: larger ONNX files are deleted after they served.
        verify: whether each export proves itself.
    """

    folder: Path
    exporters: tuple[str, ...] = EXPORTERS
    builder: str = "reverse"
    measure: bool = True
    wanted: Callable[[dict[str, Any] | None], bool] = lambda row: row is None
    limit_s: float = 300
    keep_mb: float = 20
    verify: bool = True


def results_file(folder: Path, architecture: Architecture) -> Path:
    """Return where the results of an architecture stand."""
    return folder / "results" / f"{architecture.file_stem}.json"


def read_results(folder: Path, architecture: Architecture) -> dict[str, dict[str, Any]]:
    """Return ``exporter/layer`` -> row, as far as there are results."""
    path = results_file(folder, architecture)
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def run_in_process(architecture: Architecture, plan: Plan) -> dict[str, dict[str, Any]]:
    """Run an architecture in a forked process with a time limit and return its results."""
    context = multiprocessing.get_context("fork")  # the libraries are imported once, here
    process = context.Process(target=_quietly, args=(architecture, plan))
    process.start()
    process.join(plan.limit_s)
    if process.is_alive():
        process.kill()
        process.join()
    if process.exitcode != 0:
        reason = "time limit" if process.exitcode == -9 else f"exit code {process.exitcode}"
        _note_crash(architecture, plan, f"the process ended: {reason}")
    return read_results(plan.folder, architecture)


def _note_crash(architecture: Architecture, plan: Plan, detail: str) -> None:
    results = read_results(plan.folder, architecture)
    for key in _keys(plan):
        if plan.wanted(results.get(key)):
            exporter, layer = key.split("/")
            results[key] = Row(exporter, layer, "crashed", detail).to_dict()
    _write(plan.folder, architecture, results)


def _keys(plan: Plan) -> list[str]:
    return [f"{exporter}/{layer}" for exporter in plan.exporters for layer in LAYERS]


def _write(folder: Path, architecture: Architecture, results: dict[str, Any]) -> None:
    path = results_file(folder, architecture)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1), encoding="utf-8")


def _quietly(architecture: Architecture, plan: Plan) -> None:
    """Work with everything that the exporters print sent to a log file."""
    log = plan.folder / "logs" / f"{architecture.file_stem}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
        _work(architecture, plan)


def _work(architecture: Architecture, plan: Plan) -> None:
    model = network(architecture)
    x = images(architecture)
    results = read_results(plan.folder, architecture)
    for exporter in plan.exporters:
        keys = [k for k in _keys(plan) if k.startswith(exporter) and plan.wanted(results.get(k))]
        source = file_of(plan.folder, architecture.file_stem, exporter)
        if not keys or (source.exists() and not plan.measure):
            continue
        try:
            if not source.exists():
                export_network(model, x, source, exporter)
        except RuntimeError as error:
            for key in keys:
                layer = key.split("/")[1]
                results[key] = Row(exporter, layer, "not exported", str(error)).to_dict()
            _write(plan.folder, architecture, results)
            continue
        if not plan.measure:
            continue
        for key in keys:
            job = Job(source, key.split("/")[1], plan.builder, plan.verify)
            with tempfile.TemporaryDirectory() as scratch:
                row = measure(model, x.numpy(), exporter, job, Path(scratch))
            if row.status in {"wrong", "unmatched"} and exporter in UNFOLDED:
                _compare_unfolded(row, model, x, job)
            results[key] = row.to_dict()
            _write(plan.folder, architecture, results)
        if source.stat().st_size > plan.keep_mb * 1e6:
            source.unlink()


def _compare_unfolded(row: Row, model: nn.Module, x: torch.Tensor, job: Job) -> None:
    """Take the float64 comparison of a file with the weights as they are.

    Folding batch norms into convolutions rounds weights by some 1e-8, enough for units at the
    kink of a ReLU to fall on the other side.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "unfolded.onnx"
        export_network(model, x, source, UNFOLDED[row.exporter])
        other = measure(model, x.numpy(), row.exporter, replace(job, source=source), Path(scratch))
    if other.status == "ok":
        row.status, row.unfolded = "ok", True
        row.float64 = other.float64 or other.float32
