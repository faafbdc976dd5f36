from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import onnxruntime.capi.onnxruntime_pybind11_state
import pytest
from onnx import ModelProto, TensorProto, checker, helper, parser
from onnx.reference import ReferenceEvaluator

from onnx_gradcam.export.builders import preparation
from onnx_gradcam.export.builders.preparation import RULES, prepare_tail
from onnx_gradcam.export.builders.training_graph import GradientGraphError
from tests.export.builders.preparation_cases import CASES, Array, Case
from tests.export.builders.training_oracle import training_gradients

STEP = 1e-5
BATCHES = [case for case in CASES if len(case.shape) > 1 and not case.inputs]


def named(model: ModelProto) -> list[str]:
    return [name for node in model.graph.node for name in node.output if name]


def run(model: ModelProto, outputs: list[str], feeds: dict[str, Array]) -> list[Array]:
    exposed = ModelProto()
    exposed.CopyFrom(model)
    # a loader takes what the builder takes: outputs without a type would be refused
    for name in outputs:
        if name != "loss":
            exposed.graph.output.append(helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            exposed.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:  # GroupNormalization-18
        return list(ReferenceEvaluator(model).run(outputs, feeds))
    return list(session.run(outputs, feeds))


def central_differences(case: Case) -> Array:
    """dL/dA by ONNX's reference implementation in double precision.

    Of the prepared tail, since the reference implementation is not right for some operators of
    the originals (LRN, Softmax-1, BatchNormalization-9); that both compute the same is tested.
    """
    evaluator = ReferenceEvaluator(prepare_tail(case.model("double")))
    feeds = case.feeds(np.float64)
    gradient = np.zeros_like(feeds["A"])
    for index in np.ndindex(gradient.shape):
        losses = []
        for sign in (1, -1):
            moved = feeds["A"].copy()
            moved[index] += sign * STEP
            losses.append(np.sum(evaluator.run(["weighted"], {**feeds, "A": moved})[0]))
        gradient[index] = (losses[0] - losses[1]) / (2 * STEP)
    return gradient


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_prepared_tail_computes_the_same(case: Case) -> None:
    original = case.model()
    before = original.SerializeToString()
    prepared = prepare_tail(original)
    assert original.SerializeToString() == before
    checker.check_model(prepared, full_check=True)
    opset = prepared.opset_import[0].version
    assert opset == min(max(case.opset, 13), 21)
    assert prepared.ir_version <= 10
    feeds = case.feeds(np.float32)
    expected = run(original, ["y", "loss"], feeds)
    for actual, reference in zip(run(prepared, ["y", "loss"], feeds), expected, strict=True):
        assert actual.shape == reference.shape
        np.testing.assert_allclose(actual, reference, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("case", BATCHES, ids=lambda case: case.name)
def test_a_batch_of_unknown_size_is_prepared_too(case: Case) -> None:
    prepared = prepare_tail(case.model(symbolic=True))
    feeds = case.feeds(np.float32)
    expected = run(case.model(), ["y"], feeds)[0]
    np.testing.assert_allclose(run(prepared, ["y"], feeds)[0], expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tensors_keep_their_names_and_new_ones_start_with_them(case: Case) -> None:
    original = case.model()
    prepared = prepare_tail(original)
    old, new = named(original), named(prepared)
    assert max(Counter(new).values()) == 1
    assert set(old) <= set(new)
    constants = {tensor.name for tensor in prepared.graph.initializer}
    constants -= {tensor.name for tensor in original.graph.initializer}
    for name in (set(new) - set(old)) | constants:
        assert re.sub(r"/(mean|inv_std_dev|prepared_.*)$", "", name, count=1) in old


def test_the_builder_differentiates_every_prepared_tail(tmp_path: Path) -> None:
    jobs = {case.name: (prepare_tail(case.model()), case.feeds(np.float32)) for case in CASES}
    gradients = training_gradients(tmp_path, jobs)
    problems = []
    for case in CASES:
        gradient, expected = gradients[case.name], central_differences(case)
        if isinstance(gradient, str):
            if case.evaluated or "NOT_IMPLEMENTED" not in gradient:
                problems.append(f"{case.name}: {gradient}")
            continue
        error = np.abs(gradient - expected).max() if gradient.shape == expected.shape else np.inf
        scale = np.abs(expected).max()
        assert scale > 0
        if not error <= 1e-4 * scale:
            problems.append(f"{case.name}: off by {error / scale:.1e} of the largest")
    assert not problems, "\n".join(problems)


def test_the_exact_gelu_is_left_as_it_is() -> None:
    prepared = prepare_tail(Case("", "y = Gelu(A)", opset=20).model())
    assert prepared.graph.node[0].op_type == "Gelu"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y, mask = Dropout(A)", "Identity"),
        ("y, mask = Dropout(A)\n n = Not(mask)", "Dropout"),
        ("on = Constant<value=bool {0}>()\n y = Dropout(A,, on)", "Identity"),
        ("on = Constant<value=bool {1}>()\n y = Dropout(A,, on)", "Dropout"),
    ],
)
def test_dropout_goes_unless_it_drops_or_its_mask_is_read(body: str, expected: str) -> None:
    prepared = prepare_tail(Case("", body).model())
    assert expected in {node.op_type for node in prepared.graph.node}


def test_every_rule_has_a_case() -> None:
    used = {node.op_type for case in CASES for node in case.model().graph.node}
    assert set(RULES) <= used


def test_two_rules_for_one_operator_are_refused() -> None:
    with pytest.raises(RuntimeError, match="two rules for Elu"):
        preparation._merged([{"Elu": RULES["Elu"]}, {"Elu": RULES["Elu"]}])


@pytest.mark.parametrize(
    ("opset", "body", "reason"),
    [
        (24, "c, d = RotaryEmbedding(A, A, A)", "RotaryEmbedding-24"),
        (18, "p, q = Split<axis=0, num_outputs=2>(A)\n y = Exp(p)", "Split-18 .*no known sizes"),
        (18, "k = Shape(q)\n y = Pad<mode=\"edge\">(A, k)", "Pad-18 .*known at run time"),
        (18, "y = Pow(A, A)", "the exponent of .*Pow-18 .node 'y'. is no constant"),
        (18, "p = Exp(A)\n y = Pow(A, p)", "the exponent of .*Pow-18 .node 'y'. is no constant"),
        (18, 'y = Resize<mode="linear", antialias=1>(A,, w)', "Resize-18 .*antialiased"),
        (18, 'i = Shape(w)\n y = ScatterElements<reduction="add">(w, i, A)', "reduction=add"),
    ],
)  # fmt: skip
def test_what_would_be_differentiated_wrongly_is_refused(
    opset: int, body: str, reason: str
) -> None:
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        tail (float[N, 4] A, float[M, P, Q, R] q, float[2] w) => (float loss) {{
            {body}
            loss = ReduceSum<keepdims=0>(y)
        }}"""
    )
    with pytest.raises(GradientGraphError, match=reason) as caught:
        prepare_tail(model)
    assert "\n" not in str(caught.value)


def test_initializers_listed_as_inputs_are_listed_no_longer() -> None:
    model = parser.parse_model(
        """<ir_version: 3, opset_import: ["" : 9]>
        tail (float[2, 4] A, float[4] w) => (float loss) <float[4] w = {1.0, 2.0, 3.0, 4.0}> {
            y = Mul(A, w)
            loss = ReduceSum<keepdims=0>(y)
        }"""
    )
    prepared = prepare_tail(model)
    assert [info.name for info in prepared.graph.input] == ["A"]
    assert prepared.ir_version == 8


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_a_loss_of_another_type_is_cast(dtype: str) -> None:
    original = Case("", "y = HardSwish(A)").model(dtype)
    prepared = prepare_tail(original)
    checker.check_model(prepared, full_check=True)
    assert prepared.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    feeds = Case("", "").feeds(np.float16 if dtype == "float16" else np.float64)
    before, after = (run(model, ["loss"], feeds)[0] for model in (original, prepared))
    assert after == pytest.approx(float(before), rel=2e-3)


def test_other_domains_pass_as_they_are() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 9, "com.microsoft" : 1]>
        tail (float[2, 4] A) => (float loss) {
            y = com.microsoft.QuickGelu<alpha=1.5>(A)
            loss = ReduceSum<keepdims=0>(y)
        }"""
    )
    prepared = prepare_tail(model)
    assert [node.op_type for node in prepared.graph.node] == ["QuickGelu", "ReduceSum"]
    assert {o.domain: o.version for o in prepared.opset_import} == {"": 13, "com.microsoft": 1}
