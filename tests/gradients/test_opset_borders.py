"""Opsets 7 to 26, IR 3 to 13: both sides of every change of an operator, and what is newer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, defs, helper, version_converter

from onnx_gradcam.errors import InvalidModelError, UnsupportedModelError
from onnx_gradcam.export.pipeline import export_model
from onnx_gradcam.gradients.registry import NEWEST_OPSET, gradient_table
from tests.export.networks import network
from tests.gradients.case import OLDEST_OPSET, Case, version, versions
from tests.gradients.cases import CASES, quantization
from tests.gradients.checks import (
    FLOAT32_TOLERANCE,
    error_of,
    gradient_feeds,
    gradient_model,
    measured,
    run_onnxruntime,
)
from tests.gradients.test_coverage import NOT_RUN

# -- operators ---------------------------------------------------------------------------------

FORMULAS = {row.op_type: row for row in gradient_table() if not row.domain}


def borders() -> Iterator[tuple[str, int]]:
    """Yield each operator with a formula, and the opsets before and at each of its changes."""
    for op_type in FORMULAS:
        first, *others = versions(op_type)
        for since in others:
            if OLDEST_OPSET < since <= NEWEST_OPSET:
                yield op_type, since - 1
                yield op_type, since
        if first > OLDEST_OPSET:
            yield op_type, first


def has_formula(op_type: str, opset: int) -> bool:
    return any(
        row.op_type == op_type and row.since <= opset <= row.until for row in gradient_table()
    )


@cache
def cases_by_operator() -> dict[str, list[Case]]:
    """Return the cases that onnxruntime runs, per operator in them."""
    found: dict[str, list[Case]] = {}
    for case in (*CASES, *quantization.CASES):
        for op_type in () if case.runtime else case.op_types():
            found.setdefault(op_type, []).append(case)
    return found


def cases_of(op_type: str, opset: int) -> list[Case]:
    cases = cases_by_operator().get(op_type, [])
    return [case for case in cases if case.opsets[0] <= opset <= case.opsets[1]]


def test_no_version_of_an_operator_lacks_its_formula() -> None:
    missing = {
        (op_type, opset)
        for op_type in FORMULAS
        for opset in range(max(OLDEST_OPSET, min(versions(op_type))), NEWEST_OPSET + 1)
        if not has_formula(op_type, opset) and not _deprecated(op_type, opset)
    }
    assert missing == set()


def test_both_sides_of_every_change_have_a_case() -> None:
    wanted = {(o, opset) for o, opset in borders() if has_formula(o, opset)}
    lacking = {(o, opset) for o, opset in wanted if not cases_of(o, opset)}
    # where onnxruntime has no kernel, the product is checked in float64 alone
    without_kernel = {(o, version(o, opset)) for o, opset in NOT_RUN}
    assert {(o, version(o, opset)) for o, opset in lacking} <= without_kernel


# quantized operators have a slope by another definition, and tests of their own for every opset
OPSETS = {case: set(case.checked_opsets()) for case in CASES}


def test_gradients_just_before_a_change() -> None:
    # `test_formulas` runs every case where a form begins; this is where it ends
    wanted = {(o, opset) for o, opset in borders() if has_formula(o, opset)}
    jobs: dict[tuple[str, int], set[str]] = {}
    by_name = {case.name: case for case in CASES}
    for op_type, opset in sorted(wanted):
        cases = [case for case in cases_of(op_type, opset) if case in OPSETS]
        if cases and all(opset not in OPSETS[case] for case in cases):
            smallest = min(cases, key=lambda case: np.prod(case.shape))
            jobs.setdefault((smallest.name, opset), set()).add(op_type)
    wrong = {}
    for name, opset in jobs:
        case = by_name[name]
        model = gradient_model(case, np.float32, opset)
        error = error_of(run_onnxruntime(model, gradient_feeds(case, np.float32)), measured(case))
        if error >= FLOAT32_TOLERANCE:
            wrong[name, opset] = error
    assert jobs
    assert wrong == {}


def _deprecated(op_type: str, opset: int) -> bool:
    return bool(defs.get_schema(op_type, opset, "").deprecated)


# -- models ------------------------------------------------------------------------------------

IR_OF_OPSET = {
    **dict.fromkeys((7, 8), 3),
    9: 4,
    10: 5,
    11: 6,
    12: 7,
    **dict.fromkeys(range(13, 19), 8),
    19: 9,
    **dict.fromkeys((20, 21, 22), 10),
    23: 11,
    24: 12,
    25: 13,
    26: 13,
}
"""The IR version that came with an opset."""

BODY = """
a = Conv<pads = [1, 1, 1, 1]>(image, w)
b = LeakyRelu<alpha = 0.2>(a)
p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(b)
c = Conv(p, v)
d = Sigmoid(c)
e = Mul(c, d)
m = ReduceMax<axes = [2, 3], keepdims = 0>(e)
s = Softmax<axis = 1>(m)
g = GlobalAveragePool(e)
f = Flatten(g)
h = Add(f, s)
scores = Gemm(h, fc, bias)
"""
WEIGHTS = {"w": (4, 3, 3, 3), "v": (6, 4, 1, 1), "fc": (6, 5), "bias": (5,)}


def model_of(opset: int, ir_version: int) -> ModelProto:
    """Return the same network in an opset; weights are graph inputs where the IR demands it."""
    body, integers = BODY, {}
    if opset >= 18:
        body = body.replace(
            "ReduceMax<axes = [2, 3], keepdims = 0>(e)", "ReduceMax<keepdims = 0>(e, axes)"
        )
        integers = {"axes": [2, 3]}
    model = network(
        body,
        WEIGHTS,
        image="float[N, 3, 8, 8] image",
        scores="float[N, 5] scores",
        integers=integers,
        opset=opset,
        ir_version=max(4, ir_version),
    )
    model.ir_version = ir_version
    if ir_version < 4:
        for weight in model.graph.initializer:
            info = helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
            model.graph.input.append(info)
    return model


def explanation(model: ModelProto, file: Path) -> np.ndarray:
    """Export a model, which proves it, and return the gradients of two images."""
    file.unlink(missing_ok=True)
    export_model(model, file, layer="b", gradient_builder="reverse")
    exported = onnx.load(file)
    assert exported.opset_import == model.opset_import
    assert exported.ir_version == max(4, model.ir_version)
    image = np.random.default_rng(2).standard_normal((2, 3, 8, 8)).astype(np.float32)
    outputs = [o for o in exported.graph.output if o.name == "cam_gradients"]
    del exported.graph.output[:]
    exported.graph.output.extend(outputs)
    return run_onnxruntime(exported, {"image": image, "cam_class": np.array([1, 4])})


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    gradients = explanation(model_of(17, 8), tmp_path_factory.mktemp("opset") / "17.onnx")
    assert np.abs(gradients).max() > 1e-3
    return gradients


@pytest.mark.parametrize("opset", range(OLDEST_OPSET, NEWEST_OPSET + 1))
def test_the_same_explanation_in_every_opset(
    opset: int, expected: np.ndarray, tmp_path: Path
) -> None:
    gradients = explanation(model_of(opset, IR_OF_OPSET[opset]), tmp_path / "out.onnx")
    np.testing.assert_allclose(gradients, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("opset", "ir_version"), [(7, 13), (13, 3), (26, 8), (26, 14)])
def test_any_ir_version_in_any_opset(
    opset: int, ir_version: int, expected: np.ndarray, tmp_path: Path
) -> None:
    gradients = explanation(model_of(opset, ir_version), tmp_path / "out.onnx")
    np.testing.assert_allclose(gradients, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("opset", [27, 28])
def test_a_newer_opset_is_refused_and_the_remedy_works(
    opset: int, expected: np.ndarray, tmp_path: Path
) -> None:
    model = model_of(21, 14)
    model.opset_import[0].version = opset
    with pytest.raises(UnsupportedModelError, match=f"opset {opset} .*version_converter") as caught:
        export_model(model, tmp_path / "out.onnx")
    assert caught.value.exit_code == 3
    converted = version_converter.convert_version(model, NEWEST_OPSET)
    gradients = explanation(converted, tmp_path / "out.onnx")
    np.testing.assert_allclose(gradients, expected, rtol=1e-5, atol=1e-7)


def test_a_newer_ir_version_is_refused(tmp_path: Path) -> None:
    model = model_of(21, 14)
    model.ir_version = 15
    with pytest.raises(InvalidModelError, match="ir_version 15 is higher than the checker's"):
        export_model(model, tmp_path / "out.onnx")


def test_a_missing_import_is_named(tmp_path: Path) -> None:
    model = model_of(17, 8)
    model.graph.node[1].domain = "org.example"
    with pytest.raises(InvalidModelError, match=r"No opset import for domain 'org\.example'"):
        export_model(model, tmp_path / "out.onnx")
    del model.opset_import[:]
    with pytest.raises(InvalidModelError, match="must specify opset_import"):
        export_model(model, tmp_path / "out.onnx")
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(InvalidModelError, match="No opset import for domain ''"):
        export_model(model, tmp_path / "out.onnx")


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_a_domain_that_is_imported_twice_is_named(domain: str, tmp_path: Path) -> None:
    # onnxruntime takes the last one, other readers the newest
    model = model_of(17, 8)
    model.opset_import.append(helper.make_opsetid(domain, 11))
    with pytest.raises(InvalidModelError, match=r"imports ai\.onnx 17 and ai\.onnx 11") as caught:
        export_model(model, tmp_path / "out.onnx")
    assert caught.value.exit_code == 3


def test_an_operator_of_an_unknown_domain_is_named(tmp_path: Path) -> None:
    model = model_of(17, 8)
    model.graph.node[1].domain = "org.example"
    model.opset_import.append(helper.make_opsetid("org.example", 1))
    with pytest.raises(UnsupportedModelError, match=r"org\.example::LeakyRelu"):
        export_model(model, tmp_path / "out.onnx", layer="a")
