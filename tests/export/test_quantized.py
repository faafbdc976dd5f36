"""Quantized classifiers: exported, proven, and explained like the float model they come from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper, parser

import onnx_gradcam
from onnx_gradcam.contract import GRADIENTS_OUTPUT
from onnx_gradcam.export.builders.environment import builder_status
from onnx_gradcam.export.expansion import expand
from onnx_gradcam.export.score import find_score
from tests.export.quantized_models import FLOAT, RECIPE, WAYS, pictures, write_quantized
from tests.shared_material import shared_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quantized")


@pytest.fixture(scope="module")
def float_model(folder: Path) -> onnx_gradcam.Explainer:
    onnx_gradcam.export_model(FLOAT, folder / "float.onnx", gradient_builder="reverse")
    return onnx_gradcam.load(folder / "float.onnx", device="cpu")


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest, folder: Path) -> str:
    name: str = request.param
    write_quantized(name, folder / f"{name}.onnx")
    return name


def export(folder: Path, name: str, layer: str | int = "auto") -> onnx_gradcam.ExportReport:
    """Export and verify; the file is NAME.cam.onnx."""
    return onnx_gradcam.export_model(
        folder / f"{name}.onnx",
        folder / f"{name}.cam.onnx",
        layer=layer,
        gradient_builder="reverse",
        preprocess=RECIPE,
        force=True,
    )


def operators(model: Path, folder: Path) -> Counter[str]:
    """Return the operators of a model as onnxruntime optimises it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(folder / "optimised.onnx").graph.node
    return Counter(node.op_type for node in nodes)


def test_an_export_is_proven_and_explains_as_the_float_model_does(
    way: str, folder: Path, float_model: onnx_gradcam.Explainer
) -> None:
    report = export(folder, way)
    assert report.verification is not None
    gradient = next(c for c in report.verification.checks if c.name == "gradient")
    assert gradient.passed
    assert not gradient.warning
    assert gradient.value is not None
    assert gradient.value < 1e-3
    assert "straight-through for" in gradient.detail
    explainer = onnx_gradcam.load(folder / f"{way}.cam.onnx", device="cpu")
    rounding = "DynamicQuantizeLinear" if way == "dynamic" else "QuantizeLinear"
    assert explainer.metadata.straight_through == [rounding]
    images = pictures()
    expected = float_model.explain(images)
    found = explainer.explain(images, classes=expected.classes.tolist())
    assert np.mean(explainer.explain(images).classes == expected.classes) > 0.8
    assert found.activations.shape == expected.activations.shape
    same = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in zip(found.cams, expected.cams, strict=True)
    ]
    assert np.mean(same) > 0.97


def test_images_of_a_batch_share_a_dynamic_range(folder: Path) -> None:
    write_quantized("dynamic", folder / "dynamic.onnx")
    (warning,) = export(folder, "dynamic", layer=1).warnings
    assert "one range for the whole batch" in warning


@pytest.mark.parametrize(
    ("name", "layer"), [("QDQ per channel", "auto"), ("QDQ", 1), ("QOperator per channel", 1)]
)
def test_all_fusions_are_kept_and_outputs_identical(
    name: str, layer: str | int, folder: Path
) -> None:
    write_quantized(name, folder / f"{name}.onnx")
    report = export(folder, name, layer)
    assert report.verification is not None
    default = next(c for c in report.verification.checks if c.name == "outputs, default level")
    assert default.detail.endswith("identical to the last bit")
    before = operators(folder / f"{name}.onnx", folder)
    after = operators(folder / f"{name}.cam.onnx", folder)
    assert before["QLinearConv"] > 5
    assert before - after == Counter()
    assert "MatMulNBits" not in after, "it would round the gradient"


@pytest.mark.parametrize("factor", [0.9, -1.0])
def test_a_wrong_gradient_is_found(folder: Path, factor: float) -> None:
    write_quantized("QDQ", folder / "QDQ.onnx")
    export(folder, "QDQ")
    model = onnx.load(folder / "QDQ.cam.onnx")
    (last,) = (node for node in model.graph.node if GRADIENTS_OUTPUT in node.output)
    last.output[0] = "onnx_gradcam/right"
    model.graph.initializer.append(
        numpy_helper.from_array(np.float32(factor), "onnx_gradcam/factor")
    )
    names = ["onnx_gradcam/right", "onnx_gradcam/factor"]
    model.graph.node.append(helper.make_node("Mul", names, [GRADIENTS_OUTPUT], "onnx_gradcam/bad"))
    onnx.save(model, folder / "wrong.onnx")
    report = onnx_gradcam.check_export(folder / "wrong.onnx", folder / "QDQ.onnx")
    assert [check.name for check in report.failures] == ["gradient"]


