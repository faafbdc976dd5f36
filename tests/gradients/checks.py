"""Compare gradients that were computed in different ways.

`measured` knows nothing of the formulas: central differences of the forward model alone. `product`
is what the package emits for a case: the forward model with dL/dA as its output, where
L = sum(y * seed).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, helper

from onnx_gradcam.export.builders.reverse import build_reverse
from onnx_gradcam.export.files.model_file import structural_problem
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.reference.operators import evaluator
from onnx_gradcam.export.tail import Tail, cut_tail
from onnx_gradcam.gradients.emitter import Emitter
from tests.gradients.case import Array, Case, seed_like, version

STEP = 2.0**-15
"""Perturbation of an element for central differences in float64."""

FLOAT64_TOLERANCE = 1e-7
"""Of the product in float64 against central differences, whose own error this is: up to 2.2e-8."""

EXACT_TOLERANCE = 1e-12
"""Of the product in float64 against another engine's: up to 2e-15."""

FLOAT32_TOLERANCE = 5e-6
"""Of the product in onnxruntime, float32, against float64: up to 1.5e-6, in Softmax."""

GRADIENT = "A_gradient"
SEED = "seed"

Forward = Callable[[Mapping[str, Array]], Array]
Build = Callable[[Graph, Tail, Emitter], str]


# -- running models --------------------------------------------------------------------------


def run_reference(model: ModelProto, feeds: Mapping[str, Array]) -> Array:
    """Return the first output of a model as ONNX's reference implementation computes it."""
    return np.asarray(evaluator(model).run(None, dict(feeds))[0])


def run_onnxruntime(model: ModelProto, feeds: Mapping[str, Array]) -> Array:
    """Return the first output as stock onnxruntime computes it, with default optimisations."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, dict(feeds))[0])


# -- the measured gradient ---------------------------------------------------------------------


@cache
def output_of(case: Case) -> Array:
    """Return y in float64."""
    return run_reference(case.model(np.float64, case.main_opset), case.feeds(np.float64))


@cache
def measured(case: Case) -> Array:
    """Return dL/dA by central differences in float64."""
    forward = evaluator(case.model(np.float64, case.main_opset, symbolic=True))
    return central_differences(
        lambda feeds: np.asarray(forward.run(None, dict(feeds))[0]),
        case.feeds(np.float64),
        images=case.images,
    )


def central_differences(forward: Forward, feeds: Mapping[str, Array], *, images: bool) -> Array:
    """Return dL/dA, one element of A (of every image at once where they do not mix) at a time.

    Args:
        forward: computes y.
        feeds: A and whatever by-passes it.
        images: whether axis 0 of A is a batch of independent images; all perturbed copies are
            then stacked along it and computed at once.
    """
    a = feeds["A"]
    seed = seed_like(forward(feeds).shape)
    if not images:
        gradient = np.zeros(a.shape)
        for index in np.ndindex(a.shape):
            upper, lower = a.copy(), a.copy()
            upper[index] += STEP
            lower[index] -= STEP
            change = forward({**feeds, "A": upper}) - forward({**feeds, "A": lower})
            gradient[index] = np.sum(change * seed) / (2 * STEP)
        return gradient
    count, size = a.shape[0], a[0].size
    steps = np.eye(size).reshape(size, 1, *a.shape[1:]) * STEP
    stacked = np.concatenate([a + steps, a - steps]).reshape(-1, *a.shape[1:])
    others = {
        name: np.concatenate([value] * (2 * size)) if value.shape[:1] == a.shape[:1] else value
        for name, value in feeds.items()
        if name != "A"
    }
    y = forward({"A": stacked, **others}).reshape(2, size, count, -1) * seed.reshape(count, -1)
    return np.asarray((y[0] - y[1]).sum(-1).T.reshape(a.shape) / (2 * STEP))


# -- the product -------------------------------------------------------------------------------


def reverse(graph: Graph, tail: Tail, emit: Emitter) -> str:
    """Build with the built-in builder."""
    return build_reverse(graph, tail, emit, SEED)


def gradient_model(
    case: Case, dtype: Any, opset: int, *, symbolic: bool = True, build: Build = reverse
) -> ModelProto:
    """Return a model that computes dL/dA from A, the by-passing tensors and the seed dL/dy."""
    forward = case.model(dtype, opset, symbolic=symbolic)
    model = ModelProto()
    model.CopyFrom(forward)
    a = forward.graph.input[0].type.tensor_type
    shape = Graph(forward).shape("y") or [None] * output_of(case).ndim
    model.graph.input.append(helper.make_tensor_value_info(SEED, a.elem_type, shape))
    graph = Graph(model)
    emit = Emitter(graph.opset(), graph.types, graph.constant, "cam/", list(graph.names))
    name = build(graph, cut_tail(graph, "A", "y"), emit)
    emit.node("Identity", [name], output=GRADIENT)
    model.graph.node.extend(emit.nodes)
    model.graph.initializer.extend(emit.initializers)
    del model.graph.output[:]
    sizes = [d.dim_param or d.dim_value for d in a.shape.dim]
    model.graph.output.append(helper.make_tensor_value_info(GRADIENT, a.elem_type, sizes))
    return model


def check_standard(model: ModelProto) -> None:
    """Check that a model is one of standard operators, and that its types and shapes agree."""
    problem = structural_problem(model, full=True)
    assert problem is None, problem
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}


def gradient_feeds(case: Case, dtype: Any) -> dict[str, Array]:
    """Return what a gradient model is fed."""
    return {**case.feeds(dtype), SEED: seed_like(output_of(case).shape).astype(dtype)}


@cache
def product(case: Case) -> Array:
    """Return dL/dA of the built-in builder in float64, without rounding to speak of."""
    model = gradient_model(case, np.float64, case.main_opset, symbolic=False)
    return run_reference(model, gradient_feeds(case, np.float64))


# -- the verdict -------------------------------------------------------------------------------


def error_of(actual: Array, wanted: Array) -> float:
    """Return the largest deviation, relative to the largest element of the wanted gradient.

    A wanted gradient that is (nearly) zero would let anything pass, so it is refused.
    """
    assert actual.shape == wanted.shape, f"shape {actual.shape} instead of {wanted.shape}"
    assert np.all(np.isfinite(actual)), "not finite"
    scale = float(np.abs(wanted).max())
    assert scale > 1e-2, f"the gradient to compare with is nearly zero ({scale:g})"
    return float(np.abs(actual.astype(np.float64) - wanted).max()) / scale


def _meaning(model: ModelProto, opset: int) -> tuple[object, ...]:
    """Return the nodes of a model, each with the version of its operator."""
    nodes = ((version(n.op_type, opset), n.SerializeToString()) for n in model.graph.node)
    return tuple(sorted(nodes))


def onnxruntime_errors(case: Case, build: Build = reverse) -> dict[int, float]:
    """Return the error of the product in onnxruntime per opset.

    Models that consist of the same versions of the same operators are run once.
    """
    errors = {}
    seen = set()
    for opset in case.checked_opsets():
        model = gradient_model(case, np.float32, opset, build=build)
        if (meaning := _meaning(model, opset)) in seen:
            continue
        seen.add(meaning)
        check_standard(model)
        actual = run_onnxruntime(model, gradient_feeds(case, np.float32))
        errors[opset] = error_of(actual, measured(case))
    return errors
