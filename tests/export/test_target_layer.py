from __future__ import annotations

import pytest

from onnx_gradcam.errors import LayerNotFoundError, UnsupportedModelError
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.score import find_score
from onnx_gradcam.export.target_layer import (
    Layer,
    choose_layer,
    find_candidates,
    image_input,
)
from tests.export.networks import NETWORKS, Network, network

each_network = pytest.mark.parametrize("name", NETWORKS)


def chosen(net: Network, layer: str | int = "auto") -> Layer:
    graph = Graph(net.model())
    score = find_score(graph)
    return choose_layer(graph, image_input(graph, score), score, layer)


@each_network
def test_the_penultimate_feature_map_is_chosen(name: str) -> None:
    layer = chosen(NETWORKS[name])
    assert layer.tensor == NETWORKS[name].target
    assert layer.layout == NETWORKS[name].layout
    assert f"deepest of {len(NETWORKS[name].candidates)} feature maps" in layer.reason


@each_network
def test_candidates_are_the_feature_maps_that_all_of_the_score_passes(name: str) -> None:
    graph = Graph(NETWORKS[name].model())
    score = find_score(graph)
    candidates = find_candidates(graph, image_input(graph, score), score)
    assert tuple(layer.tensor for layer in candidates) == NETWORKS[name].candidates


def test_shapes_are_channels_first_whatever_the_layout() -> None:
    layer = chosen(NETWORKS["channels last"])
    assert layer.shape == ("N", 4, 4, 4)
    assert layer.channels_first == ("N", 4, 4, 4)
    layer = chosen(NETWORKS["channels last"], "first")
    assert layer.channels_first == ("N", 3, 8, 8)
    assert chosen(NETWORKS["3-D"]).channels_first == ("N", 4, 3, 4, 5)
    assert chosen(NETWORKS["1-D"]).channels_first == ("N", 4, 15)


def test_a_layer_by_index() -> None:
    net = NETWORKS["ResNet"]
    assert chosen(net, 0).tensor == "conv1"
    assert chosen(net, "2").tensor == "relu1"
    assert chosen(net, -1).tensor == "relu3"
    assert chosen(net, "-2").tensor == "sum"
    assert chosen(net, -1).reason == "candidate -1 of inspect"


@pytest.mark.parametrize("index", [5, -6, "5"])
def test_an_index_out_of_range(index: str | int) -> None:
    with pytest.raises(LayerNotFoundError, match=r"no candidate layer -?[56]: .* 5 \(0 to 4\)"):
        chosen(NETWORKS["ResNet"], index)


def test_a_layer_by_tensor_name_need_not_be_a_candidate() -> None:
    layer = chosen(NETWORKS["ResNet"], "relu2")
    assert (layer.tensor, layer.op_type, layer.shape) == ("relu2", "Relu", ("N", 6, 4, 4))
    assert layer.reason == "asked for by name 'relu2'"


def test_a_layer_by_node_name() -> None:
    model = NETWORKS["ResNet"].model()
    for node in model.graph.node:
        node.name = f"/net/{node.output[0]}/{node.op_type}"
    graph = Graph(model)
    score = find_score(graph)
    layer = choose_layer(graph, "image", score, "/net/relu3/Relu")
    assert (layer.tensor, layer.node) == ("relu3", "/net/relu3/Relu")


def test_a_tensor_whose_name_is_a_number_is_found_before_an_index() -> None:
    model = NETWORKS["EfficientNet"].model()
    names = {"silu": "0", "conv1": "7"}
    for node in model.graph.node:
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]
    graph = Graph(model)
    score = find_score(graph)
    assert choose_layer(graph, "image", score, "0").tensor == "0"
    assert choose_layer(graph, "image", score, 0).tensor == "7"
    assert choose_layer(graph, "image", score, "1").tensor == "0"


def test_a_wrong_name_comes_with_near_ones() -> None:
    with pytest.raises(LayerNotFoundError, match="no layer 'relu33'; did you mean 'relu3'"):
        chosen(NETWORKS["ResNet"], "relu33")


@pytest.mark.parametrize(
    ("layer", "error", "reason"),
    [
        ("image", LayerNotFoundError, "'image' is an input or a weight, not a layer"),
        ("w1", LayerNotFoundError, "'w1' is an input or a weight, not a layer"),
        ("pooled", UnsupportedModelError, r"'pooled' of shape \(N, 4, 1, 1\) is no feature map"),
        ("flat", UnsupportedModelError, r"'flat' of shape \(N, 4\) is no feature map"),
        ("logits", UnsupportedModelError, "'logits' of shape"),
    ],
)
def test_what_is_no_feature_map(layer: str, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        chosen(NETWORKS["ResNet"], layer)


def test_a_layer_beside_the_score() -> None:
    net = NETWORKS["EfficientNet"]
    side = f"{net.body}\n side = Relu(conv1)\n constant = Relu(w1)"
    with pytest.raises(UnsupportedModelError, match="'logits' does not depend on layer 'side'"):
        chosen(Network(side, net.weights, "", ()), "side")


def test_a_layer_that_no_image_reaches() -> None:
    weights = {**NETWORKS["EfficientNet"].weights, "prompt": (1, 4, 4, 4)}
    body = """conv1 = Conv<pads=[1,1,1,1], strides=[2,2]>(image, w1, b1)
        learned = Relu(prompt)
        both = Add(conv1, learned)
        pooled = GlobalAveragePool(both)
        flat = Flatten(pooled)
        logits = Gemm<transB=1>(flat, w2, b2)"""
    net = Network(body, weights, "both", ())
    with pytest.raises(UnsupportedModelError, match="'learned' does not depend on the image"):
        chosen(net, "learned")
    assert chosen(net).tensor == "both"


def test_no_feature_map_at_all() -> None:
    net = Network("logits = Gemm<transB=1>(image, w, b)", {"w": (5, 7), "b": (5,)}, "", (),
                  image="float[N, 7] image")  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="the model has no spatial feature map"):
        chosen(net)


def test_a_score_that_no_image_reaches() -> None:
    net = Network("logits = Relu(w)", {"w": (2, 5)}, "", (), scores="float[2, 5] logits")
    with pytest.raises(UnsupportedModelError, match="'logits' does not depend on any input"):
        chosen(net)


def test_the_image_is_the_input_with_spatial_axes() -> None:
    model = network(
        """scaled = Mul(image, factor)
        pooled = GlobalAveragePool(scaled)
        flat = Flatten(pooled)
        logits = Gemm<transB=1>(flat, w, b)""",
        {"w": (5, 3), "b": (5,)},
        image="float[1] factor, float[N, 3, 8, 8] image, float[N, 3, 8, 8] other",
    )
    graph = Graph(model)
    assert image_input(graph, find_score(graph)) == "image"


def test_paths_are_counted_however_many_there_are() -> None:
    # 2^80 paths; a float would lose count
    steps = "\n".join(f"x{i + 1} = Add(x{i}, x{i})" for i in range(80))
    body = f"""x0 = Conv<pads=[1,1,1,1]>(image, w1)
        {steps}
        last = Relu(x80)
        pooled = GlobalAveragePool(last)
        flat = Flatten(pooled)
        logits = Gemm<transB=1>(flat, w2, b2)"""
    weights = {"w1": (4, 3, 3, 3), "w2": (5, 4), "b2": (5,)}
    net = Network(body, weights, "last", ())
    graph = Graph(net.model())
    candidates = find_candidates(graph, "image", find_score(graph))
    assert [c.tensor for c in candidates] == [*(f"x{i}" for i in range(81)), "last"]