def test_weights_are_not_copied(folder: Path) -> None:
    write_quantized("QOperator", folder / "QOperator.onnx")
    report = export(folder, "QOperator", layer=1)
    added = report.bytes_written - (folder / "QOperator.onnx").stat().st_size
    exported = onnx.load(folder / "QOperator.cam.onnx")
    ours = [t for t in exported.graph.initializer if t.name.startswith("onnx_gradcam/")]
    assert max(int(np.prod(t.dims)) for t in ours) < 1000
    assert added < 150_000


@pytest.mark.needs_builder
def test_auto_leaves_quantized_tails_to_the_reverse_builder(folder: Path) -> None:
    if not builder_status().available:
        pytest.skip("no onnxruntime-training here: onnx-gradcam setup-builder")
    write_quantized("QDQ", folder / "QDQ.onnx")
    report = onnx_gradcam.export_model(
        folder / "QDQ.onnx", folder / "auto.onnx", force=True, verify=False
    )
    assert report.builder == "reverse"
    assert "does not differentiate QuantizeLinear" in report.builder_reason


# -- integers in and out -----------------------------------------------------------------------

INTEGERS = """
<ir_version: 8, opset_import: ["" : 13]>
integers (uint8[N,8,8,3] image) => (uint8[N,5] probabilities)
<float[4,3,3,3] w, float[5,4] v, float si = {0.0078125}, uint8 zi = {128}, float sa = {0.02},
 float sl = {0.005}, float sp = {0.00390625}, uint8 z = {0}, uint8 zl = {128}> {
  x = DequantizeLinear(image, si, zi)
  first = Transpose<perm=[0, 3, 1, 2]>(x)
  conv = Conv<pads=[1, 1, 1, 1]>(first, w)
  relu = Relu(conv)
  q = QuantizeLinear(relu, sa, z)
  d = DequantizeLinear(q, sa, z)
  pooled = GlobalAveragePool(d)
  flat = Flatten(pooled)
  logits = Gemm<transB=1>(flat, v)
  ql = QuantizeLinear(logits, sl, zl)
  dl = DequantizeLinear(ql, sl, zl)
  soft = Softmax(dl)
  probabilities = QuantizeLinear(soft, sp, z)
}"""


def with_weights(text: str) -> onnx.ModelProto:
    """Return the model with random values for the constants that have none."""
    model = parser.parse_model(text)
    rng = np.random.default_rng(2)
    for value in model.graph.value_info:
        sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
        drawn = rng.normal(size=sizes).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(drawn, value.name))
    del model.graph.value_info[:]
    return model


@pytest.fixture
def integers() -> onnx.ModelProto:
    return with_weights(INTEGERS)


def images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)


def test_integers_in_and_out(integers: onnx.ModelProto, tmp_path: Path) -> None:
    report = onnx_gradcam.export_model(
        integers, tmp_path / "i.onnx", gradient_builder="reverse", preprocess="pixels"
    )
    assert report.target == "d"
    assert report.score == "logits"
    explainer = onnx_gradcam.load(tmp_path / "i.onnx", device="cpu")
    found = explainer.explain(images())
    session = onnxruntime.InferenceSession(integers.SerializeToString())
    (raw,) = session.run(None, {"image": images()})
    assert raw.dtype == np.uint8
    np.testing.assert_allclose(found.scores, raw / 256, atol=1 / 256)
    np.testing.assert_array_equal(found.scores * 256, np.rint(found.scores * 256))
    # logits out of their range count as before it: y is what QuantizeLinear reads
    v = numpy_helper.to_array(next(t for t in integers.graph.initializer if t.name == "v"))
    expected = v[found.classes][:, :, None, None] / 64 * np.ones((1, 1, 8, 8))
    np.testing.assert_allclose(found.gradients, expected, rtol=1e-5)


def test_a_saturated_score_has_a_gradient(integers: onnx.ModelProto, tmp_path: Path) -> None:
    for tensor in integers.graph.initializer:
        if tensor.name == "sl":
            tensor.CopyFrom(numpy_helper.from_array(np.float32(1e-4), "sl"))
    onnx_gradcam.export_model(
        integers, tmp_path / "i.onnx", gradient_builder="reverse", verify=False
    )
    found = onnx_gradcam.load(tmp_path / "i.onnx", device="cpu").explain(images())
    assert np.all(np.abs(found.gradients).max(axis=(1, 2, 3)) > 0)


