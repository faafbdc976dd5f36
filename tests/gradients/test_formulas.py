"""Every case, looked at in several ways that have nothing in common but the forward model.

Central differences in float64 (`measured`) and an engine that knows nothing of this package, for
the mathematics; onnxruntime in float32, for the product itself, in every opset in which a form
changes. What deviations were measured stands beside the tolerances, in `checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from onnx_gradcam.export.builders.environment import builder_status
from tests.gradients.case import Case
from tests.gradients.cases import CASES, FAMILIES
from tests.gradients.checks import (
    EXACT_TOLERANCE,
    FLOAT32_TOLERANCE,
    FLOAT64_TOLERANCE,
    check_standard,
    error_of,
    gradient_feeds,
    gradient_model,
    measured,
    onnxruntime_errors,
    output_of,
    product,
    run_onnxruntime,
)
from tests.gradients.engines import onnx_ad_gradient, torch_gradient
from tests.gradients.training import training_builds

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@each_case
def test_forward_model_means_the_same_to_onnxruntime(case: Case) -> None:
    if case.runtime:
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            run_onnxruntime(case.model(np.float32, case.main_opset), case.feeds(np.float32))
        return
    for opset in (case.opsets[0], case.main_opset, case.opsets[1]):
        y = run_onnxruntime(case.model(np.float32, opset, symbolic=True), case.feeds(np.float32))
        assert error_of(y, output_of(case)) < FLOAT32_TOLERANCE


@each_case
def test_gradient_in_float64(case: Case) -> None:
    assert error_of(product(case), measured(case)) < FLOAT64_TOLERANCE


@pytest.mark.parametrize("case", [c for c in CASES if not c.runtime], ids=lambda case: case.name)
def test_gradient_in_onnxruntime_in_every_opset(case: Case) -> None:
    errors = onnxruntime_errors(case)
    assert {opset: e for opset, e in errors.items() if e >= FLOAT32_TOLERANCE} == {}


@pytest.mark.parametrize("case", [c for c in CASES if not c.ad], ids=lambda case: case.name)
def test_gradient_of_onnx_ad(case: Case) -> None:
    assert error_of(product(case), onnx_ad_gradient(case)) < EXACT_TOLERANCE


@pytest.mark.parametrize("case", [c for c in CASES if c.ad], ids=lambda case: case.name)
def test_gradient_of_pytorch(case: Case) -> None:
    assert error_of(product(case), torch_gradient(case)) < EXACT_TOLERANCE


@pytest.mark.parametrize("case", [c for c in CASES if c.half], ids=lambda case: case.name)
def test_types_agree_in_float16(case: Case) -> None:
    check_standard(gradient_model(case, np.float16, case.main_opset))


@pytest.mark.parametrize("case", FAMILIES["pooling"], ids=lambda case: case.name)
def test_no_average_pooling_reads_a_padding(case: Case) -> None:
    # onnxruntime 1.23 fuses the two, with wrong results in opset 19 to 21
    graph = gradient_model(case, np.float32, case.main_opset).graph
    padded = {node.output[0] for node in graph.node if node.op_type == "Pad"}
    pooled = {node.input[0] for node in graph.node if node.op_type == "AveragePool"}
    assert not padded & pooled


@pytest.mark.needs_builder
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_of_onnxruntime_training(family: str, tmp_path: Path) -> None:
    cases = [case for case in FAMILIES[family] if not case.runtime]
    problems = training_problems({case: case.main_opset for case in cases}, tmp_path)
    refused = {case.name for case in cases if case.training}
    assert {name: text for name, text in problems.items() if name not in refused} == {}
    assert refused <= set(problems), "covered by now"


# It builds in opset 12 to 21; older and newer models are converted, and the gradient back again.
@pytest.mark.needs_builder
@pytest.mark.parametrize("opset", [7, 9, 10, 12, 26])
def test_gradient_of_onnxruntime_training_in_other_opsets(opset: int, tmp_path: Path) -> None:
    cases: dict[object, Case] = {}
    for case in CASES:
        if case.opsets[0] <= opset <= case.opsets[1] and not (case.runtime or case.training):
            cases.setdefault(frozenset(case.op_types()), case)
    problems = training_problems(dict.fromkeys(cases.values(), opset), tmp_path)
    unknown_sizes = {"LRN of unknown size"}  # below opset 17 refused, rightly
    assert {name: text for name, text in problems.items() if name not in unknown_sizes} == {}


def training_problems(opsets: Mapping[Case, int], folder: Path) -> dict[str, str]:
    """Return what is wrong with the gradients of onnxruntime-training, per name of a case."""
    status = builder_status()
    if not status.available:
        pytest.skip(f"{status.problem}; {status.fix}")
    problems = {}
    for case, build in training_builds(opsets, status, folder).items():
        if isinstance(build, str):
            problems[case.name] = build
            continue
        try:
            model = gradient_model(case, np.float32, opsets[case], build=build)
            check_standard(model)
            gradient = run_onnxruntime(model, gradient_feeds(case, np.float32))
            error = error_of(gradient, measured(case))
        except Exception as problem:
            problems[case.name] = str(problem)
            continue
        if error >= FLOAT32_TOLERANCE:
            problems[case.name] = f"off by {error:.1e}"
    return problems
