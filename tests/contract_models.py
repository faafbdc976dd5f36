"""Small exported files made by hand, for tests that must not depend on the export.

A convolution and a ReLU make A; a global average pool and a linear head make the scores, so that
dy^c/dA is W[c] / Z at each of the Z positions: the gradient of these files is known in closed form.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
from numpy.typing import NDArray

from onnx_gradcam.contract import ExportMetadata

CHANNELS, CLASSES = 4, 5
LABELS = ["tench, Tinca tinca", "crane", "Boston bull", "crane", "kite, glede"]

METADATA = ExportMetadata(
    tool_version="0.1.0",
    gradient_builder="reverse",
    gradient_builder_version="1",
    image_input="image",
    target="A",
    target_layout="NCHW",
    score_tensor="logits",
    score_output="logits",
    class_axis=1,
    num_classes=CLASSES,
    class_input="optional",
    source_sha256="0" * 64,
)

TEXT = """
<ir_version: {ir}, opset_import: ["" : 17]>
contract ({kind}[{image}] image{inputs}) => ({kind}[{n}, 5{tail}] {score},
  {kind}[{n}, 4, h, w] cam_activations, {kind}[{n}, 4, h, w] cam_gradients, int64[{n}] cam_classes)
{{
  {enter}
  conv = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, conv_weight)
  A = Relu (conv)
  pooled = GlobalAveragePool (A)
  features = Flatten (pooled)
  logits2 = Gemm <transB = 1> (features, W, b)
  {leave}
  cam_activations = Identity (A)

  full = Shape (A)
  n_shape = Slice (full, zero, one)
  asked = Expand (cam_class, n_shape)
  below = Less (asked, zero)
  rank_if = Sub (minus_one, asked)
  rank = Where (below, rank_if, zero)
  sorted_values, order = TopK (logits2, classes)
  rank_column = Unsqueeze (rank, one)
  ranked_column = GatherElements <axis = 1> (order, rank_column)
  ranked = Squeeze (ranked_column, one)
  cam_classes = Where (below, ranked, asked)
  row = Gather (W, cam_classes)
  row_map = Unsqueeze (row, last_axes)
  spread = Expand (row_map, full)
  ones = ConstantOfShape <value = {one_value}> (full)
  area_map = ReduceSum <keepdims = 1> (ones, last_axes)
  area = Cast <to = {code}> (area_map)
  cam_gradients = Div (spread, area)
}}
"""

KINDS = {
    "float": (np.float32, onnx.TensorProto.FLOAT),
    "float16": (np.float16, onnx.TensorProto.FLOAT16),
    "double": (np.float64, onnx.TensorProto.DOUBLE),
}


def weights(seed: int = 1) -> dict[str, NDArray[np.float64]]:
    """Return the weights; W is the head, ``(5, 4)``."""
    random = np.random.default_rng(seed)
    shapes = {"conv_weight": (CHANNELS, 3, 3, 3), "W": (CLASSES, CHANNELS), "b": (CLASSES,)}
    return {name: random.normal(size=shape) for name, shape in shapes.items()}


def contract_model(
    *,
    image: str = "n, 3, 8, 10",
    kind: str = "float",
    class_input: str = "optional",
    softmax: bool = False,
    score_axes: bool = False,
    channels_last: bool = False,
    extra_input: bool = False,
    ir: int = 8,
    **metadata: Any,
) -> bytes:
    """Return an exported file.

    Args:
        image: shape of the image input.
        kind: its element type, also of everything else.
        class_input: as in the metadata; ``fixed:K`` leaves the input out.
        softmax: end in a softmax, so that the output is probabilities.
        score_axes: output ``(N, K, 1, 1)``.
        channels_last: the image input is ``(N, H, W, C)``.
        extra_input: another required input, ``gain``, a factor ``[1]`` on the image.
        ir: version of the file format.
        metadata: replaced fields of `METADATA`.
    """
    inputs = f", {kind}[1] gain" if extra_input else ""
    if not class_input.startswith("fixed"):
        inputs += ", int64[m] cam_class"
    score = "probabilities" if softmax else "logits"
    ending = ["flat = Softmax <axis = 1> (logits2)" if softmax else "flat = Identity (logits2)"]
    ending.append(f"{score} = {'Unsqueeze (flat, last_axes)' if score_axes else 'Identity (flat)'}")
    first = "image_nchw" if channels_last else "image"
    beginning = [f"{first} = Transpose <perm = [0, 3, 1, 2]> (image)"] if channels_last else []
    beginning.append(f"x = {f'Mul ({first}, gain)' if extra_input else f'Identity ({first})'}")
    dtype, code = KINDS[kind]
    text = TEXT.format(
        ir=ir,
        kind=kind,
        image=image,
        inputs=inputs,
        n=image.split(",")[0],
        tail=", 1, 1" if score_axes else "",
        score=score,
        enter="\n  ".join(beginning),
        leave="\n  ".join(ending),
        one_value="float[1] {1}",
        code=int(code),
    )
    model = onnx.parser.parse_model(text)
    constants: dict[str, NDArray[Any]] = {
        name: values.astype(dtype) for name, values in weights().items()
    }
    constants |= {"zero": np.array([0]), "one": np.array([1]), "minus_one": np.array([-1])}
    constants |= {"classes": np.array([CLASSES]), "last_axes": np.array([2, 3])}
    if class_input == "optional":
        constants["cam_class"] = np.array([-1])
    elif class_input.startswith("fixed"):
        constants["cam_class"] = np.array([int(class_input.removeprefix("fixed:"))])
    for name, values in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    if ir >= 4:  # before, each initializer had to be an input as well
        onnx.checker.check_model(model)
    described = replace(
        METADATA, class_input=class_input, score_tensor="logits2", score_output=score, **metadata
    )
    onnx.helper.set_model_props(model, described.to_props())
    content: bytes = model.SerializeToString()
    return content


def images(count: int, *shape: int, seed: int = 1) -> NDArray[np.float32]:
    """Return seeded random images, float32 ``(count, *shape)``; ``(3, 8, 10)`` by default."""
    size = (count, *(shape or (3, 8, 10)))
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)