@pytest.mark.parametrize("kind", ["int4", "uint4", "float8e4m3fn"])
def test_types_that_onnxruntime_does_not_hand_out(kind: str, tmp_path: Path) -> None:
    model = with_weights(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        narrow (float[N,2,6,6] image) => (float[N,3] y)
        <float[3,2,1,1] w, float s = {{{"0.01" if "8" in kind else "0.3"}}}, {kind} z = {{0}}> {{
          c = Conv(image, w)
          q = QuantizeLinear(c, s, z)
          d = DequantizeLinear(q, s, z)
          e = Mul(d, d)
          pooled = GlobalAveragePool(e)
          y = Flatten(pooled)
        }}"""
    )
    report = onnx_gradcam.export_model(
        model, tmp_path / "n.onnx", gradient_builder="reverse", layer="c"
    )
    assert report.verification is not None
    gradient = next(c for c in report.verification.checks if c.name == "gradient")
    assert "agree to" in gradient.detail


def test_scores_quantized_twice() -> None:
    # the tools quantize again after a Reshape: y lies before the first
    model = with_weights(
        """<ir_version: 8, opset_import: ["" : 13]>
        twice (float[N,4] x) => (float[N,5] y)
        <float[4,5] w, float s = {0.1}, uint8 z = {100}, int64[2] shape = {0, 5}> {
          logits = MatMul(x, w)
          q = QuantizeLinear(logits, s, z)
          d = DequantizeLinear(q, s, z)
          r = Reshape(d, shape)
          q2 = QuantizeLinear(r, s, z)
          y = DequantizeLinear(q2, s, z)
        }"""
    )
    score = find_score(expand(model))
    assert score.tensor == "logits"
    assert score.ranking is not None
    assert score.ranking.tensor == "y"


def test_ranks_are_those_of_the_quantized_scores(integers: onnx.ModelProto, tmp_path: Path) -> None:
    for tensor in integers.graph.initializer:  # all but the sign of a logit is rounded away
        if tensor.name == "sl":
            tensor.CopyFrom(numpy_helper.from_array(np.float32(10), "sl"))
    onnx_gradcam.export_model(
        integers, tmp_path / "i.onnx", gradient_builder="reverse", verify=False
    )
    found = onnx_gradcam.load(tmp_path / "i.onnx", device="cpu").explain(images())
    assert found.classes.tolist() == [0, 0, 0], "equal scores: the lower index first"


def test_a_map_that_several_read(tmp_path: Path) -> None:
    # two DequantizeLinear, and integers moved by MaxPool: A is one tensor on all paths
    model = with_weights(
        """<ir_version: 8, opset_import: ["" : 13]>
        several (float[N,2,6,6] image) => (float[N,3] y)
        <float[3,2,1,1] w, float s = {0.1}, int8 z = {-3}, int64[2] shape = {0, -1},
         float[27,3] v, float[3,3] u> {
          c = Conv(image, w)
          q = QuantizeLinear(c, s, z)
          a = DequantizeLinear(q, s, z)
          p = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(q)
          r = Reshape(p, shape)
          d = DequantizeLinear(r, s, z)
          left = MatMul(d, v)
          b = DequantizeLinear(q, s, z)
          product = Mul(a, b)
          pooled = GlobalAveragePool(product)
          flat = Flatten(pooled)
          right = MatMul(flat, u)
          y = Add(left, right)
        }"""
    )
    report = onnx_gradcam.export_model(model, tmp_path / "s.onnx", gradient_builder="reverse")
    assert report.target == "a"
    assert report.verification is not None
    assert report.verification.passed


def test_quantization_to_sixteen_bits_before_opset_21_is_refused(tmp_path: Path) -> None:
    model = with_weights(
        """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        wide (float[N,2,6,6] image) => (float[N,3] y)
        <float[3,2,1,1] w, float s = {0.1}, uint16 z = {3}> {
          c = Conv(image, w)
          a = Relu(c)
          q = com.microsoft.QuantizeLinear(a, s, z)
          d = com.microsoft.DequantizeLinear(q, s, z)
          pooled = GlobalAveragePool(d)
          y = Flatten(pooled)
        }"""
    )
    with pytest.raises(onnx_gradcam.OnnxGradCamError, match="16 bits needs opset 21"):
        onnx_gradcam.export_model(model, tmp_path / "w.onnx", gradient_builder="reverse")


@pytest.mark.real_models
def test_mobilenet_of_tflite(tmp_path: Path) -> None:
    models, photos = shared_folder("models"), shared_folder("photos") / "imagenet"
    found = {}
    for name in ("float", "int8"):
        path = tmp_path / f"{name}.onnx"
        report = onnx_gradcam.export_model(
            models / f"mobilenet_v2_{name}.onnx",
            path,
            gradient_builder="reverse",
            preprocess="pixels",
            verify=name == "int8",
        )
        assert report.target_shape == (1, 1280, 7, 7)
        explainer = onnx_gradcam.load(path, device="cpu")
        pictures = sorted(photos.iterdir())[:8]
        found[name] = [
            explainer.explain_image(picture, 1 + i) for i, picture in enumerate(pictures)
        ]
    for left, right in zip(*found.values(), strict=True):
        assert np.corrcoef(left.cams.ravel(), right.cams.ravel())[0, 1] > 0.95
        assert abs(left.class_scores[0] - right.class_scores[0]) < 0.2
