"""The analysis graph: what is replaced, what stays, and what the exported file holds of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper, parser

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.expansion import expand, with_expansions
from onnx_gradcam.export.expansion.expand import EXPANDED
from onnx_gradcam.export.inspection import inspect_model
from onnx_gradcam.export.pipeline import export_model
from onnx_gradcam.export.verification.verify import check_export
from tests.export.networks import NETWORKS, network

FUSED = """
a = Conv<pads=[1,1,1,1]>(image, w)
b = Relu(a)
c = Conv<pads=[1,1,1,1]>(b, v)
d = Sigmoid(c)
e = Mul(c, d)
f = GlobalAveragePool(e)
g = Flatten(f)
h = Gemm(g, fc, bias)
logits = LeakyRelu<alpha=0.3>(h)
"""
WEIGHTS = {"w": (4, 3, 3, 3), "v": (6, 4, 3, 3), "fc": (6, 5), "bias": (5,)}


def optimised(model: onnx.ModelProto, folder: Path, level: str = "EXTENDED") -> onnx.ModelProto:
    """Return the model as onnxruntime saves it from a session."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(folder / f"{level}.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / f"{level}.onnx")


def run(model: Path | onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


def fused_domains(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node if node.domain == "com.microsoft"}


# -- the analysis graph --------------------------------------------------------------------------


def test_a_model_without_such_operators_is_its_own_analysis() -> None:
    model = network(FUSED, WEIGHTS)
    graph = expand(model)
    assert graph.model is model
    assert graph.original is model
    assert graph.expansion_nodes == []
    assert with_expansions(graph, ["a", "logits"]) is model


def test_the_original_is_not_touched(tmp_path: Path) -> None:
    model = optimised(network(FUSED, WEIGHTS), tmp_path)
    before = model.SerializeToString()
    graph = expand(model)
    assert graph.original is model
    assert model.SerializeToString() == before
    assert fused_domains(model) == {"FusedConv", "QuickGelu", "FusedGemm"}
    assert fused_domains(graph.model) == set()


def test_only_intermediates_are_added(tmp_path: Path) -> None:
    graph = expand(optimised(network(FUSED, WEIGHTS), tmp_path))
    original = {o for node in graph.original.graph.node for o in node.output}
    added = [o for node in graph.expansion_nodes for o in node.output]
    assert len(added) == 3, "the sum before each activation"
    assert all(name.startswith(EXPANDED) for name in added)
    assert not original.intersection(added)


def test_large_weights_are_not_copied_and_still_constant() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[N,3,8,8] image) => (float[N,5] logits) { a = Conv(image, w)
        y = com.microsoft.Gelu(a) f = Flatten(y) logits = Gemm(f, fc) }"""
    )
    for name, shape in {"w": (40, 3, 8, 8), "fc": (40, 5)}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.full(shape, 0.1, "f"), name))
    graph = expand(model)
    stored = {t.name: t for t in graph.model.graph.initializer}
    assert not stored["w"].raw_data
    assert graph.initializers["w"].raw_data
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for name in ("w", "fc"):
        np.testing.assert_array_equal(graph.constant(name), weights[name])
    assert graph.shape("y") == ("N", 40, 1, 1)


def test_it_is_deterministic(tmp_path: Path) -> None:
    model = optimised(network(FUSED, WEIGHTS), tmp_path)
    first, second = (expand(model).model.SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_a_rule_that_waits_for_a_rank_is_tried_again() -> None:
    """The rank behind the first product is known only once that has been expanded."""
    body = """a = Unknown.Thing(image)
    b = com.microsoft.ExpandDims(image, one)
    c = com.microsoft.NhwcConv(b, w)
    logits = com.microsoft.BiasSoftmax<axis=4, is_inner_broadcast=1>(c, zero)"""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1, "Unknown" : 1]>
        g (float[N,4,4,3] image) => (float[A,B,C,D,E] logits)
        <int32 one = {{1}}> {{ {body} }}"""
    )
    for name, shape in {"w": (2, 3, 1, 1, 1), "zero": (2,)}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, "f"), name))
    graph = expand(model)
    assert graph.unexpanded == {}
    assert graph.shape("logits") == ("N", 1, 4, 4, 2)


