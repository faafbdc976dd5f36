"""Small exported models written by hand, right and wrong ones, without the export's own code.

The classifier is ``image -> Conv -> A -> A * sigmoid(A) -> Gemm -> logits -> Softmax``, so
``dy^c/dA = W_c * (s + A s (1 - s))`` with ``s = sigmoid(A)``: it differs by place, channel, image
and class.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

from onnx_gradcam.contract import ADDED_OUTPUTS, CLASS_INPUT, PREFIX, ExportMetadata

CLASSES, CHANNELS, SIZE = 6, 8, 5

SOURCE = """
<ir_version: 8, opset_import: ["" : 17]>
hand_made (float[N,3,5,5] image) => (float[N,6] probabilities)
<float[8,3,3,3] filters, float[200,6] weight, float[6] bias> {
  features = Conv<pads=[1,1,1,1]>(image, filters)
  gate = Sigmoid(features)
  swish = Mul(features, gate)
  flat = Flatten(swish)
  logits = Gemm(flat, weight, bias)
  probabilities = Softmax(logits)
}"""

EXPLANATION = """
<ir_version: 8, opset_import: ["" : 17]>
explanation (float[N,8,5,5] features, float[N,8,5,5] gate, float[N,6] logits, int64[M] cam_class)
 => (float[N,8,5,5] cam_activations, float[N,8,5,5] cam_gradients, int64[N] cam_classes)
