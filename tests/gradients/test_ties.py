"""Where there is no derivative - kinks and ties - both builders give the value that is documented.

PyTorch's: nothing at a kink of Relu or Clip, the first maximum of a window, equal shares among
the equal operands of Max and the equal elements of a reduction.

Where a function is finite, so is its gradient: far out, and where the derivative is infinite.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from onnx_gradcam.export.builders.environment import builder_status
from tests.gradients.case import Array, Case
from tests.gradients.checks import Build, gradient_model, reverse, run_onnxruntime
from tests.gradients.training import training_builds

KINKS: dict[str, tuple[str, tuple[int, int], list[float], list[float]]] = {
    # name: body, opsets, A, dL/dA for dL/dy = 1
    "Relu": ("y = Relu(A)", (7, 26), [-1, 0, 2], [0, 0, 1]),
    "Abs": ("y = Abs(A)", (7, 26), [-1, 0, 2], [-1, 0, 1]),
    "LeakyRelu": ("y = LeakyRelu<alpha=0.5>(A)", (7, 26), [-1, 0, 2], [0.5, 0.5, 1]),
    "PRelu": ("y = PRelu(A, k)", (7, 26), [-1, 0, 2], [0.5, 0.5, 1]),
    "Clip": ("y = Clip<min=0.0, max=6.0>(A)", (7, 10), [-1, 0, 2, 6, 7], [0, 0, 1, 0, 0]),
    "Clip of inputs": ("y = Clip(A, zero, six)", (11, 26), [-1, 0, 2, 6, 7], [0, 0, 1, 0, 0]),
    "HardSigmoid": (
        "y = HardSigmoid<alpha=0.25, beta=0.5>(A)",
        (7, 26),
        [-3, -2, 0, 2, 3],
        [0, 0, 0.25, 0, 0],
    ),
    "HardSwish": ("y = HardSwish(A)", (14, 26), [-4, -3, 0, 4], [0, 0, 0.5, 1]),
    "Max": ("y = Max(A, zero)", (8, 26), [-1, 0, 2], [0, 0.5, 1]),
    "Max, right": ("y = Max(zero, A)", (8, 26), [-1, 0, 2], [0, 0.5, 1]),
    "Max of three": ("y = Max(zero, A, zero)", (8, 26), [-1, 0, 2], [0, 1 / 3, 1]),
    "Min": ("y = Min(A, zero)", (8, 26), [-1, 0, 2], [1, 0.5, 0]),
    "ReduceMax": ("y = ReduceMax<axes=[1]>(A)", (7, 17), [2, 1, 2, 0], [0.5, 0, 0.5, 0]),
    "ReduceMin": ("y = ReduceMin<axes=[1]>(A)", (7, 17), [2, 0, 0, 0], [0, 1 / 3, 1 / 3, 1 / 3]),
    "ReduceL2": ("y = ReduceL2<axes=[1]>(A)", (7, 17), [0, 0, 0], [0, 0, 0]),
    "GlobalMaxPool": (
        "m = Unsqueeze<axes=[1]>(A)\n y = GlobalMaxPool(m)",
        (7, 12),
        [2, 1, 2, 0],
        [0.5, 0, 0.5, 0],
    ),
    "MaxPool": (
        "m = Unsqueeze<axes=[1]>(A)\n y = MaxPool<kernel_shape=[3]>(m)",
        (7, 12),
        [2, 1, 2, 2, 1],
        [1, 0, 2, 0, 0],
    ),
    "MaxPool, strided": (
        "m = Unsqueeze<axes=[1]>(A)\n y = MaxPool<kernel_shape=[3], strides=[2], pads=[1, 1]>(m)",
        (7, 12),
        [0, 0, 0, 0, 0],
        [1, 1, 0, 1, 0],
    ),
}

FAR = [-1e30, -40, 0, 40, 1e30]
EXTREMES: dict[str, tuple[str, tuple[int, int], list[float], list[float]]] = {
    # as above
    "Sigmoid": ("y = Sigmoid(A)", (7, 26), FAR, [0, 0, 0.25, 0, 0]),
    "Tanh": ("y = Tanh(A)", (7, 26), FAR, [0, 0, 1, 0, 0]),
    "Softplus": ("y = Softplus(A)", (7, 26), FAR, [0, 0, 0.5, 1, 1]),
    "Softsign": ("y = Softsign(A)", (7, 26), [-1e30, 0, 1, 1e30], [0, 1, 0.25, 0]),
    "Mish": ("y = Mish(A)", (18, 26), FAR, [0, 0, 0.6, 1, 1]),
    "Swish": ("y = Swish(A)", (24, 24), FAR, [0, 0, 0.5, 1, 1]),
    "HardSwish": ("y = HardSwish(A)", (14, 26), FAR, [0, 0, 0.5, 1, 1]),
    "Gelu": ("y = Gelu(A)", (20, 26), FAR, [0, 0, 0.5, 1, 1]),
    "Gelu tanh": ('y = Gelu<approximate="tanh">(A)', (20, 26), FAR, [0, 0, 0.5, 1, 1]),
    "Erf": ("y = Erf(A)", (9, 26), FAR, [0, 0, 2 / np.pi**0.5, 0, 0]),
    "Elu": ("y = Elu(A)", (7, 26), FAR, [0, 0, 1, 1, 1]),
    "Celu": ("y = Celu<alpha=2.0>(A)", (12, 26), FAR, [0, 0, 1, 1, 1]),
    "Asinh": ("y = Asinh(A)", (9, 26), FAR, [0, 1601**-0.5, 1, 1601**-0.5, 0]),
    "Atan": ("y = Atan(A)", (7, 26), FAR, [0, 1 / 1601, 1, 1 / 1601, 0]),
    "Acosh": ("y = Acosh(A)", (9, 26), [1, 2, 1e30], [0, 3**-0.5, 1e-30]),
    "Asin": ("y = Asin(A)", (7, 26), [-1, 0, 0.6, 1], [0, 1, 1.25, 0]),
    "Acos": ("y = Acos(A)", (7, 26), [-1, 0, 0.6, 1], [0, -1, -1.25, 0]),
    "Sqrt": ("y = Sqrt(A)", (7, 26), [0, 0.25, 4], [0, 1, 0.25]),
    "a length written out": (
        "q = Mul(A, A)\n s = ReduceSum<axes=[1]>(q)\n y = Sqrt(s)",
        (7, 12),
        [0, 0, 0],
        [0, 0, 0],
    ),
    "Pow 0.5": ("y = Pow(A, k)", (7, 26), [0, 0.25, 4], [0, 1, 0.25]),
    "Pow 6": ("y = Pow(A, six)", (7, 26), [-1, 0, 1], [-6, 0, 6]),
    "Pow of 0 by its exponent": ("y = Pow(zero, A)", (7, 26), [0.5, 1, 2], [0, 0, 0]),
    "Pow of several exponents": ("y = Pow(A, several)", (7, 26), [0, 0, 0, 4], [0, 0, 1, 0.25]),
    "ReduceL1": ("y = ReduceL1<axes=[1]>(A)", (7, 17), [-2, 0, 2], [-1, 0, 1]),
    "ReduceLogSumExp": ("y = ReduceLogSumExp<axes=[1]>(A)", (7, 17), [-1e30, 9, 9], [0, 0.5, 0.5]),
    "ReduceProd": ("y = ReduceProd<axes=[1]>(A)", (7, 17), [0, 2, 3], [6, 0, 0]),
    "ReduceProd of two zeros": ("y = ReduceProd<axes=[1]>(A)", (7, 17), [0, 2, 0], [0, 0, 0]),
    "LpNormalization": ("y = LpNormalization(A)", (7, 26), [0, 0, 0], [0, 0, 0]),
    "LpNormalization of 1": ("y = LpNormalization<p=1>(A)", (7, 26), [0, 0, 0], [0, 0, 0]),
    "GlobalLpPool": (
        "m = Unsqueeze<axes=[1]>(A)\n y = GlobalLpPool<p=3>(m)",
        (7, 12),
        [0, 0, 0],
        [0, 0, 0],
    ),
    "ThresholdedRelu": ("y = ThresholdedRelu<alpha=2.0>(A)", (10, 26), [1, 2, 3], [0, 0, 1]),
    "Shrink": ("y = Shrink<lambd=2.0>(A)", (9, 26), [-3, -2, 0, 2, 3], [1, 0, 0, 0, 1]),
}


def kink(name: str) -> tuple[Case, Array, Array]:
    return _row(name, *KINKS[name])


def _row(
    name: str, body: str, opsets: tuple[int, int], a: list[float], gradient: list[float]
) -> tuple[Case, Array, Array]:
    constants = {"zero": 0.0, "six": 6.0, "k": 0.5, "several": np.array([0.5, 0, 1, 0.5])}
    used = {key: value for key, value in constants.items() if re.search(rf"\b{key}\b", body)}
    case = Case(f"kink: {name}", body, (1, len(a)), opsets, used)
    return case, np.array([a], np.float32), np.array([gradient], np.float32)


def gradient_at(case: Case, a: Array, opset: int, build: Build) -> Array:
    model = gradient_model(case, np.float32, opset, build=build)
    y = run_onnxruntime(case.model(np.float32, opset), {"A": a})
    return run_onnxruntime(model, {"A": a, "seed": np.ones_like(y)})


@pytest.mark.parametrize("name", KINKS)
def test_kink(name: str) -> None:
    case, a, gradient = kink(name)
    for opset in case.checked_opsets():
        np.testing.assert_allclose(gradient_at(case, a, opset, reverse), gradient, rtol=1e-6)


WINDOWS: dict[str, tuple[int, ...]] = {
    # attributes of a MaxPool: shape of A
    "kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]": (2, 3, 8, 7),
    "kernel_shape=[2, 2], strides=[2, 2]": (2, 3, 6, 7),
    "kernel_shape=[5, 3], pads=[2, 1, 2, 1]": (1, 2, 6, 7),
    "kernel_shape=[2, 3], dilations=[3, 2], strides=[2, 3], pads=[1, 2, 0, 1]": (1, 2, 8, 9),
    "kernel_shape=[2, 3, 2], strides=[2, 1, 2], pads=[0, 1, 1, 0, 1, 0]": (1, 2, 4, 5, 4),
}


@pytest.mark.parametrize("attributes", WINDOWS)
def test_max_pool_gives_all_to_the_first_of_equal_values(attributes: str) -> None:
    shape = WINDOWS[attributes]
    case = Case(f"ties: {attributes}", f"y = MaxPool<{attributes}>(A)", shape, (10, 26))
    # three values, negative ones: every window has ties, along both axes and across them
    a = np.random.default_rng(0).integers(-3, 0, shape).astype(np.float32)
    found = gradient_at(case, a, case.main_opset, reverse)
    np.testing.assert_array_equal(found, _firsts(attributes, a))


def _firsts(attributes: str, a: Array) -> Array:
    """Return how many windows have every element as their first maximum, in row-major order."""
    given = {
        name: ast.literal_eval(text) for name, text in re.findall(r"(\w+)=(\[.*?\])", attributes)
    }
    kernel, sizes = given["kernel_shape"], a.shape[2:]
    rank = len(kernel)
    strides, dilations = (given.get(name, [1] * rank) for name in ("strides", "dilations"))
    pads = given.get("pads", [0] * (2 * rank))
    counts = [
        (sizes[i] + pads[i] + pads[rank + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i in range(rank)
    ]
    result = np.zeros_like(a)
    for window in np.ndindex(*a.shape[:2], *counts):
        image, channel, *o = window
        elements = [
            tuple(o[i] * strides[i] - pads[i] + k[i] * dilations[i] for i in range(rank))
            for k in np.ndindex(*kernel)
        ]
        inside = [p for p in elements if all(0 <= p[i] < sizes[i] for i in range(rank))]
        first = max(inside, key=lambda p: a[image, channel][p])  # the first of equal ones
        result[image, channel][first] += 1
    return result


@pytest.mark.parametrize("name", EXTREMES)
def test_gradient_is_finite(name: str) -> None:
    case, a, gradient = _row(name, *EXTREMES[name])
    for opset in case.checked_opsets():
        found = gradient_at(case, a, opset, reverse)
        np.testing.assert_allclose(found, gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.needs_builder
def test_onnxruntime_training_agrees(tmp_path: Path) -> None:
    status = builder_status()
    if not status.available:
        pytest.skip(f"{status.problem}; {status.fix}")
    kinks = [kink(name) for name in KINKS]
    opsets = {case: case.main_opset for case, _, _ in kinks}
    builds = training_builds(opsets, status, tmp_path)
    for case, a, gradient in kinks:
        build = builds[case]
        assert not isinstance(build, str), build
        found = gradient_at(case, a, case.main_opset, build)
        np.testing.assert_allclose(found, gradient, rtol=1e-6, err_msg=case.name)