# -- what is exported ----------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED"])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_optimised_network_is_explained_as_the_original(
    tmp_path: Path, name: str, level: str
) -> None:
    kept = NETWORKS[name].model()
    fused = optimised(kept, tmp_path, level)
    image = picture(2, *(d.dim_value for d in kept.graph.input[0].type.tensor_type.shape.dim[1:]))
    feeds = {kept.graph.input[0].name: image, "cam_class": np.array([3, 1])}
    found = []
    for model in (kept, fused):
        file = tmp_path / f"{len(found)}.onnx"
        report = export_model(
            model, file, layer=NETWORKS[name].target, gradient_builder="reverse", verify=False
        )
        assert report.target == NETWORKS[name].target
        found.append(run(file, feeds))
    for output in ("cam_activations", "cam_gradients"):
        scale = np.abs(found[0][output]).max()
        assert scale > 1e-3
        np.testing.assert_allclose(found[1][output], found[0][output], atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize(
    "builder", ["reverse", pytest.param("onnxruntime-training", marks=pytest.mark.needs_builder)]
)
def test_the_file_proves_right_and_adds_standard_operators(tmp_path: Path, builder: str) -> None:
    model = optimised(network(FUSED, WEIGHTS), tmp_path)
    report = export_model(model, tmp_path / "out.onnx", layer="b", gradient_builder=builder)
    exported = onnx.load(tmp_path / "out.onnx")
    count = len(model.graph.node)
    assert list(exported.graph.node)[:count] == list(model.graph.node)
    assert {node.domain for node in list(exported.graph.node)[count:]} == {""}
    assert len(exported.graph.node) - count == report.nodes_added
    assert report.verification is not None
    assert report.verification.passed
    assert check_export(tmp_path / "out.onnx").passed, "without the original at hand"


def test_a_layer_inside_an_operator(tmp_path: Path) -> None:
    """The result of the convolution within FusedConv is a candidate, and can be explained."""
    model = optimised(network(FUSED, WEIGHTS), tmp_path)
    candidates = [c.tensor for c in inspect_model(model).candidates]
    inner = next(c for c in candidates if c.startswith(EXPANDED))
    report = export_model(model, tmp_path / "out.onnx", layer=inner, gradient_builder="reverse")
    assert report.target == inner
    image = picture(1, 3, 8, 8)
    exported = run(tmp_path / "out.onnx", {"image": image})
    plain = network(FUSED, WEIGHTS)
    plain.graph.output.append(helper.make_tensor_value_info("a", 1, None))
    np.testing.assert_allclose(
        exported["cam_activations"], run(plain, {"image": image})["a"], rtol=1e-5, atol=1e-6
    )
    assert check_export(tmp_path / "out.onnx").passed, "without the original at hand"


def test_a_layer_by_the_name_of_a_fused_node(tmp_path: Path) -> None:
    model = network(FUSED, WEIGHTS)
    for node in model.graph.node:
        node.name = f"/{node.output[0]}"
    fused = optimised(model, tmp_path)
    name = next(n.name for n in fused.graph.node if n.op_type == "FusedConv")
    report = export_model(fused, tmp_path / "out.onnx", layer=name, gradient_builder="reverse")
    assert report.target == "b"


BLOCKED = """
<ir_version: 8, opset_import: ["" : 17, "com.microsoft.nchwc" : 1]>
g (float[N,3,8,8] image) => (float[N,5] logits) {
  a = com.microsoft.nchwc.Conv<activation="Relu", pads=[1,1,1,1]>(image, w)
  NODES
  f = GlobalAveragePool(e)
  g = Flatten(f)
  logits = Gemm(g, fc)
}"""


def blocked(nodes: str) -> onnx.ModelProto:
    """Return a model such as ORT_ENABLE_ALL saves; it runs on some processors alone."""
    model = parser.parse_model(BLOCKED.replace("NODES", nodes))
    for name, shape in {"w": (16, 3, 3, 3), "v": (16, 16, 3, 3), "fc": (16, 5)}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, "f"), name))
    return model


def test_blocked_layouts_are_refused_with_the_way_out(tmp_path: Path) -> None:
    model = blocked("e = com.microsoft.nchwc.ReorderOutput<channels=16>(a)")
    with pytest.raises(UnsupportedModelError, match="ORT_ENABLE_EXTENDED or less, between 'a'"):
        export_model(model, tmp_path / "out.onnx", layer="a", gradient_builder="reverse")


def test_blocked_layouts_before_the_layer_are_no_obstacle() -> None:
    model = blocked(
        """c = com.microsoft.nchwc.ReorderOutput<channels=16, channels_last=1>(a)
        d = Transpose<perm=[0,3,1,2]>(c) h = Conv(d, v) e = Relu(h)"""
    )
    report = inspect_model(model)
    assert report.recommended is not None
    assert report.candidates[report.recommended].tensor == "e"
    assert all(row.reverse for row in report.operators)


@pytest.mark.parametrize(
    ("opset", "ir_version", "element", "options"),
    [
        (9, 8, "float", {}),
        (11, 3, "float", {"class_input": "fixed:2"}),
        (13, 8, "float16", {}),
        (17, 8, "float16", {}),
        (25, 11, "float", {}),
    ],
)
def test_opsets_and_element_types(
    tmp_path: Path, opset: int, ir_version: int, element: str, options: dict[str, str]
) -> None:
    layer = "LayerNormalization" if opset < 17 else "SimplifiedLayerNormalization"
    model = parser.parse_model(
        f"""<ir_version: {ir_version}, opset_import: ["" : {opset}, "com.microsoft" : 1]>
        g ({element}[N,3,8,8] image) => ({element}[N,5] logits) {{
        a = Conv<pads=[1,1,1,1]>(image, w) b = Relu(a) c = Transpose<perm=[0,2,3,1]>(b)
        d = {layer}<axis=-1, epsilon=0.001>(c, scale) e = com.microsoft.Gelu(d)
        f = Transpose<perm=[0,3,1,2]>(e) h = GlobalAveragePool(f) i = Flatten(h)
        logits = MatMul(i, fc) }}"""
    )
    rng = np.random.default_rng(0)
    for name, shape in {"w": (6, 3, 3, 3), "scale": (6,), "fc": (6, 5)}.items():
        values = rng.standard_normal(shape).astype("f2" if element == "float16" else "f4")
        tensor = numpy_helper.from_array(values, name)
        model.graph.initializer.append(tensor)
        if ir_version < 4:
            value = helper.make_tensor_value_info(name, tensor.data_type, shape)
            model.graph.input.append(value)
    report = export_model(
        model, tmp_path / "out.onnx", layer="b", gradient_builder="reverse", **options
    )
    assert report.verification is not None
    assert report.verification.passed
