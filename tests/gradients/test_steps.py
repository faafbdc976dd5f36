"""`Emitter.above` and `below`: comparisons as numbers, sharp between neighbouring floats."""

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from onnx_gradcam.gradients.emitter import STEEPEST, Emitter, TensorType

THRESHOLDS = (0.0, 3.0, -3.0, 6.0, 0.1, -0.7, 255.0, 1e-30, 1e9, 2 * STEEPEST)
NORMAL = float(np.finfo(np.float32).tiny)


def step(method: str, threshold: float, x: np.ndarray, opset: int) -> np.ndarray:
    dtype = helper.np_dtype_to_tensor_dtype(x.dtype)
    emit = Emitter(opset, {"x": TensorType(dtype, x.shape)}, lambda _: None, "cam/")
    result = getattr(emit, method)("x", threshold)
    graph = helper.make_graph(
        emit.nodes,
        "graph",
        [helper.make_tensor_value_info("x", dtype, x.shape)],
        [helper.make_tensor_value_info(result, dtype, None)],
        emit.initializers,
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    (values,) = session.run(None, {"x": x})
    assert values.dtype == x.dtype
    return np.asarray(values)


def around(threshold: float, dtype: type) -> np.ndarray:
    """Return the threshold, its neighbours, and numbers on both sides."""
    t = dtype(threshold)
    near = [t, np.nextafter(t, dtype(np.inf)), np.nextafter(t, dtype(-np.inf))]
    if threshold == 0:  # the neighbours of 0 are denormal
        near = [t, NORMAL, -NORMAL]
    return np.array([*near, t - 1, t + 1, 0, 1, -1, 1e30, -1e30, np.inf, -np.inf], dtype)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sharp_at_the_threshold(threshold: float, dtype: type) -> None:
    x = around(threshold, dtype)
    t = dtype(threshold)
    assert np.array_equal(step("above", threshold, x, 17), (x > t).astype(dtype))
    assert np.array_equal(step("below", threshold, x, 17), (x < t).astype(dtype))


@pytest.mark.parametrize("opset", [7, 11, 17, 22, 26])
def test_in_every_opset(opset: int) -> None:
    x = around(6.0, np.float32)
    assert np.array_equal(step("above", 6.0, x, opset), (x > 6).astype(np.float32))


def test_denormal_numbers_are_no_clear_one() -> None:
    x = np.array([NORMAL / 4, -NORMAL / 4], np.float32)
    values = step("above", 0.0, x, 17)
    assert 0 <= values[0] <= 1
    assert values[1] == 0