<float[200,6] weight, int64[1,6] add_columns = {0,1,2,3,4,5}, int64[1] add_one = {1},
 int64[1] add_k = {6}, int64[1] add_zero = {0}, int64[2] add_row = {-1, 1}, float add_unit = {1}> {
  cam_activations = Identity(features)
  add_scores, add_ranking = TopK(logits, add_k)
  add_sign = Less(cam_class, add_zero)
  add_negated = Neg(cam_class)
  add_rank = Sub(add_negated, add_one)
  add_column = Reshape(add_rank, add_row)
  add_at = Equal(add_column, add_columns)
  add_at_int = Cast<to=7>(add_at)
  add_picked = Mul(add_ranking, add_at_int)
  add_by_rank = ReduceSum<keepdims=0>(add_picked, add_one)
  add_classes = Where(add_sign, add_by_rank, cam_class)
  cam_classes = Identity(add_classes)
  add_class_column = Reshape(add_classes, add_row)
  add_hit = Equal(add_class_column, add_columns)
  add_seed = Cast<to=1>(add_hit)
  add_weight_t = Transpose<perm=[1,0]>(weight)
  add_flat = MatMul(add_seed, add_weight_t)
  add_shape = Shape(features)
  add_upstream = Reshape(add_flat, add_shape)
  add_rest = Sub(add_unit, gate)
  add_bend = Mul(gate, add_rest)
  add_bent = Mul(features, add_bend)
  add_slope = Add(gate, add_bent)
  add_gradient = Mul(add_upstream, add_slope)
  cam_gradients = Identity(add_gradient)
}"""

LAST = "cam_gradients = Identity(add_gradient)"

WRONG_GRADIENTS = {
    "zero": (LAST, "cam_gradients = Sub(add_gradient, add_gradient)"),
    "twice": (LAST, "cam_gradients = Add(add_gradient, add_gradient)"),
    "too large by a tenth": (
        LAST,
        "add_f = Constant<value_float=1.1>() cam_gradients = Mul(add_gradient, add_f)",
    ),
    "sign flipped": (LAST, "cam_gradients = Neg(add_gradient)"),
    "channels permuted": (
        LAST,
        "add_p = Constant<value_ints=[1,0,3,2,5,4,7,6]>()"
        " cam_gradients = Gather<axis=1>(add_gradient, add_p)",
    ),
    "space transposed": (LAST, "cam_gradients = Transpose<perm=[0,1,3,2]>(add_gradient)"),
    "another class": (
        "add_hit = Equal(add_class_column, add_columns)",
        "add_next = Add(add_class_column, add_one) add_hit = Equal(add_next, add_columns)",
    ),
    "summed over the batch": (
        LAST,
        "add_sum = ReduceSum<keepdims=1>(add_gradient, add_zero)"
        " cam_gradients = Expand(add_sum, add_shape)",
    ),
    "of the first image for all": (
        LAST,
        "add_first = Gather<axis=0>(add_gradient, add_zero)"
        " cam_gradients = Expand(add_first, add_shape)",
    ),
    "half of the channels missing": (
        LAST,
        "add_s = Constant<value_ints=[1,8,1,1]>()"
        " add_m = Constant<value_floats=[1.0,0.0,1.0,0.0,1.0,0.0,1.0,0.0]>()"
        " add_mask = Reshape(add_m, add_s) cam_gradients = Mul(add_gradient, add_mask)",
    ),
    "a term of the derivative missing": (
        "add_slope = Add(gate, add_bent)",
        "add_slope = Identity(gate)",
    ),
    "not a number": (
        LAST,
        "add_n = Sub(add_gradient, add_gradient)\ncam_gradients = Div(add_n, add_n)",
    ),
}
"""What is wrong -> text of `EXPLANATION`, its replacement."""


def source_model(text: str = SOURCE, seed: int = 0) -> onnx.ModelProto:
    """Return a classifier with random weights of unit gain."""
    model = parser.parse_model(text)
    rng = np.random.default_rng(seed)
    declared = [(v.name, v.type.tensor_type) for v in model.graph.value_info]
    del model.graph.value_info[:]
    for name, kind in declared:
        shape, data_type = tuple(d.dim_value for d in kind.shape.dim), kind.elem_type
        fan_in = shape[0] if len(shape) == 2 else max(int(np.prod(shape[1:])), 1)
        values = rng.normal(size=shape) / np.sqrt(fan_in)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(data_type)
        model.graph.initializer.append(numpy_helper.from_array(values.astype(dtype), name))
    for node in model.graph.node:
        node.name = f"/{node.output[0]}"
    return model


def metadata_of(source: onnx.ModelProto, **changes: object) -> ExportMetadata:
    """Return metadata that fits `export_by_hand`."""
    values: dict[str, object] = {
        "tool_version": "0",
        "gradient_builder": "by hand",
        "gradient_builder_version": "0",
        "image_input": "image",
        "target": "features",
        "target_layout": "NCHW",
        "score_tensor": "logits",
        "score_output": "probabilities",
        "class_axis": 1,
        "num_classes": CLASSES,
        "class_input": "optional",
        "source_sha256": hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest(),
    }
    return ExportMetadata(**(values | changes))  # type: ignore[arg-type]


def export_by_hand(
    source: onnx.ModelProto,
    explanation: str = EXPLANATION,
    replace: tuple[str, str] | None = None,
    **changes: object,
) -> tuple[onnx.ModelProto, ExportMetadata]:
    """Return the source with the explanation spliced in, and its metadata.

    Args:
        source: the classifier.
        explanation: text of a model that is read for its nodes, constants and outputs.
        replace: text in `explanation` and what stands there instead.
        changes: of the metadata.
    """
    if replace is not None:
        assert replace[0] in explanation
        explanation = explanation.replace(*replace)
    part = parser.parse_model(explanation)
    model = onnx.ModelProto()
    model.CopyFrom(source)
    for node in part.graph.node:
        added = model.graph.node.add()
        added.CopyFrom(node)
        added.name = PREFIX + node.output[0]
        _prefix(added.input)
        _prefix(added.output)
    for tensor in part.graph.initializer:
        if tensor.name.startswith("add_"):
            model.graph.initializer.add().CopyFrom(tensor)
            model.graph.initializer[-1].name = PREFIX + tensor.name
    model.graph.output.extend(part.graph.output)
    metadata = metadata_of(source, **changes)
    if not metadata.class_input.startswith("fixed"):
        model.graph.input.extend(i for i in part.graph.input if i.name == CLASS_INPUT)
    if metadata.class_input == "optional":
        default = numpy_helper.from_array(np.array([-1], np.int64), CLASS_INPUT)
        model.graph.initializer.append(default)
    onnx.helper.set_model_props(model, metadata.to_props())
    return model, metadata


def _prefix(names: object) -> None:
    for index, name in enumerate(names):  # type: ignore[arg-type, var-annotated]
        if name.startswith("add_"):
            names[index] = PREFIX + name  # type: ignore[index]


def write(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model as it is and return the path."""
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


assert set(ADDED_OUTPUTS) <= {o.name for o in parser.parse_model(EXPLANATION).graph.output}
