"""What real files of converters and optimisers are like: in small, and the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import compose, helper, numpy_helper, parser

import onnx_gradcam
from onnx_gradcam.errors import InvalidModelError
from onnx_gradcam.export.pipeline import export_model
from onnx_gradcam.preprocessing import Preprocessing
from tests.shared_material import shared_folder

RNG = np.random.default_rng(11)


def filled(text: str) -> onnx.ModelProto:
    """Return the model; weights that stand there without values are drawn at random."""
    model = parser.parse_model(text)
    for value in model.graph.value_info:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        fan_in = max(int(np.prod(shape[1:])), 1)
        weights = RNG.normal(size=shape) * np.sqrt(2 / fan_in)
        tensor = numpy_helper.from_array(weights.astype(np.float32), value.name)
        model.graph.initializer.append(tensor)
    del model.graph.value_info[:]
    return model


PADDLE = """
<ir_version: 7, opset_import: ["" : 11]>
paddle (float[N,3,8,8] x) => (float[N,4] scores)
<float[6,3,3,3] conv_w, float[6,4] fc_w, float[4] fc_b, float three = {3.0}, float zero = {0.0},
 float six = {6.0}, int64[1] first = {0}, int64[1] minus = {-1}> {
  conv = Conv<pads=[1,1,1,1]>(x, conv_w)
  shifted = Add(conv, three)
  clipped = Clip(shifted, zero, six)
  product = Mul(conv, clipped)
  swished = Div(product, six)
  pooled = GlobalAveragePool(swished)
  shape = Shape(pooled)
  batch = Gather<axis=0>(shape, first)
  target = Concat<axis=0>(batch, minus)
  flat = Reshape(pooled, target)
  product_fc = MatMul(flat, fc_w)
  sum_fc = Add(product_fc, fc_b)
  soft = Softmax<axis=1>(sum_fc)
  scores = Identity(soft)
}"""
"""HardSwish in pieces, a Reshape to a computed shape, Softmax and Identity at the end."""

KERAS = """
<ir_version: 8, opset_import: ["" : 13]>
keras (float[N,8,8,3] pixels) => (int64[N] classes, float[N] confidence, float[N,4] probabilities)
<float[6,3,3,3] w, float[6,4] fc_w, float[4] fc_b, float scale = {127.5}, float one = {1.0},
 int64[2] space = {2, 3}> {
  scaled = Div(pixels, scale)
  centred = Sub(scaled, one)
  image = Transpose<perm=[0,3,1,2]>(centred)
  conv = Conv<auto_pad="SAME_UPPER",strides=[2,2]>(image, w)
  relu = Relu(conv)
  mean = ReduceMean<axes=[2,3],keepdims=0>(relu)
  product = MatMul(mean, fc_w)
  logits = Add(product, fc_b)
  probabilities = Softmax(logits)
  classes = ArgMax<axis=1,keepdims=0>(logits)
  confidence = ReduceMax<axes=[1],keepdims=0>(probabilities)
}"""
"""Channels last, preprocessing in the graph; the class, its probability, and all probabilities."""


def renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    """Return the model with other tensor names, which nodes take over."""
    for node in model.graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
        node.name = node.output[0]
    return model


def explained(model: onnx.ModelProto, tmp_path: Path, layer: str = "auto") -> str:
    """Export with both layers' gradients proven, explain a batch; return the layer."""
    path = tmp_path / "cam.onnx"
    report = export_model(model, path, layer=layer, gradient_builder="reverse", force=True)
    assert report.verification is not None
    assert report.verification.warnings == ()
    explainer = onnx_gradcam.load(path, device="cpu")
    shape = [3, *(size or 8 for size in explainer.image_input.shape[1:])]
    explanation = explainer.explain(RNG.normal(size=shape).astype(np.float32))
    assert np.abs(explanation.gradients).max() > 0
    assert explanation.scores.shape == (3, 4)
    return report.target


def test_sizes_of_minus_one(tmp_path: Path) -> None:
    """Paddle writes open sizes as -1."""
    model = filled(PADDLE)
    for value, axes in ((model.graph.input[0], (0, 2, 3)), (model.graph.output[0], (0,))):
        for axis in axes:
            value.type.tensor_type.shape.dim[axis].Clear()
            value.type.tensor_type.shape.dim[axis].dim_value = -1
    assert explained(model, tmp_path) == "swished"


def test_names_with_every_sign(tmp_path: Path) -> None:
    names = {
        "conv": "net/conv/Conv2D;net/bn/FusedBatchNormV3;net/relu__5:0",
        "swished": "p2o.Hard Swish@0:[α]|*?",
        "pooled": "StatefulPartitionedCall/",
        "flat": "//",
    }
    model = renamed(filled(PADDLE), names)
    assert explained(model, tmp_path) == names["swished"]
    assert explained(model, tmp_path, names["conv"]) == names["conv"]


