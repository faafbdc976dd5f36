"""The network that FullGrad is compared on: ReLU, biased convolutions, batch norms, a residual sum.

Its weights are drawn by seed, so that `tools/make_fullgrad_references.py`, which builds it in
torch, and the tests, which write it as ONNX text, have the same ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, checker, numpy_helper, parser

CLASSES = [1, 3]
EPSILON = 1e-3

SHAPES: dict[str, tuple[int, ...]] = {
    **{"conv1.weight": (6, 3, 3, 3), "conv1.bias": (6,)},
    **{f"bn1.{part}": (6,) for part in ("weight", "bias", "running_mean", "running_var")},
    **{"conv2.weight": (6, 6, 3, 3), "conv2.bias": (6,)},
    **{"conv3.weight": (8, 6, 3, 3)},
    **{f"bn3.{part}": (8,) for part in ("weight", "bias", "running_mean", "running_var")},
    **{"linear.weight": (4, 8), "linear.bias": (4,)},
}

TEXT = f"""<ir_version: 8, opset_import: ["" : 17]>
    network (float[N, 3, 10, 12] image) => (float[N, 4] logits) {{
    c1 = Conv<pads=[1,1,1,1]>(image, conv1_weight, conv1_bias)
    n1 = BatchNormalization<epsilon={EPSILON}>(c1, bn1_weight, bn1_bias, bn1_running_mean,
        bn1_running_var)
    r1 = Relu(n1)
    c2 = Conv<pads=[1,1,1,1]>(r1, conv2_weight, conv2_bias)
    r2 = Relu(c2)
    sum = Add(r1, r2)
    pool = MaxPool<kernel_shape=[2,2], strides=[2,2]>(sum)
    c3 = Conv<pads=[1,1,1,1]>(pool, conv3_weight)
    n3 = BatchNormalization<epsilon={EPSILON}>(c3, bn3_weight, bn3_bias, bn3_running_mean,
        bn3_running_var)
    r3 = Relu(n3)
    pooled = GlobalAveragePool(r3)
    flat = Flatten(pooled)
    logits = Gemm<transB=1>(flat, linear_weight, linear_bias)
    }}"""


def weights() -> dict[str, NDArray[np.float32]]:
    """Return the weights by torch's names; biases are large, so that leaving one out shows."""
    random = np.random.default_rng(11)
    drawn = {}
    for name, shape in SHAPES.items():
        values = random.normal(size=shape) / np.sqrt(max(np.prod(shape[1:]), 1))
        if name.endswith("var"):
            values = np.abs(values) + 0.5
        drawn[name] = values.astype(np.float32)
    return drawn


def images() -> NDArray[np.float32]:
    """Return two images, ``(2, 3, 10, 12)``."""
    return np.random.default_rng(12).normal(size=(2, 3, 10, 12)).astype(np.float32)


def network() -> ModelProto:
    """Return the network as ONNX."""
    model = parser.parse_model(TEXT)
    for name, values in weights().items():
        model.graph.initializer.append(numpy_helper.from_array(values, name.replace(".", "_")))
    checker.check_model(model, full_check=True)
    return model
