"""Models in half, brain, double and mixed precision: gradients in float32, outputs as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.pipeline import export_model
from onnx_gradcam.export.precision import float32_view, holds_half
from onnx_gradcam.export.reference.operators import evaluator
from tests.export.networks import NETWORKS, network
from tests.export.precisions import (
    BRAIN,
    DOUBLE,
    FLOAT,
    HALF,
    cast_around,
    converted,
    stored_in,
)

EXACT = 1e-5
"""Relative error of a float32 gradient."""

ROUNDED = 2e-3
"""Relative error where A itself was rounded to float16."""

MAXIMA = network(
    """c = Conv<pads=[1,1,1,1]>(image, w) r = Relu(c) s = Sigmoid(c) m = Max(r, s)
    p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(m) q = Conv(p, v)
    t = ReduceMax<axes=[2], keepdims=1>(q) n = Min(t, one) g = GlobalMaxPool(n) f = Flatten(g)
    logits = Gemm<transB=1>(f, fc, fb)""",
    {"w": (4, 3, 3, 3), "v": (6, 4, 1, 1), "fc": (5, 6), "fb": (5,), "one": (1,)},
)


def widened(model: onnx.ModelProto, dtype: int) -> onnx.ModelProto:
    """Return a copy in which whatever is half, brain or float is of a wide type."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for narrow in (HALF, BRAIN):
        for tensor in copy.graph.initializer:
            if tensor.data_type == narrow:
                values = numpy_helper.to_array(tensor).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        for value in (*copy.graph.input, *copy.graph.output, *copy.graph.value_info):
            if value.type.tensor_type.elem_type == narrow:
                value.type.tensor_type.elem_type = FLOAT
        for node in copy.graph.node:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == narrow:
                    attribute.i = FLOAT
    return copy if dtype == FLOAT else converted(copy, dtype)


def images(model: onnx.ModelProto) -> np.ndarray:
    """Return random images that every type holds."""
    shape = [d.dim_value or 2 for d in model.graph.input[0].type.tensor_type.shape.dim]
    drawn = np.random.default_rng(0).integers(-8, 9, shape) / 4
    return drawn.astype(np.float32)


