"""Convolutions and poolings of any geometry: windows at random, against central differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.gradients.case import Case, weights
from tests.gradients.checks import (
    FLOAT32_TOLERANCE,
    check_standard,
    error_of,
    gradient_feeds,
    gradient_model,
    measured,
    output_of,
    run_onnxruntime,
)

random_geometry = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


CHANNELS = [(1, 2, 3), (2, 2, 2), (2, 1, 1), (3, 1, 2)]
"""Groups, channels per group, output channels per group."""

Drawn = tuple[str, list[int], list[int]]


@st.composite
def windows(draw: st.DrawFn, *, any_padding: bool) -> Drawn:
    """Draw the attributes of one or two axes, the kernel and the sizes of the input."""
    rank = draw(st.integers(1, 2))

    def per_axis(low: int, high: int, count: int = rank) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    kernel, sizes, strides = per_axis(1, 4), per_axis(1, 9), per_axis(1, 4)
    attributes = {"kernel_shape": kernel, "strides": strides}
    reach = kernel
    if draw(st.booleans()):
        attributes["dilations"] = per_axis(1, 3)
        pairs = zip(kernel, attributes["dilations"], strict=True)
        reach = [(k - 1) * d + 1 for k, d in pairs]
    pads = [0] * (2 * rank)
    auto = draw(
        st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    )
    if auto == "NOTSET":
        limits = [3 if any_padding else k - 1 for k in kernel * 2]
        pads = [draw(st.integers(0, limit)) for limit in limits]
        attributes["pads"] = pads
    text = ", ".join(f"{name}={values}" for name, values in attributes.items())
    for i in range(rank):
        fits = sizes[i] + pads[i] + pads[rank + i] >= reach[i]
        assume(fits or auto.startswith("SAME"))
        # onnxruntime refuses the negative paddings that windows with gaps would need, and SAME
        # together with dilations
        count = -(-sizes[i] // strides[i])
        assume(not auto.startswith("SAME") or (count - 1) * strides[i] + reach[i] >= sizes[i])
        assume(not auto.startswith("SAME") or "dilations" not in attributes)
    return (text if auto == "NOTSET" else f'{text}, auto_pad="{auto}"'), kernel, sizes


def check(case: Case, opset: int) -> None:
    feeds = case.feeds(np.float32)
    y = run_onnxruntime(case.model(np.float32, opset), feeds)
    assume(np.all(np.isfinite(output_of(case))))  # dilated windows may miss the map
    np.testing.assert_allclose(y, output_of(case), rtol=1e-5, atol=1e-5)
    assume(np.abs(measured(case)).max() > 0.1)  # a stride may leave windows in the padding alone
    model = gradient_model(case, np.float32, opset)
    check_standard(model)
    gradient = run_onnxruntime(model, gradient_feeds(case, np.float32))
    assert error_of(gradient, measured(case)) < FLOAT32_TOLERANCE


def axes_of_unknown_size(sizes: list[int], unknown: bool) -> tuple[int, ...]:
    return (0, *range(2, 2 + len(sizes))) if unknown else (0,)


@random_geometry
@given(
    windows(any_padding=True),
    st.sampled_from(CHANNELS),
    st.sampled_from([7, 11, 21]),
    st.booleans(),
)
def test_conv(drawn: Drawn, channels: Any, opset: int, unknown: bool) -> None:
    attributes, kernel, sizes = drawn
    group, per_group, outputs = channels
    weight = (group * outputs, per_group, *kernel)
    case = Case(
        f"Conv {attributes} of {sizes}",
        f"y = Conv<{attributes}, group={group}>(A, w)",
        (1, group * per_group, *sizes),
        (opset, opset),
        {"w": weights(*weight)},
        symbolic=axes_of_unknown_size(sizes, unknown and opset >= 10),
    )
    check(case, opset)


@random_geometry
@given(
    windows(any_padding=False),
    st.booleans(),
    st.booleans(),
    st.sampled_from([10, 11, 21]),
    st.booleans(),
)
@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
def test_pooling(
    op_type: str, drawn: Drawn, ceil: bool, counted: bool, opset: int, unknown: bool
) -> None:
    attributes, _, sizes = drawn
    if op_type == "AveragePool":
        attributes += ", count_include_pad=1" if counted else ""
        assume("dilations" not in attributes or opset >= 19)
    attributes += ", ceil_mode=1" if ceil else ""
    case = Case(
        f"{op_type} {attributes} of {sizes}",
        f"y = {op_type}<{attributes}>(A)",
        (1, 2, *sizes),
        (opset, opset),
        symbolic=axes_of_unknown_size(sizes, unknown),
    )
    check(case, opset)
