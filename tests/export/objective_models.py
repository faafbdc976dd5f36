"""Small models of each kind that an objective is taken from, with seeded random weights."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

_STEM = """
  first = Conv <pads = [1, 1, 1, 1]> (image, first_weight)
  first_map = Relu (first)
  second = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (first_map, second_weight)
  A = Softplus (second)
"""
_POOLED = _STEM + "  pooled = GlobalAveragePool (A)\n  features = Flatten (pooled)\n"
_HIDDEN = (
    _STEM
    + """
  hidden = Conv <pads = [1, 1, 1, 1]> (A, third_weight)
  hidden_map = Tanh (hidden)
"""
)

BODIES = {
    "classifier": (
        _POOLED + "logits = Gemm (features, head, bias)\n y = Softmax <axis = 1> (logits)",
        "float[N, 5] y",
    ),
    "logits": (_POOLED + "y = Gemm (features, head, bias)", "float[N, 5] y"),
    "scores in maps": (
        _STEM + "pooled = GlobalAveragePool (A)\n y = Conv (pooled, class_map)",
        "float[N, 5, 1, 1] y",
    ),
    "single logit": (
        _POOLED + "logit = Gemm (features, single)\n y = Sigmoid (logit)",
        "float[N, 1] y",
    ),
    "segmenter": (
        _STEM
        + "hidden = Conv <pads = [1, 1, 1, 1]> (A, third_weight)\n hidden_map = Tanh (hidden)\n"
        "small = Conv (hidden_map, class_map)\n"
        'y = Resize <mode = "linear"> (small, , scales)',
        "float[N, 5, 8, 10] y",
    ),
    "segmenter of labels": (
        _STEM
        + "hidden = Conv <pads = [1, 1, 1, 1]> (A, third_weight)\n hidden_map = Tanh (hidden)\n"
        "small = Conv (hidden_map, class_map)\n y = ArgMax <axis = 1, keepdims = 0> (small)",
        "int64[N, 4, 5] y",
    ),
    "segmenter of one class": (
        _STEM + "small = Conv (A, one_map)\n y = Sigmoid (small)",
        "float[N, 1, 4, 5] y",
    ),
    "channels-last segmenter": (
        _STEM + "small = Conv (A, class_map)\n y = Transpose <perm = [0, 2, 3, 1]> (small)",
        "float[N, 4, 5, 5] y",
    ),
    "detector": (
        _STEM
        + "hidden = Conv <pads = [1, 1, 1, 1]> (A, third_weight)\n hidden_map = Tanh (hidden)\n"
        "box_map = Conv (hidden_map, box_weight)\n boxes = Reshape (box_map, flat_boxes)\n"
        "class_scores = Conv (hidden_map, class_map)\n flat = Reshape (class_scores, flat_boxes)\n"
        "probabilities = Sigmoid (flat)\n y = Concat <axis = 1> (boxes, probabilities)",
        "float[N, 9, 20] y",
    ),
    "detector of queries": (
        _STEM + "small = Conv (A, class_map)\n flat = Reshape (small, flat_boxes)\n"
        "y = Transpose <perm = [0, 2, 1]> (flat)",
        "float[N, 20, 5] y",
    ),
    "embedder": (
        _POOLED + "e = Gemm (features, head, bias)\n length = ReduceL2 <axes = [1]> (e)\n"
        "y = Div (e, length)",
        "float[N, 5] y",
    ),
}
"""Name -> nodes, output."""

_SHAPES = {
    "first_weight": (4, 3, 3, 3),
    "second_weight": (6, 4, 3, 3),
    "third_weight": (6, 6, 3, 3),
    "head": (6, 5),
    "bias": (5,),
    "single": (6, 1),
    "class_map": (5, 6, 1, 1),
    "one_map": (1, 6, 1, 1),
    "box_weight": (4, 6, 1, 1),
}
_INTEGERS = {"flat_boxes": [0, 0, -1]}
_FLOATS = {"scales": [1, 1, 2, 2]}


def objective_model(name: str, opset: int = 17, batch: str = "N") -> onnx.ModelProto:
    """Return a model of `BODIES`."""
    body, output = BODIES[name]
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    net (float[{batch}, 3, 8, 10] image) => ({output.replace("N", batch)}) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(3)
    constants = {
        key: random.normal(scale=0.15 if key == "third_weight" else 0.5, size=shape).astype(
            np.float32
        )  # tanh shall not saturate
        for key, shape in _SHAPES.items()
    }
    constants |= {key: np.array(value, np.int64) for key, value in _INTEGERS.items()}
    constants |= {key: np.array(value, np.float32) for key, value in _FLOATS.items()}
    read = {given for node in model.graph.node for given in node.input}
    for key, value in constants.items():
        if key in read:
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, key))
    onnx.checker.check_model(model, full_check=True)
    return model
