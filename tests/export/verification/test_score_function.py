"""The model cut open at A gives the scores of the whole model, and follows a perturbed A."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_gradcam.arrangement import Arrangement
from onnx_gradcam.export.verification.score_function import ScoreFunction, with_outputs
from tests.export.hand_made import SOURCE, source_model

AROUND = SOURCE.replace(
    "flat = Flatten(swish)",
    "side = GlobalAveragePool(image) scale = ReduceMean<axes=[1]>(side)"
    " mixed = Mul(swish, scale) flat = Flatten(mixed)",
)
INNER = """
<ir_version: 8, opset_import: ["" : 17]>
branches (float[N,3,5,5] image) => (float[N,6] logits)
<float[8,3,3,3] filters, float[200,6] weight, float[6] bias> {
  features = Conv<pads=[1,1,1,1]>(image, filters)
  total = ReduceSum<keepdims=0>(image)
  zero = Constant<value_float=0.0>()
  positive = Greater(total, zero)
  chosen = If(positive) <
    then_branch = then_graph () => (float[N,8,5,5] a) { a = Sigmoid(features) },
    else_branch = else_graph () => (float[N,8,5,5] b) { b = Tanh(features) }
  >
  flat = Flatten(chosen)
  logits = Gemm(flat, weight, bias)
}"""


def run(model: bytes, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def function_of(model: onnx.ModelProto, layout: str = "NCHW") -> ScoreFunction:
    return ScoreFunction(model, None, "features", Arrangement(layout), "logits", 1)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 3, 5, 5)).astype(np.float32)


@pytest.mark.parametrize("text", [SOURCE, AROUND, INNER])
def test_without_a_perturbation_it_gives_the_scores_of_the_model(
    text: str, image: np.ndarray
) -> None:
    model = source_model(text)
    function = function_of(model)
    values = run(with_outputs(model, function.needed), {"image": image})
    function.set_point(values)
    found = function.complete(function(np.zeros((2, 8, 5, 5))))
    np.testing.assert_allclose(found, values["logits"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("last", "offset"),
    [
        ("logits = Gemm<beta=0.5>(flat, weight, bias)", 0.5),
        ("product = MatMul(flat, weight) logits = Add(bias, product)", 1.0),
        ("product = MatMul(flat, weight) logits = Add(product, product)", 0.0),
    ],
)
def test_a_bias_added_last_is_left_out(image: np.ndarray, last: str, offset: float) -> None:
    model = source_model(SOURCE.replace("logits = Gemm(flat, weight, bias)", last))
    function = function_of(model)
    values = run(with_outputs(model, function.needed), {"image": image})
    function.set_point(values)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    expected = np.broadcast_to(offset * weights["bias"], (6,))
    np.testing.assert_allclose(function.complete(np.zeros((1, 6)))[0], expected, rtol=1e-6)
    found = function.complete(function(np.zeros((2, 8, 5, 5))))
    np.testing.assert_allclose(found, values["logits"], rtol=1e-5, atol=1e-6)


def test_what_by_passes_a_is_found(image: np.ndarray) -> None:
    assert function_of(source_model(SOURCE)).bypassing == []
    assert function_of(source_model(AROUND)).bypassing == ["scale"]
    assert function_of(source_model(INNER)).bypassing == ["positive"]


def test_it_follows_a_perturbation(image: np.ndarray) -> None:
    model = source_model(SOURCE)
    function = function_of(model)
    values = run(with_outputs(model, function.needed), {"image": image})
    function.set_point(values)
    change = np.random.default_rng(1).normal(size=(2, 8, 5, 5))
    moved = values["features"] + change
    flat = (moved / (1 + np.exp(-moved))).reshape(2, -1)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    expected = flat @ weights["weight"] + weights["bias"]
    found = function.complete(function(change))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_half_precision_is_evaluated_in_float32(image: np.ndarray) -> None:
    model = source_model(SOURCE.replace("float[", "float16["))
    function = function_of(model)
    values = run(with_outputs(model, function.needed), {"image": image.astype(np.float16)})
    function.set_point(values)
    found = function(np.zeros((2, 8, 5, 5)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(function.complete(found), values["logits"], rtol=2e-2, atol=2e-2)


def test_scores_with_axes_of_size_one_become_rows(image: np.ndarray) -> None:
    function = function_of(source_model())
    scores = np.arange(12).reshape(2, 6, 1, 1)
    np.testing.assert_array_equal(function.rows(scores), scores.reshape(2, 6))


def test_float64_gives_the_same_scores_with_less_rounding() -> None:
    model = source_model()
    function = ScoreFunction(model, None, "swish", Arrangement("NCHW"), "logits", 1)
    image = np.random.default_rng(0).standard_normal((2, 3, 5, 5)).astype(np.float32)
    values = run(with_outputs(model, function.needed), {"image": image})
    function.set_point(values)
    precise = function.in_float64()
    assert precise is not None
    nothing = np.zeros_like(values["swish"], np.float64)
    scores = precise(nothing)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, function(nothing), rtol=1e-5, atol=1e-6)
    step = np.full_like(nothing, 1e-9)
    assert np.abs(precise(step) - scores).max() > 0, "float32 would not see so small a step"


def test_no_float64_where_the_reference_implementation_differs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = source_model()
    function = ScoreFunction(model, None, "swish", Arrangement("NCHW"), "logits", 1)
    image = np.ones((1, 3, 5, 5), np.float32)
    values = run(with_outputs(model, function.needed), {"image": image})
    function.set_point(values)
    monkeypatch.setattr(ScoreFunction, "__call__", lambda self, d: np.full((1, 6), 1e3))
    assert function.in_float64() is None