def test_class_and_confidence_beside_the_scores(tmp_path: Path) -> None:
    model = filled(KERAS)
    assert explained(model, tmp_path) == "relu"
    cam = onnx_gradcam.load(tmp_path / "cam.onnx", device="cpu")
    assert cam.metadata.score_output == "probabilities"
    assert cam.metadata.score_tensor == "logits"
    images = RNG.uniform(0, 255, (5, 8, 8, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    np.testing.assert_array_equal(
        cam.explain(images).classes, session.run(["classes"], {"pixels": images})[0]
    )


def test_an_operator_set_that_is_imported_twice(tmp_path: Path) -> None:
    """`onnx.compose.merge_models` lists the imports of both parts."""
    model = filled(PADDLE)
    model.opset_import.append(helper.make_opsetid("", 11))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    assert explained(model, tmp_path) == "swished"


def test_parts_merged_into_one(tmp_path: Path) -> None:
    normalise = parser.parse_model("""
<ir_version: 7, opset_import: ["" : 11]>
normalise (float[N,8,8,3] raw) => (float[N,3,8,8] y) <float[3] mean = {0.4, 0.5, 0.6}> {
  centred = Sub(raw, mean)
  y = Transpose<perm=[0,3,1,2]>(centred)
}""")
    model = compose.merge_models(
        compose.add_prefix(normalise, "pre/"), filled(PADDLE), io_map=[("pre/y", "x")]
    )
    assert explained(model, tmp_path) == "swished"


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED", "ALL"])
@pytest.mark.parametrize("text", [PADDLE, KERAS], ids=["paddle", "keras"])
def test_saved_by_onnxruntime(text: str, level: str, tmp_path: Path) -> None:
    """Fused operators, weights moved, layouts changed; channels that fill no block."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}"
    )
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(
        filled(text).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    assert explained(onnx.load(tmp_path / "optimised.onnx"), tmp_path)


def test_what_converters_leave_undone_is_named(tmp_path: Path) -> None:
    """tf2onnx lets operators of TensorFlow stand that ONNX has not: no runtime takes them."""
    model = filled(PADDLE)
    node = next(node for node in model.graph.node if node.op_type == "Clip")
    node.op_type = "Erfc"
    del node.input[1:]
    with pytest.raises(InvalidModelError, match="Erfc"):
        export_model(model, tmp_path / "cam.onnx")


RAW_CIFAR = Preprocessing(resize=(32, 32))
FACES = Preprocessing(color="GRAY", resize=(64, 64), scale=2 / 255, mean=(1.0,))
REAL = {
    "squeezenet_fp32_imagenet": ("caffe", "imagenet", 0),
    "squeezenet_fp16_imagenet": ("caffe", "imagenet", 0),
    "mobilenet_v2_float": ("pixels", "imagenet", 1),
    "mobilenet_v2_int8": ("pixels", "imagenet", 1),
    "cifar10_resnet20": ("cifar10", "cifar10", 0),
    "mlperf_resnet8_cifar10": (RAW_CIFAR, "cifar10", 0),
    "vit_ibp_cifar10": ("cifar10", "cifar10", 0),
    "fer_mini_xception": (FACES, "", 0),
}
"""Model -> preprocessing, folder of photos, classes before the first one that they show."""

CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PHOTOS = 4


def photos_of(folder: str) -> list[tuple[Path, int]]:
    """Return photos, each with its class."""
    if folder == "cifar10":
        files = sorted(shared_folder("photos/cifar10").iterdir())
        return [(file, CIFAR.index(file.stem.split("_")[1])) for file in files[:PHOTOS]]
    files = sorted(shared_folder("photos/imagenet").iterdir())
    return [(file, int(file.name[:3])) for file in files[:PHOTOS]]


@pytest.mark.real_models
@pytest.mark.parametrize("name", REAL)
def test_real_models(name: str, tmp_path: Path) -> None:
    recipe, folder, offset = REAL[name]
    source = shared_folder("models") / f"{name}.onnx"
    report = export_model(
        source, tmp_path / "cam.onnx", gradient_builder="reverse", preprocess=recipe
    )
    assert report.verification is not None
    assert report.verification.warnings == ()
    explainer = onnx_gradcam.load(tmp_path / "cam.onnx", device="cpu")
    hits = []
    for photo, expected in photos_of(folder or "cifar10"):
        explanation = explainer.explain_image(photo)
        assert np.abs(explanation.gradients).max() > 0
        assert explanation.cams.max() == pytest.approx(1)
        hits.append(int(explanation.classes[0]) == expected + offset)
    if folder:
        assert sum(hits) >= PHOTOS // 2  # by chance 1 of 10, or of 1000
