"""Tokens as feature maps: which layer, on which grid, with the right gradient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.expansion import expand
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.inspection import inspect_model
from onnx_gradcam.export.pipeline import export_model
from onnx_gradcam.export.score import find_score
from onnx_gradcam.export.spatial.feature_maps import FeatureMaps
from onnx_gradcam.export.target_layer import choose_layer, find_candidates
from tests.export.networks import Network
from tests.export.spatial.transformers import (
    ATTENDED,
    CLASS_TOKEN,
    MERGED,
    OPEN,
    POOLED,
    TRACED,
    TRANSFORMERS,
    WINDOWS,
)

SIZES = {"any size": (64, 96)}


def image_of(name: str) -> np.ndarray:
    size = SIZES.get(name, (8, 12))
    return np.random.default_rng(1).standard_normal((2, 3, *size)).astype(np.float32)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_layer_that_is_recommended(name: str) -> None:
    net = TRANSFORMERS[name]
    graph = Graph(net.model())
    layer = choose_layer(graph, "image", find_score(graph))
    assert (layer.tensor, layer.layout) == (net.target, net.layout)


@pytest.mark.parametrize(
    "builder", ["reverse", pytest.param("onnxruntime-training", marks=pytest.mark.needs_builder)]
)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_export_is_proved(tmp_path: Path, name: str, builder: str) -> None:
    report = export_model(
        TRANSFORMERS[name].model(), tmp_path / "cam.onnx", gradient_builder=builder
    )
    assert report.verification is not None
    assert not report.verification.is_zero
    session = onnxruntime.InferenceSession(tmp_path / "cam.onnx")
    image = image_of(name)
    activations, gradients = session.run(["cam_activations", "cam_gradients"], {"image": image})
    grid = (4, 6)
    assert activations.shape == gradients.shape == (2, 4, *grid)
    assert np.abs(gradients).max(axis=(1, 2, 3)).min() > 1e-6


PLACED = [
    ("class token", "x0"),
    ("pooled", "embedded"),
    ("any size", "embedded"),
    ("windows", "patches"),
    ("windows", "grid"),
    ("windows", "rolled"),
    ("windows", "ordered"),
    ("windows", "windows"),
    ("mixer", "x0"),
]


@pytest.mark.parametrize(("name", "layer"), PLACED)
def test_a_patch_changes_its_own_cell_alone(tmp_path: Path, name: str, layer: str) -> None:
    export_model(
        TRANSFORMERS[name].model(), tmp_path / "cam.onnx", layer=layer, verify=False,
        gradient_builder="reverse",
    )  # fmt: skip
    session = onnxruntime.InferenceSession(tmp_path / "cam.onnx")
    image = image_of(name)
    (before,) = session.run(["cam_activations"], {"image": image})
    size = image.shape[2] // 4
    for row, column in [(0, 0), (0, 5), (3, 0), (2, 4)]:
        changed = image.copy()
        changed[1, :, row * size : (row + 1) * size, column * size : (column + 1) * size] += 1
        (after,) = session.run(["cam_activations"], {"image": changed})
        moved = np.abs(after - before).max(axis=1) > 1e-6
        assert np.argwhere(moved).tolist() == [[1, row, column]]


def test_one_size_after_another(tmp_path: Path) -> None:
    export_model(TRANSFORMERS["any size"].model(), tmp_path / "cam.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "cam.onnx")
    for size in ((32, 32), (80, 48)):
        image = np.ones((1, 3, *size), np.float32)
        (gradients,) = session.run(["cam_gradients"], {"image": image})
        assert gradients.shape == (1, 4, size[0] // 16, size[1] // 16)


@pytest.mark.parametrize("layer", ["last", "b", "bm", "bx"])
def test_what_only_the_class_token_leaves_is_refused(layer: str) -> None:
    graph = Graph(CLASS_TOKEN.model())
    reason = r"only its class token does\).*nearest layer that works is 'bn1'"
    with pytest.raises(UnsupportedModelError, match=reason):
        choose_layer(graph, "image", find_score(graph), layer)


def test_a_layer_that_the_last_attention_reads_is_not_refused() -> None:
    graph = Graph(CLASS_TOKEN.model())
    for layer in ("bv", "bk", "bn1", "a", "x0"):
        assert choose_layer(graph, "image", find_score(graph), layer).tensor == layer


def test_a_layer_whose_gradient_is_zero_by_its_weights_is_refused(tmp_path: Path) -> None:
    model = POOLED.model()
    for tensor in model.graph.initializer:
        if tensor.name == "w_head":
            tensor.raw_data = bytes(len(tensor.raw_data))
    with pytest.raises(UnsupportedModelError, match="'last' is zero for all inputs tried"):
        export_model(model, tmp_path / "cam.onnx")
    assert not (tmp_path / "cam.onnx").exists()


def test_attention_lies_where_the_query_lies() -> None:
    maps = FeatureMaps(Graph(POOLED.model()), "image")
    found = maps.arrangement("aav")
    assert found is not None
    assert (found.layout, found.grid, found.order) == ("NTC", (4, 6), tuple(range(24)))


def test_windows_share_an_axis_with_the_batch() -> None:
    found = FeatureMaps(Graph(WINDOWS.model()), "image").arrangement("windows")
    assert found is not None
    assert (found.layout, found.grid, found.rows) == ("BTC", (4, 6), 24)
    # the first window holds rows 1 and 2 of the map, which was rolled up by one
    assert [found.order.index(i) for i in range(4)] == [6, 7, 12, 13]


def test_one_image_where_two_contradict_the_graph(tmp_path: Path) -> None:
    graph = Graph(TRACED.model())
    layer = choose_layer(graph, "image", find_score(graph))
    assert (layer.tensor, layer.arrangement.grid) == ("last", (4, 6))
    report = export_model(TRACED.model(), tmp_path / "cam.onnx")
    assert report.verification is not None
    assert report.verification.passed


def test_open_sizes_that_the_position_embeddings_fix(tmp_path: Path) -> None:
    """As optimum exports: height and width are open by name, 64 x 64 alone fits."""
    layer = choose_layer(Graph(OPEN.model()), "image", find_score(Graph(OPEN.model())))
    assert (layer.tensor, layer.arrangement.grid) == ("last", (4, 4))
    report = export_model(OPEN.model(), tmp_path / "cam.onnx")
    assert report.verification is not None
    assert report.verification.passed


def test_the_scale_of_all_tokens_is_no_way_to_the_score() -> None:
    """Dynamic quantization: the step comes from the largest token, but carries no gradient."""
    model = CLASS_TOKEN.model()
    at = next(i for i, node in enumerate(model.graph.node) if "bh" in node.output)
    del model.graph.node[at]
    weight = np.random.default_rng(2).integers(-100, 100, (4, 4)).astype(np.int8)
    model.graph.initializer.append(numpy_helper.from_array(weight, "integers"))
    quantized = [
        helper.make_node("DynamicQuantizeLinear", ["bn2"], ["bq8", "bscale", "bzero"]),
        helper.make_node("MatMulInteger", ["bq8", "integers", "bzero"], ["bproduct"]),
        helper.make_node("Cast", ["bproduct"], ["bfloat"], to=1),
        helper.make_node("Mul", ["bfloat", "bscale"], ["bh"]),
    ]
    for node in reversed(quantized):
        model.graph.node.insert(at, node)
    graph = expand(model)
    assert choose_layer(graph, "image", find_score(graph)).tensor == "bn1"
    candidates = find_candidates(graph, "image", find_score(graph))
    assert all(graph.is_float(layer.tensor) for layer in candidates)


def test_joined_neighbours_keep_their_place_in_a_norm_in_pieces() -> None:
    """Patch merging of Swin below opset 17."""
    model = MERGED.model()
    layer = choose_layer(Graph(model), "image", find_score(Graph(model)))
    assert (layer.tensor, layer.arrangement.grid) == ("reduced", (4, 6))


def test_pooled_and_picked_values_have_no_place() -> None:
    maps = FeatureMaps(Graph(CLASS_TOKEN.model()), "image")
    assert maps.arrangement("picked") is None
    assert FeatureMaps(Graph(POOLED.model()), "image").arrangement("head") is None


def test_no_single_map_on_all_paths() -> None:
    body = ATTENDED + """
    mean1 = ReduceMean<axes=[1], keepdims=0>(a)
    mean2 = ReduceMean<axes=[1], keepdims=0>(b)
    first = Gemm<transB=1>(mean1, w_head, b_head)
    second = Gemm<transB=1>(mean2, w_head, b_head)
    logits = Add(first, second)"""  # fmt: skip
    weights = {**POOLED.weights, "we2": (4, 3, 2, 2)}
    net = Network(body, weights, "", (), image=POOLED.image, integers=POOLED.integers)
    graph = Graph(net.model())
    layer = choose_layer(graph, "image", find_score(graph))
    assert layer.tensor == "b"
    assert "part of the paths" in layer.reason


def test_inspect_lists_the_recommended_layer_and_none_that_is_refused() -> None:
    report = inspect_model(CLASS_TOKEN.model())
    assert report.recommended is not None
    assert report.candidates[report.recommended].tensor == "bn1"
    assert [c.tensor for c in report.candidates] == [
        "patches", "rows", "embedded", "x0", "ax", "a", "bn1",
    ]  # fmt: skip
    graph = Graph(CLASS_TOKEN.model())
    for index, candidate in enumerate(report.candidates):
        assert choose_layer(graph, "image", find_score(graph), index).tensor == candidate.tensor