def run(model: Path | onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    given = model if isinstance(model, Path) else model.SerializeToString()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def exact(exported: Path, image: np.ndarray, classes: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the exported graph gives in float64, from weights as they are in the file."""
    model = widened(onnx.load(exported), DOUBLE)
    names = [output.name for output in model.graph.output]
    feeds = {model.graph.input[0].name: image.astype(np.float64), "cam_class": classes}
    return dict(zip(names, evaluator(model).run(None, feeds), strict=True))


def error(found: np.ndarray, expected: np.ndarray) -> float:
    expected = np.asarray(expected, np.float64)
    assert np.linalg.norm(expected) > 0
    return float(np.linalg.norm(found.astype(np.float64) - expected) / np.linalg.norm(expected))


def float32_twin(path: Path, model: onnx.ModelProto, layer: str) -> Path:
    """Export the same weights in float32, where no precision code is in the way."""
    twin = path.with_suffix(".twin.onnx")
    options = {"gradient_builder": "reverse", "verify": False, "force": True}
    export_model(widened(model, FLOAT), twin, layer=layer, **options)
    return twin


def check_half(
    path: Path, model: onnx.ModelProto, layer: str, builder: str = "reverse"
) -> set[str]:
    """Export, verify, and compare with float64; return the operators that were added."""
    report = export_model(model, path, layer=layer, gradient_builder=builder)
    assert report.builder == builder
    image = images(model)
    name, dtype = model.graph.input[0].name, model.graph.input[0].type.tensor_type.elem_type
    found = run(path, {name: image.astype(np.float16 if dtype == HALF else np.float32)})
    assert {found[n].dtype for n in ("cam_activations", "cam_gradients")} == {np.dtype(np.float32)}
    expected = exact(float32_twin(path, model, layer), image, found["cam_classes"])
    distance = error(found["cam_activations"], expected["cam_activations"])
    assert distance < ROUNDED
    tolerance = EXACT if distance < EXACT else ROUNDED
    assert error(found["cam_gradients"], expected["cam_gradients"]) < tolerance
    return added_types(path)


def added_types(path: Path) -> set[str]:
    """Return the element types of what the export added, as runtime names them."""
    graph = Graph(onnx.load(path))
    made = [o for node in graph.nodes for o in node.output if o.startswith("onnx_gradcam/")]
    known = [graph.type_of(name) for name in made]
    return {TensorProto.DataType.Name(k.dtype) for k in known if k is not None}


@pytest.mark.parametrize("family", NETWORKS)
def test_float16_at_the_first_feature_map(tmp_path: Path, family: str) -> None:
    model = converted(NETWORKS[family].model(), HALF)
    layer = NETWORKS[family].candidates[0]
    assert "FLOAT16" not in check_half(tmp_path / "out.onnx", model, layer)


@pytest.mark.needs_builder
@pytest.mark.parametrize("family", ["VGG", "MobileNetV3", "ConvNeXt"])
def test_float16_with_the_other_builder(tmp_path: Path, family: str) -> None:
    model = converted(NETWORKS[family].model(), HALF)
    layer = NETWORKS[family].candidates[0]
    types = check_half(tmp_path / "out.onnx", model, layer, "onnxruntime-training")
    assert "FLOAT16" not in types


@pytest.mark.parametrize("family", ["VGG", "SqueezeNet", "ConvNeXt", "channels last"])
def test_float16_at_the_recommended_layer(tmp_path: Path, family: str) -> None:
    model = converted(NETWORKS[family].model(), HALF)
    check_half(tmp_path / "out.onnx", model, NETWORKS[family].target)


@pytest.mark.parametrize("opset", [7, 9, 11, 18])
def test_float16_in_every_form_of_the_operators(tmp_path: Path, opset: int) -> None:
    model = converted(NETWORKS["VGG"].model(opset=opset), HALF)
    check_half(tmp_path / "out.onnx", model, "relu1")


@pytest.mark.parametrize("layer", ["c", "m", "q"])
def test_a_maximum_equals_one_of_its_operands(tmp_path: Path, layer: str) -> None:
    model, path = converted(MAXIMA, HALF), tmp_path / "out.onnx"
    check_half(path, model, layer)
    image = images(model)
    expected = exact(float32_twin(path, model, layer), image, np.array([1, 2]))["cam_gradients"]
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"):
        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.log_severity_level = 3
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feeds = {"image": image.astype(np.float16), "cam_class": np.array([1, 2])}
        (found,) = session.run(["cam_gradients"], feeds)
        assert error(found, expected) < ROUNDED


def test_a_gradient_too_small_for_float16(tmp_path: Path) -> None:
    body = """a = Conv<pads=[1,1,1,1]>(image, w) b = Relu(a) c = Mul(b, tiny) d = Conv(c, v)
    e = Mul(d, tiny) f = GlobalAveragePool(e) g = Flatten(f) logits = Gemm<transB=1>(g, fc, fb)"""
    shapes = {"w": (4, 3, 3, 3), "v": (6, 4, 1, 1), "fc": (5, 6), "fb": (5,), "tiny": ()}
    model = network(body, shapes)
    (tiny,) = (t for t in model.graph.initializer if t.name == "tiny")
    tiny.CopyFrom(numpy_helper.from_array(np.float32(2**-10), "tiny"))
    model = converted(model, HALF)
    path = tmp_path / "out.onnx"
    export_model(model, path, layer="b", gradient_builder="reverse", verify=False)
    image = images(model)
    found = run(path, {"image": image.astype(np.float16)})
    assert 0 < np.abs(found["cam_gradients"]).max() < np.finfo(np.float16).smallest_subnormal
    expected = exact(float32_twin(path, model, "b"), image, found["cam_classes"])
    assert error(found["cam_gradients"], expected["cam_gradients"]) < EXACT


CASTS = [
    ("conv1", HALF, "reverse"),
    ("relu1_narrow", HALF, "reverse"),
    ("relu1_wide", HALF, "reverse"),
    ("relu3", HALF, "reverse"),
    pytest.param("conv1", HALF, "onnxruntime-training", marks=pytest.mark.needs_builder),
    ("conv1", BRAIN, "reverse"),
    ("relu1_narrow", BRAIN, "reverse"),
    pytest.param("conv1", BRAIN, "onnxruntime-training", marks=pytest.mark.needs_builder),
    ("conv1", DOUBLE, "reverse"),
    pytest.param("conv1", DOUBLE, "onnxruntime-training", marks=pytest.mark.needs_builder),
]


@pytest.mark.parametrize(("layer", "dtype", "builder"), CASTS)
def test_casts_inside_the_tail(tmp_path: Path, layer: str, dtype: int, builder: str) -> None:
    model = cast_around(NETWORKS["ResNet"].model(), "relu1", dtype)
    path, plain = tmp_path / "out.onnx", tmp_path / "plain.onnx"
    report = export_model(model, path, layer=layer, gradient_builder=builder)
    assert report.builder == builder
    image = images(model)
    found = run(path, {"image": image})
    same = layer.removesuffix("_wide").removesuffix("_narrow")
    source, options = NETWORKS["ResNet"].model(), {"gradient_builder": "reverse", "verify": False}
    export_model(source, plain, layer=same, **options)
    expected = run(plain, {"image": image, "cam_class": found["cam_classes"]})
    assert found["cam_gradients"].dtype == found["cam_activations"].dtype == np.float32
    assert error(found["cam_gradients"], expected["cam_gradients"]) < 1e-2
    assert error(found["cam_activations"], expected["cam_activations"]) < 1e-2


@pytest.mark.parametrize("dtype", [HALF, BRAIN], ids=["half", "brain"])
def test_weights_stored_in_half_precision_stay_so(tmp_path: Path, dtype: int) -> None:
    model = stored_in(NETWORKS["VGG"].model(), dtype)
    export_model(model, tmp_path / "out.onnx", layer="relu1", gradient_builder="reverse")
    exported = onnx.load(tmp_path / "out.onnx")
    before = {t.name: t.data_type for t in model.graph.initializer}
    after = {t.name: t for t in exported.graph.initializer}
    assert before.items() <= {n: t.data_type for n, t in after.items()}.items()
    added = [t for n, t in after.items() if n not in before]
    assert max(numpy_helper.to_array(t).size for t in added) <= 16


def test_weights_are_not_copied(tmp_path: Path) -> None:
    model = converted(NETWORKS["VGG"].model(), HALF)
    export_model(model, tmp_path / "out.onnx", layer="relu1", gradient_builder="reverse")
    names = {t.name for t in model.graph.initializer}
    exported = onnx.load(tmp_path / "out.onnx").graph
    assert max(np.prod(t.dims) for t in exported.initializer if t.name not in names) <= 16


def test_casts_at_both_ends(tmp_path: Path) -> None:
    model = converted(NETWORKS["SqueezeNet"].model(), HALF, keep_inputs=True, keep_outputs=True)
    check_half(tmp_path / "out.onnx", model, "conv1")


@pytest.mark.parametrize("layer", ["act5", "conv1"])
def test_bfloat16_where_no_cpu_computes_in_it(tmp_path: Path, layer: str) -> None:
    model = converted(NETWORKS["MobileNetV3"].model(opset=22), BRAIN)
    path = tmp_path / "out.onnx"
    with pytest.raises(UnsupportedModelError, match=r"computes in bfloat16.*--no-verify") as caught:
        export_model(model, path, layer=layer, gradient_builder="reverse")
    assert "\n" not in str(caught.value)
    assert not path.exists()
    export_model(model, path, layer=layer, gradient_builder="reverse", verify=False)
    assert "BFLOAT16" not in added_types(path)
    image = images(model)
    found = run(widened(onnx.load(path), FLOAT), {"image": image})
    expected = exact(float32_twin(path, model, layer), image, found["cam_classes"])
    assert error(found["cam_gradients"], expected["cam_gradients"]) < EXACT


def test_an_operator_that_does_not_take_bfloat16_is_named(tmp_path: Path) -> None:
    model = converted(NETWORKS["VGG"].model(), BRAIN)
    with pytest.raises(UnsupportedModelError, match=r"Conv-17 .* bfloat16 .*from opset 22"):
        export_model(model, tmp_path / "out.onnx")


def test_a_float64_model_stays_float64(tmp_path: Path) -> None:
    model = converted(NETWORKS["VGG"].model(), DOUBLE)
    path = tmp_path / "out.onnx"
    with pytest.raises(UnsupportedModelError, match=r"Conv.*computes in float64"):
        export_model(model, path, layer="relu1", gradient_builder="reverse")
    export_model(model, path, layer="relu1", gradient_builder="reverse", verify=False)
    assert added_types(path) <= {"DOUBLE", "INT64", "BOOL", "FLOAT"}
    exported = onnx.load(path)
    types = {o.name: o.type.tensor_type.elem_type for o in exported.graph.output}
    assert types["cam_gradients"] == types["cam_activations"] == DOUBLE
    names = list(types)
    feeds = {"image": images(model).astype(np.float64), "cam_class": np.array([1, 2])}
    found = dict(zip(names, evaluator(exported).run(None, feeds), strict=True))
    plain = tmp_path / "plain.onnx"
    export_model(NETWORKS["VGG"].model(), plain, layer="relu1", gradient_builder="reverse")
    expected = run(plain, {"image": images(model), "cam_class": np.array([1, 2])})
    assert found["cam_gradients"].dtype == np.float64
    assert error(expected["cam_gradients"], found["cam_gradients"]) < EXACT


def test_original_outputs_stay(tmp_path: Path) -> None:
    model = converted(NETWORKS["ResNet"].model(), HALF)
    report = export_model(model, tmp_path / "out.onnx", gradient_builder="reverse")
    assert report.verification is not None
    image = images(model).astype(np.float16)
    before, after = run(model, {"image": image}), run(tmp_path / "out.onnx", {"image": image})
    assert after["logits"].dtype == np.float16
    np.testing.assert_allclose(after["logits"], before["logits"], rtol=2e-3, atol=2e-3)


def test_the_highest_class_is_that_of_the_scores(tmp_path: Path) -> None:
    model = converted(NETWORKS["ResNet"].model(), HALF)
    export_model(model, tmp_path / "out.onnx", gradient_builder="reverse")
    image = np.random.default_rng(5).standard_normal((32, 3, 8, 8)).astype(np.float16)
    found = run(tmp_path / "out.onnx", {"image": image})
    np.testing.assert_array_equal(found["cam_classes"], found["logits"].argmax(axis=1))


def test_the_view_holds_no_half_precision() -> None:
    model = converted(NETWORKS["SqueezeNet"].model(), HALF)
    graph = Graph(model)
    view = float32_view(graph)
    assert holds_half(model)
    assert {known.dtype for known in graph.types.values()} == {HALF}
    assert {known.dtype for known in view.types.values()} == {FLOAT}
    weight, wide = graph.constant("w1"), view.constant("w1")
    assert weight is not None
    assert wide is not None
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide, weight.astype(np.float32))


def test_the_view_of_a_float_model_is_the_graph_itself() -> None:
    model = NETWORKS["SqueezeNet"].model()
    graph = Graph(model)
    assert float32_view(graph) is graph
    assert not holds_half(model)
    assert holds_half(cast_around(model, "fire", BRAIN))
