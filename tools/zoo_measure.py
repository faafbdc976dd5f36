"""One ONNX file of the zoo: exported with its explanation, and compared with PyTorch autograd."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from torch import nn

from onnx_gradcam.cam.methods import gradcam
from onnx_gradcam.errors import OnnxGradCamError
from onnx_gradcam.export.inspection import inspect_model
from onnx_gradcam.export.pipeline import export_model
from tools.timing import interleaved, session_options
from tools.zoo_export import INPUT
from tools.zoo_float64 import run_float64
from tools.zoo_oracle import AnyLayoutOracle, Found

Array = NDArray[Any]
LAYERS = ("auto", "first")
"""The recommended layer, and the first convolution (else the first candidate)."""

TOLERANCE = 1e-4
_RANKS = np.array([-1, -2], dtype=np.int64)
_REPETITIONS = 5
_CANCELLED = 1e-5
"""A heat map smaller than this, relative to its summands' absolute values, is one of rounding."""


@dataclass(frozen=True)
class Job:
    """What to measure.

    Attributes:
        source: the ONNX file.
        layer: one of `LAYERS`.
        builder: as ``--gradient-builder``.
        verify: whether the export proves itself.
    """

    source: Path
    layer: str
    builder: str
    verify: bool = True


@dataclass
class Row:
    """One line of the table.

    Attributes:
        exporter: ``legacy`` or ``dynamo``.
        layer: ``auto`` or ``first``.
        status: ``ok``, ``wrong`` (an error above the tolerance), ``unmatched`` (torch has no such
            tensor), the class of the error that refused, or ``not exported`` (by PyTorch).
        detail: the message.
        builder: the gradient builder that worked.
        target: the tensor explained.
        operator: what computes it.
        shape: of A, ``(N, C, *spatial)``.
        torch_shape: of the tensor in PyTorch.
        float32: relative error of A, dy/dA, CAM; exported file on onnxruntime against autograd.
        float64: the same in float64, where float32 exceeds the tolerance.
        unfolded: whether `float64` is that of the file before batch norms were folded.
        verified: whether the export proved itself.
        overhead: time with explanation / time without.
        seconds: of the export.
    """

    exporter: str
    layer: str
    status: str = ""
    detail: str = ""
    builder: str = ""
    target: str = ""
    operator: str = ""
    shape: tuple[int, ...] = ()
    torch_shape: str = ""
    float32: dict[str, float] = field(default_factory=dict)
    float64: dict[str, float] = field(default_factory=dict)
    unfolded: bool = False
    verified: bool = False
    overhead: float = 0.0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)


def measure(model: nn.Module, x: Array, exporter: str, job: Job, scratch: Path) -> Row:
    """Return the row of one file and layer; every failure is a row, too.

    Args:
        model: the network in float32.
        x: input ``(2, 3, S, S)`` float32.
        exporter: which one wrote the file.
        job: the file and layer.
        scratch: where the exported file may be written.
    """
    row = Row(exporter, job.layer)
    try:
        _fill(row, model, x, job, scratch)
    except OnnxGradCamError as error:
        row.status, row.detail = type(error).__name__.lstrip("_"), str(error)
    except Exception as error:  # a row for whatever happens
        row.status, row.detail = "crashed", f"{type(error).__name__}: {error}"
    return row


def _fill(row: Row, model: nn.Module, x: Array, job: Job, scratch: Path) -> None:
    exported = scratch / "exported.onnx"
    start = time.perf_counter()
    report = export_model(
        job.source,
        exported,
        layer="auto" if job.layer == "auto" else first_layer(job.source),
        gradient_builder=job.builder,
        force=True,
        verify=job.verify,
    )
    row.seconds = time.perf_counter() - start
    row.builder, row.target = report.builder, report.target
    row.verified = job.verify
    proto = onnx.load(exported)
    row.operator = next(n.op_type for n in proto.graph.node if report.target in n.output)
    out = run_explained(exported, x)
    row.shape = tuple(out["cam_activations"].shape)
    if not np.any(out["cam_gradients"]):
        row.status, row.detail = "wrong", "the gradient is zero"
        return
    row.float32, row.torch_shape = _errors(AnyLayoutOracle(model, x), out)
    feeds = {INPUT: x, "cam_class": _RANKS}
    if not _within(row.float32):
        _in_float64(row, model, proto, feeds)
    row.status = _status(row)
    row.overhead = _overhead(job.source, exported, feeds)


