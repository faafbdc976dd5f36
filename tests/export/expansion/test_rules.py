"""Each expansion equals onnxruntime's kernel, and its gradient central differences of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, helper

from onnx_gradcam.export.builders.reverse import build_reverse
from onnx_gradcam.export.expansion import (
    activations,
    attention,
    convolution,
    expand,
    grid_sample,
    layout,
    normalization,
    products,
    recurrent,
    rotary,
    with_expansions,
)
from onnx_gradcam.export.expansion.registry import expansion_table
from onnx_gradcam.export.files.model_file import structural_problem
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.tail import cut_tail
from onnx_gradcam.gradients.emitter import Emitter
from tests.export.expansion.case import Array, Case
from tests.export.expansion.cases import CASES

STEP = 2.0**-10
VALUES = 1e-5
DIFFERENCES = 5e-3
"""Of float32 kernels, at that step: rounding and curvature are each about 1e-3."""


def run(model: ModelProto, feeds: dict[str, Array], names: list[str]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(value) for value in session.run(names, feeds)]


def kernel(case: Case, feeds: dict[str, Array]) -> list[Array]:
    """Return the outputs as onnxruntime computes them, or as their definition says."""
    if case.definition is None:
        return run(case.model(), feeds, case.results())
    values = {k: v.astype(np.float64) for k, v in {**case.values(), **feeds}.items()}
    return [case.definition(*values.values())]


def seeds(outputs: list[Array]) -> list[Array]:
    rng = np.random.default_rng(5)
    return [rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1, 1], y.shape) for y in outputs]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_values(case: Case) -> None:
    graph = expand(case.model())
    assert graph.unexpanded == {}
    assert {node.domain for node in graph.nodes} == {""}
    assert graph.original.graph.node[0].op_type == case.op_type
    assert any(node.name == "fused" for node in graph.nodes), "the node's name is kept"
    assert structural_problem(graph.model, full=True) is None
    found = run(graph.model, case.feeds(), case.results())
    for value, expected in zip(found, kernel(case, case.feeds()), strict=True):
        assert value.shape == expected.shape
        scale = np.abs(expected).max()
        assert scale > 0.1
        np.testing.assert_allclose(value, expected, atol=VALUES * scale, rtol=0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradients(case: Case) -> None:
    feeds = case.feeds()
    seed = seeds(kernel(case, feeds))
    for name, value in feeds.items():
        if value.dtype.kind == "f":
            found = gradient(case, name, feeds, seed)
            expected = differences(case, name, feeds, seed)
            assert found.shape == value.shape
            scale = np.abs(expected).max()
            assert scale > 0.05
            np.testing.assert_allclose(found, expected, atol=DIFFERENCES * scale, rtol=0)


def gradient(case: Case, name: str, feeds: dict[str, Array], seed: list[Array]) -> Array:
    """Return the gradient of sum(seed * outputs), summed over the outputs."""
    graph = expand(case.model())
    total = np.zeros(feeds[name].shape)
    for output, weight in zip(case.results(), seed, strict=True):
        emit = Emitter(graph.opset(), graph.types, graph.constant, "g/", list(graph.names))
        tail = cut_tail(graph, name, output)
        result = build_reverse(graph, tail, emit, emit.constant(weight.astype(np.float32)))
        read = {r for node in emit.nodes for r in Graph.reads(node)} | {result}
        model = ModelProto()  # where the original cannot run, the analysis model does
        model.CopyFrom(graph.model if case.definition else with_expansions(graph, read))
        model.graph.node.extend(emit.nodes)
        model.graph.initializer.extend(emit.initializers)
        model.graph.output.append(helper.make_empty_tensor_value_info(result))
        (value,) = run(model, feeds, [result])
        total += value
    return total


def differences(case: Case, name: str, feeds: dict[str, Array], seed: list[Array]) -> Array:
    """Return central differences of the kernel, extrapolated from two step sizes."""

    def slope(place: int, step: float) -> float:
        total = 0.0
        for sign in (1, -1):
            moved = feeds[name].copy()
            moved.flat[place] += sign * step
            outputs = forward({**feeds, name: moved})
            total += sign * sum(
                float(np.sum(w * y.astype(np.float64))) for w, y in zip(seed, outputs, strict=True)
            )
        return total / (2 * step)

    forward = _forward(case)
    places = range(feeds[name].size)
    slopes = [(4 * slope(p, STEP) - slope(p, 2 * STEP)) / 3 for p in places]
    return np.array(slopes).reshape(feeds[name].shape)


def _forward(case: Case) -> Callable[[dict[str, Array]], list[Array]]:
    if case.definition is not None:
        return lambda feeds: kernel(case, feeds)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        case.model().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda feeds: session.run(case.results(), feeds)


def test_every_rule_has_a_case() -> None:
    """Branches and quantized operators are tested in files of their own."""
    families = (
        *(activations, attention, convolution, grid_sample, layout),
        *(normalization, products, recurrent, rotary),
    )
    modules = {family.__name__ for family in families}
    rows = [row for row in expansion_table() if row.rule.__module__ in modules]
    tested = {(case.domain, case.op_type) for case in CASES}
    assert {(row.domain, row.op_type) for row in rows} == tested
