"""Strided convolutions go back as one convolution per phase wherever that is known to be faster.

The cases have few channels, for which it is not, so the choice is taken out of the formula's hands:
every strided case, and windows at random, against central differences.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto

from onnx_gradcam.gradients import sub_pixel
from onnx_gradcam.gradients.windows import Axis
from tests.gradients.case import Case, weights
from tests.gradients.cases import FAMILIES
from tests.gradients.checks import (
    FLOAT32_TOLERANCE,
    FLOAT64_TOLERANCE,
    error_of,
    gradient_feeds,
    gradient_model,
    measured,
    run_onnxruntime,
    run_reference,
)
from tests.gradients.test_geometry import CHANNELS, Drawn, check, random_geometry, windows

STRIDED = [case for case in FAMILIES["conv"] if "strides" in case.body and not case.runtime]


def known(axes: list[Axis], channels: int) -> bool:
    return all(axis.is_static for axis in axes)


def operators(model: ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("case", STRIDED, ids=lambda case: case.name)
def test_phases_of_every_case(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sub_pixel, "is_faster", known)
    model = gradient_model(case, np.float64, case.main_opset, symbolic=False)
    assert "ConvTranspose" not in operators(model)
    gradient = run_reference(model, gradient_feeds(case, np.float64))
    assert error_of(gradient, measured(case)) < FLOAT64_TOLERANCE
    for opset in case.opsets:
        gradient = run_onnxruntime(
            gradient_model(case, np.float32, opset), gradient_feeds(case, np.float32)
        )
        assert error_of(gradient, measured(case)) < FLOAT32_TOLERANCE


@random_geometry
@given(windows(any_padding=True), st.sampled_from(CHANNELS), st.sampled_from([7, 11, 21]))
def test_phases_of_any_windows(drawn: Drawn, channels: Any, opset: int) -> None:
    attributes, kernel, sizes = drawn
    group, per_group, outputs = channels
    case = Case(
        f"Conv {attributes} of {sizes}",
        f"y = Conv<{attributes}, group={group}>(A, w)",
        (1, group * per_group, *sizes),
        (opset, opset),
        {"w": weights(group * outputs, per_group, *kernel)},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sub_pixel, "is_faster", known)
        check(case, opset)


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "phases"),
    [
        (8, 3, 2, True),
        (8, 1, 2, True),  # a shortcut of ResNet
        (8, 2, 2, False),  # no overlap
        (3, 7, 2, False),  # of an image
    ],
)
def test_where_phases_are_used(channels: int, kernel: int, stride: int, phases: bool) -> None:
    case = Case(
        "Conv of phases, or not",
        f"y = Conv<strides=[{stride}, {stride}]>(A, w)",
        (1, channels, 8, 9),
        constants={"w": weights(4, channels, kernel, kernel)},
    )
    model = gradient_model(case, np.float32, case.main_opset)
    assert ("ConvTranspose" not in operators(model)) == phases
    gradient = run_onnxruntime(model, gradient_feeds(case, np.float32))
    assert error_of(gradient, measured(case)) < FLOAT32_TOLERANCE


def test_weights_are_not_stored_again() -> None:
    case = Case(
        "Conv with many weights",
        "y = Conv<strides=[2, 2], pads=[1, 1, 1, 1]>(A, w)",
        (1, 8, 4, 4),
        constants={"w": weights(64, 8, 3, 3)},
    )
    model = gradient_model(case, np.float32, case.main_opset)
    stored = [tensor.name for tensor in model.graph.initializer if np.prod(tensor.dims) > 64]
    assert stored == ["w"]