def _status(row: Row) -> str:
    if not row.float32 and not row.float64:
        return "unmatched"
    return "ok" if _within(row.float32) or _within(row.float64) else "wrong"


def _within(errors: dict[str, float]) -> bool:
    return bool(errors) and all(e <= TOLERANCE for e in errors.values())


def first_layer(source: Path) -> str:
    """Return the first convolution that is a candidate, else the first candidate."""
    candidates = inspect_model(source).candidates
    first = next((c for c in candidates if c.op_type == "Conv"), None)
    return first.tensor if first else candidates[0].tensor if candidates else "auto"


def run_explained(exported: Path, x: Array) -> dict[str, Array]:
    """Return the outputs of an exported file for the highest class and the second highest.

    Args:
        exported: the file.
        x: ``(2, 3, S, S)`` float32.
    """
    session = _session(exported)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {INPUT: x, "cam_class": _RANKS}), strict=True))


def _errors(oracle: AnyLayoutOracle, out: dict[str, Array]) -> tuple[dict[str, float], str]:
    """Return the relative errors at the tensor of torch that fits best, and its shape."""
    a, gradient, classes = (out[f"cam_{n}"] for n in ("activations", "gradients", "classes"))
    best: dict[str, float] = {}
    where = ""
    for found in oracle.gradients(a, classes):
        errors = {
            "A": relative(a, found.activations),
            "dy/dA": relative(gradient, found.gradient),
            "CAM": _cam_error(a, gradient, found),
        }
        if not best or errors["dy/dA"] < best["dy/dA"]:
            best, where = errors, str(found.shape)
        if _within(best):
            break
    return best, where


def relative(value: Array, reference: Array) -> float:
    """Return |value - reference| / |reference| in the Euclidean norm; inf for no reference."""
    size = float(np.linalg.norm(reference))
    return float(np.linalg.norm(value - reference)) / size if size else float("inf")


def _cam_error(a: Array, gradient: Array, found: Found) -> float:
    """Return the relative error of the heat map; of one that cancels to zero, to its summands.

    Before a normalisation per channel the mean of the gradient is zero, and so is the map.
    """
    expected = gradcam(found.activations, found.gradient)
    axes = tuple(range(2, a.ndim))
    sizes = np.abs(found.gradient).mean(axis=axes, keepdims=True) * np.abs(found.activations)
    summands = float(np.linalg.norm(sizes.sum(axis=1)))
    difference = float(np.linalg.norm(gradcam(a, gradient) - expected))
    size = float(np.linalg.norm(expected))
    return difference / (size if size > _CANCELLED * summands else summands)


def _in_float64(
    row: Row, model: nn.Module, proto: onnx.ModelProto, feeds: dict[str, Array]
) -> None:
    """Compare where nothing rounds: in float32, units at kinks of ReLU fall differently."""
    try:
        oracle = AnyLayoutOracle(copy.deepcopy(model).double(), feeds[INPUT].astype(np.float64))
        row.float64, _ = _errors(oracle, run_float64(proto, feeds))
    except Exception as error:  # mixed types in the network, or an operator of the reference
        row.detail = f"no float64: {type(error).__name__}: {error}"[:300]


def _session(source: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        str(source), session_options(1), providers=["CPUExecutionProvider"]
    )


def _overhead(source: Path, exported: Path, feeds: dict[str, Array]) -> float:
    plain, explained = _session(source), _session(exported)
    contestants: dict[str, Callable[[], object]] = {
        "plain": lambda: plain.run(None, {INPUT: feeds[INPUT]}),
        "explained": lambda: explained.run(None, feeds),
    }
    seconds = interleaved(contestants, _REPETITIONS, warmup=1)
    return seconds["explained"].median / seconds["plain"].median
