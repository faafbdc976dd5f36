"""A classifier of two convolutions, written as ONNX text, with seeded random weights."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

CLASSES = ("red", "green", "blue", "grey")

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[n, 3, SIZE, SIZE] image) => (float[n, COUNT] logits)
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


def small_model(classes: int = len(CLASSES), size: int = 16) -> onnx.ModelProto:
    """Return the model; the same weights each time."""
    weights = {
        "first_weight": (8, 3, 3, 3),
        "second_weight": (8, 8, 3, 3),
        "head_weight": (8, classes),
        "head_bias": (classes,),
    }
    random = np.random.default_rng(20)
    model = onnx.parser.parse_model(TEXT.replace("SIZE", str(size)).replace("COUNT", str(classes)))
    for name, shape in weights.items():
        values = random.normal(scale=0.5, size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.checker.check_model(model, full_check=True)
    return model
