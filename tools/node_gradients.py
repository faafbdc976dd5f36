"""Check the gradients of a small model that somebody else wrote, with inputs that they gave.

In: a `Subject`. Out: a `Finding` per pair of a float input x and a float output y: the built-in
gradient builder's dL/dx, L a weighted sum of y, beside slopes of the model alone (`node_slopes`).

The slopes are those of the first of `ENGINES` that reproduces the given outputs and has any. The
gradient is compared in that engine's precision and again in onnxruntime's float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from onnx_gradcam.errors import OnnxGradCamError
from onnx_gradcam.export.builders.reverse import build_reverse
from onnx_gradcam.export.expansion import expand, with_expansions
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.tail import cut_tail
from onnx_gradcam.gradients.emitter import Emitter
from tools.float_types import retyped
from tools.node_slopes import (
    DOUBLE,
    ENGINES,
    SINGLE,
    Array,
    Engine,
    Feeds,
    Run,
    Slopes,
    Subject,
    cast_feeds,
    measure,
    reproduces,
    run_onnxruntime,
    run_reference,
    short,
)

ALL = "all outputs"
"""In the place of an output: the sum over all float outputs of a model with several."""

PRODUCT_TOLERANCE = 2e-3
"""Of the gradient in onnxruntime, float32, on inputs rounded to float32."""

_ROUNDED = 10.0
"""Slopes below this times the rounding in them are taken to be zero, half of it for agreement."""

_NEGLIGIBLE = 1e-5
"""A gradient in float32 counts as zero below this; seeds are near 1."""

_OLDEST_IR = 4

_NAMES = {DOUBLE: "float64", SINGLE: "float32"}


@dataclass(frozen=True)
class Finding:
    """What became of one input and output.

    Attributes:
        x: name of the input.
        y: name of the output, or `ALL`.
        verdict: ``checked``; ``zero``, where the measured gradient is, and the builder's is or was
            refused as zero; ``empty``, x has no elements; ``refused`` by the package;
            ``unmeasured``, no engine has a slope; ``wrong``.
        detail: the message of a refusal, the error, or what went wrong.
        engine: in which the gradient was measured.
        error: largest deviation, relative to the largest slope.
        moved: whether x was moved off a kink.
    """

    x: str
    y: str
    verdict: str
    detail: str = ""
    engine: str = ""
    error: float = 0.0
    moved: bool = False


class RefusedError(Exception):
    """The package has no gradient, and says why."""


# -- the product -------------------------------------------------------------------------------


def gradient_model(
    subject: Subject, x: str, y: str, seeds: Mapping[str, Array], *, frozen: bool
) -> ModelProto:
    """Return a model in float32 with the single output dL/dx.

    Args:
        subject: the forward model.
        x: the input.
        y: the output, or `ALL`.
        seeds: weights of the outputs.
        frozen: whether other float inputs are constants; inputs of other types always are.

    Raises:
        RefusedError: the package refuses it.
    """
    forward = retyped(subject.model, SINGLE)
    forward.ir_version = max(forward.ir_version, _OLDEST_IR)
    feeds = cast_feeds(subject.feeds, SINGLE)
    inputs = {info.name: info for info in forward.graph.input}
    del forward.graph.input[:]
    for name, info in inputs.items():
        if name == x or (not frozen and name in subject.x_names):
            forward.graph.input.append(info)
        else:
            forward.graph.initializer.append(numpy_helper.from_array(feeds[name], name))
    parts = {name: s.reshape(-1) for name, s in seeds.items() if s.size}
    seed = np.concatenate(list(parts.values())) if y == ALL else seeds[y]
    score = _append_joint(forward, list(parts)) if y == ALL else y
    try:
        graph = expand(forward)
        emit = Emitter(graph.opset(), graph.types, graph.constant, "g/", list(graph.names))
        start = emit.constant(seed.astype(np.float32))
        result = build_reverse(graph, cut_tail(graph, x, score), emit, start)
    except OnnxGradCamError as error:
        raise RefusedError(str(error)) from error
    read = {name for node in emit.nodes for name in Graph.reads(node)} | {result}
    model = ModelProto()
    model.CopyFrom(with_expansions(graph, read))
    model.graph.node.extend(emit.nodes)
    model.graph.initializer.extend(emit.initializers)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(result, SINGLE, subject.feeds[x].shape))
    return model


def _append_joint(model: ModelProto, outputs: Sequence[str]) -> str:
    """Append outputs in one row, as the score."""
    flat = [f"joint/{name}" for name in outputs]
    shape = numpy_helper.from_array(np.array([-1], np.int64), "joint/shape")
    model.graph.initializer.append(shape)
    for name, row in zip(outputs, flat, strict=True):
        model.graph.node.append(helper.make_node("Reshape", [name, shape.name], [row], name=row))
    model.graph.node.append(helper.make_node("Concat", flat, ["joint"], name="joint", axis=0))
    return "joint"


# -- the verdict -------------------------------------------------------------------------------


def examine(subject: Subject) -> list[Finding]:
    """Return a finding for each pair of a float input and a float output."""
    runs: list[tuple[Engine, Run]] = []
    problems = []
    for engine in ENGINES:
        try:
            run = engine.load(retyped(subject.model, engine.dtype))
            outputs = run(cast_feeds(subject.feeds, engine.dtype))
        except Exception as error:  # whatever an engine raises that lacks something
            problems.append(f"{engine.name}: {short(error)}")
            continue
        if reproduces(subject, outputs):
            runs.append((engine, run))
        else:
            problems.append(f"{engine.name}: other outputs than given")
    return [f for x in subject.x_names for f in _examine_input(subject, x, runs, problems)]


def _examine_input(
    subject: Subject, x: str, runs: Sequence[tuple[Engine, Run]], problems: Sequence[str]
) -> list[Finding]:
    pairs = [*subject.y_names, *([ALL] if len(subject.y_names) > 1 else [])]
    if not subject.feeds[x].size:
        return [Finding(x, y, "empty") for y in pairs]
    in_float32 = any(engine.dtype == SINGLE for engine, _ in runs)
    problems = list(problems)
    for engine, run in runs:
        if subject.feeds[x].size > engine.largest:
            problems.append(f"{engine.name}: too slow")
            continue
        slopes = measure(subject, engine, run, x)
        if isinstance(slopes, str):
            problems.append(f"{engine.name}: {slopes}")
            continue
        precisions = [(engine.dtype, engine.tolerance)]
        if in_float32 and engine.dtype != SINGLE:
            precisions.append((SINGLE, PRODUCT_TOLERANCE))
        there = Subject(subject.model, {**subject.feeds, x: slopes.x}, subject.wanted)
        found = [_compare(there, x, y, slopes, precisions) for y in pairs]
        return [replace(f, engine=engine.name, moved=slopes.moved) for f in found]
    return [Finding(x, y, "unmeasured", "; ".join(problems)) for y in pairs]


def _compare(
    subject: Subject, x: str, y: str, slopes: Slopes, precisions: Sequence[tuple[int, float]]
) -> Finding:
    """Return the finding of one pair, in each of the float types, to a tolerance each."""
    along = sum(slopes.along.values(), np.zeros(1)) if y == ALL else slopes.along[y]
    scale = float(np.abs(along).max(initial=0))
    if scale <= _ROUNDED * slopes.noise:
        scale = 0.0
    findings: list[Finding] = []
    try:
        model = product(subject, x, y, slopes.seeds)
        for dtype, tolerance in precisions:
            value = run_product(model, cast_feeds(subject.feeds, dtype), dtype)
            negligible = _NEGLIGIBLE if findings else _ROUNDED * slopes.noise
            verdict, deviation = _verdict(value, slopes, along, scale, tolerance, negligible)
            detail = f"in {_NAMES[dtype]} off by {deviation:.1e} of {scale:.2g}"
            if verdict == "wrong":
                return Finding(x, y, verdict, detail, error=deviation)
            findings.append(Finding(x, y, verdict, error=deviation))
    except RefusedError as error:
        zero = scale == 0 and "is zero everywhere" in str(error)
        return Finding(x, y, "zero" if zero else "refused", str(error))
    except Exception as error:  # nothing but a refusal may happen
        return Finding(x, y, "wrong", f"{type(error).__name__}: {short(error)}")
    return findings[0]


def _verdict(
    value: Array, slopes: Slopes, along: Array, scale: float, tolerance: float, negligible: float
) -> tuple[str, float]:
    if value.shape != slopes.x.shape or not np.all(np.isfinite(value[np.isfinite(slopes.x)])):
        return "wrong", float("nan")
    places = tuple(range(1, value.ndim + 1))
    moving = np.where(slopes.directions == 0, 0, slopes.directions * value.astype(np.float64))
    found = moving.sum(axis=places)
    if scale == 0:
        largest = float(np.abs(found).max(initial=0))
        return ("zero" if largest <= negligible else "wrong"), largest
    deviation = float(np.abs(found - along).max())
    fits = deviation <= tolerance * scale + negligible / 2
    return ("checked" if fits else "wrong"), deviation / scale


def product(subject: Subject, x: str, y: str, seeds: Mapping[str, Array]) -> ModelProto:
    """Return the model of dL/dx; other float inputs are constants where a formula needs it.

    Raises:
        RefusedError: the package refuses it.
    """
    try:
        return gradient_model(subject, x, y, seeds, frozen=False)
    except RefusedError:
        return gradient_model(subject, x, y, seeds, frozen=True)


def run_product(model: ModelProto, feeds: Feeds, dtype: int) -> Array:
    """Return dL/dx; in float64 where onnxruntime lacks a kernel, of the reference."""
    if dtype == SINGLE:
        return np.asarray(run_onnxruntime(model)(feeds)[0])
    wide = retyped(model, dtype)
    try:
        return np.asarray(run_onnxruntime(wide)(feeds)[0])
    except Exception:
        return np.asarray(run_reference(wide)(feeds)[0])
