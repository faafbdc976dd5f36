"""The checker itself is checked: right gradients pass, each kind of wrong one is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import parser

from tests.finite_differences import assert_gradient

Array = np.ndarray

TANH = """
<ir_version: 8, opset_import: ["" : 17]>
tanh (float[2,3,4] x) => (float[2,3,4] y) {
  k = Constant<value_float=2.0>()
  scaled = Mul(x, k)
  y = Tanh(scaled)
}"""


@pytest.fixture
def case() -> tuple[onnx.ModelProto, Array, Array, Array]:
    rng = np.random.default_rng(0)
    x, cotangent = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    right = cotangent * 2 * (1 - np.tanh(2 * x) ** 2)
    return parser.parse_model(TANH), x, cotangent, right


def test_a_right_gradient_passes(case: tuple[onnx.ModelProto, Array, Array, Array]) -> None:
    model, x, cotangent, right = case
    assert assert_gradient(model, {"x": x}, "x", cotangent, right) < 1e-6


def one_element(gradient: Array) -> Array:
    changed = gradient.copy()
    changed.flat[np.abs(gradient).argmax()] *= 1.01
    return changed


WRONG: dict[str, Callable[[Array], Array]] = {
    "zeros": np.zeros_like,
    "sign flipped": np.negative,
    "factor 1.01": lambda gradient: 1.01 * gradient,
    "factor 0.99": lambda gradient: 0.99 * gradient,
    "channels permuted": lambda gradient: gradient[:, ::-1],
    "images swapped": lambda gradient: gradient[::-1],
    "summed over the batch": lambda gradient: np.repeat(gradient.sum(0, keepdims=True), 2, 0),
    "one element off by a hundredth": one_element,
    "not a number": lambda gradient: np.where(gradient == gradient.max(), np.nan, gradient),
    "of another shape": lambda gradient: gradient[:, :, :3],
    "constant offset": lambda gradient: gradient + 0.01,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_gradient_is_refused(
    case: tuple[onnx.ModelProto, Array, Array, Array], wrong: str
) -> None:
    model, x, cotangent, right = case
    with pytest.raises(AssertionError):
        assert_gradient(model, {"x": x}, "x", cotangent, WRONG[wrong](right))


def test_the_worst_element_is_named(case: tuple[onnx.ModelProto, Array, Array, Array]) -> None:
    model, x, cotangent, right = case
    wrong = right.copy()
    wrong[1, 2, 0] += 1
    with pytest.raises(AssertionError, match=r"gradient at \(1, 2, 0\) is .*1 of 24 elements"):
        assert_gradient(model, {"x": x}, "x", cotangent, wrong)


def test_a_case_that_tests_nothing_is_refused(
    case: tuple[onnx.ModelProto, Array, Array, Array],
) -> None:
    model, x, cotangent, right = case
    with pytest.raises(AssertionError, match="nothing would be tested"):
        assert_gradient(model, {"x": x}, "x", 0 * cotangent, 0 * right)


def test_several_outputs_and_large_inputs() -> None:
    model = parser.parse_model("""
<ir_version: 8, opset_import: ["" : 17]>
two (float[40,50] x, float[50] w) => (float[40] y, float[40,50] z) {
  m = Mul(x, w)
  axes = Constant<value_ints=[1]>()
  y = ReduceSum<keepdims=0>(m, axes)
  z = Mul(x, x)
}""")
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(40, 50)), rng.normal(size=50)
    cotangents = {"y": rng.normal(size=40), "z": rng.normal(size=(40, 50))}
    right = cotangents["y"][:, None] * w + 2 * x * cotangents["z"]
    feeds = {"x": x, "w": w}
    assert assert_gradient(model, feeds, "x", cotangents, right) < 1e-7
    with pytest.raises(AssertionError, match="of 256 elements"):
        assert_gradient(model, feeds, "x", cotangents, 1.01 * right)
