"""A classifier of two convolutions, written as ONNX text, with seeded random weights."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

CLASSES = ("red", "green", "blue", "grey")

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[n, 3, 16, 16] image) => (float[n, 4] logits)
{
  first = Conv <pads = [1, 1, 1, 1]> (image, first_weight)
  first_map = Relu (first)
  second = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (first_map, second_weight)
  second_map = Relu (second)
  pooled = GlobalAveragePool (second_map)
  features = Flatten (pooled)
  logits = Gemm (features, head_weight, head_bias)
}
"""
WEIGHTS = {
    "first_weight": (8, 3, 3, 3),
    "second_weight": (8, 8, 3, 3),
    "head_weight": (8, 4),
    "head_bias": (4,),
}


def small_model() -> onnx.ModelProto:
    """Return the model; the same weights each time."""
    random = np.random.default_rng(20)
    model = onnx.parser.parse_model(TEXT)
    for name, shape in WEIGHTS.items():
        values = random.normal(scale=0.5, size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.checker.check_model(model, full_check=True)
    return model
