"""Engines that compute the gradient of a case without anything of this package."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx_ad
from onnx import shape_inference

from tests.gradients.case import TORCH_REFERENCES, Array, Case, seed_like
from tests.gradients.checks import output_of, run_reference


def onnx_ad_gradient(case: Case) -> Array:
    """Return dL/dA of onnx-ad, in float64. It needs static shapes."""
    forward = shape_inference.infer_shapes(case.model(np.float64, case.main_opset))
    adjoint = onnx_ad.reverse(forward, inputs=["A"], layout="onnx")
    wanted = [o for o in adjoint.graph.output if o.name == "adj_A"]
    del adjoint.graph.output[:]
    adjoint.graph.output.extend(wanted)
    seed = seed_like(output_of(case).shape)[..., None]  # the last axis counts the directions
    with np.errstate(all="ignore"):  # of Pow it computes the exponent's gradient, too, with a Log
        return run_reference(adjoint, {**case.feeds(np.float64), "adj_y": seed})[..., 0]


def torch_gradient(case: Case) -> Array:
    """Return dL/dA of PyTorch, in float64, as `tools/make_gradient_references.py` stored it."""
    return torch_gradients()[case.name]


@cache
def torch_gradients() -> dict[str, Array]:
    """Return all that is stored."""
    gradients: dict[str, Array] = {}
    for file in sorted(TORCH_REFERENCES.glob("*.npz")):
        with np.load(file) as stored:
            gradients |= stored
    return gradients
