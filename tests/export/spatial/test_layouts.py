from __future__ import annotations

import pytest

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.spatial.layouts import spatial_sizes, tensor_layouts
from tests.export.networks import NETWORKS, network


def layouts(
    body: str, weights: dict[str, tuple[int, ...]], image: str, scores: str
) -> dict[str, str]:
    graph = Graph(network(body, weights, image=image, scores=scores))
    return tensor_layouts(graph, graph.inputs[0].name)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_target_of_each_network_has_a_layout(name: str) -> None:
    net = NETWORKS[name]
    graph = Graph(net.model())
    assert tensor_layouts(graph, graph.inputs[0].name)[net.target] == net.layout


def test_a_transposition_permutes_the_letters() -> None:
    found = layouts(
        "a = Transpose<perm=[0, 3, 1, 2]>(image)\n b = Transpose(a)\n y = Relu(b)",
        {},
        "float[N, 8, 6, 3] image",
        "float[P, Q, R, S] y",
    )
    assert found == {"image": "NHWC", "a": "NCHW", "b": "WHCN", "y": "WHCN"}


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ("N, 3, 8, 8", "NCHW"),
        ("N, 8, 8, 3", "NHWC"),
        ("N, 8, 8, 1", "NHWC"),
        ("N, 1, 28, 28", "NCHW"),
        ("N, 3, 8, 3", "NCHW"),
        ("N, 8, 8, 8", "NCHW"),
        ("N, 16, 4", "NWC"),
        ("N, 5, 6, 7, 1", "NDHWC"),
    ],
)
def test_the_layout_of_the_image_is_guessed_by_its_few_channels(shape: str, layout: str) -> None:
    outputs = ", ".join("PQRST"[: len(layout)])
    found = layouts("y = Relu(image)", {}, f"float[{shape}] image", f"float[{outputs}] y")
    assert found == {"image": layout, "y": layout}


def test_what_reshapes_ends_what_is_known() -> None:
    found = layouts(
        "a = Conv(image, w)\n f = Flatten(a)\n s = Shape(a)\n r = Reshape(f, s)\n y = Relu(r)",
        {"w": (4, 3, 1, 1)},
        "float[N, 3, 8, 8] image",
        "float[P, Q, R, S] y",
    )
    assert found == {"image": "NCHW", "a": "NCHW"}


def test_a_product_with_weights_needs_channels_last() -> None:
    body = "t = Transpose<perm=[0, 2, 3, 1]>(image)\n y = MatMul(t, w)\n z = MatMul(image, v)"
    found = layouts(
        body, {"w": (3, 5), "v": (8, 2)}, "float[N, 3, 8, 8] image", "float[P, Q, R, S] y"
    )
    assert found == {"image": "NCHW", "t": "NHWC", "y": "NHWC"}


def test_a_convolution_is_channels_first_whatever_came_before() -> None:
    body = "f = Flatten(image)\n r = Reshape(f, shape)\n y = Conv(r, w)"
    model = network(
        body,
        {"w": (4, 3, 1, 1)},
        scores="float[P, Q, R, S] y",
        integers={"shape": [-1, 3, 8, 8]},
    )
    assert tensor_layouts(Graph(model), "image") == {"image": "NCHW", "y": "NCHW"}


def test_spatial_sizes() -> None:
    assert spatial_sizes(("N", 4, "H", 7), "NCHW") == ["H", 7]
    assert spatial_sizes(("N", 5, 7, 4), "NHWC") == [5, 7]
