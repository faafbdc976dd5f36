"""Which differences of outputs at the default level are rounding, and which are not."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from onnx_gradcam.export.files.model_file import load_model
from onnx_gradcam.export.verification.compare_outputs import compare_outputs
from onnx_gradcam.export.verification.runs import within_rounding

QUANTIZED = """
<ir_version: 8, opset_import: ["" : 13]>
quantized (float[N,3] x) => (float[N,3] y)
<float s = {0.08884863}, int8 z = {0}> {
  q = QuantizeLinear(x, s, z)
  y = DequantizeLinear(q, s, z)
}"""


@pytest.mark.parametrize(("steps", "passes"), [(0, True), (1, True), (2, True), (3, False)])
def test_two_quantization_steps_are_accepted(steps: int, passes: bool) -> None:
    step = np.float32(0.08884863)
    numbers = np.arange(-127, 120, dtype=np.int32)
    before, after = (n.astype(np.float32) * step for n in (numbers, numbers + steps))
    check = within_rounding(
        compare_outputs({"y": before}, {"y": after}), load_model(parser.parse_model(QUANTIZED))
    )
    assert check.passed == passes
    assert check.detail.endswith("steps or less") == (passes and steps > 0)
