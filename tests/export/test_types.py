"""Shapes that exporters compute at run time are followed as far as they are known."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.gradients.emitter import Dim

SHUFFLE = """
sizes = Shape(x)
zero = Constant<value_ints=[0]>()
one = Constant<value_ints=[1]>()
two = Constant<value_ints=[2]>()
big = Constant<value_ints=[2147483647]>()
batch = Gather(sizes, zero)
channels = Gather(sizes, one)
half = Div(channels, two)
rest = Slice(sizes, two, big)
grouped = Concat<axis=0>(batch, two, half, rest)
r = Reshape(x, grouped)
t = Transpose<perm=[0, 2, 1, 3, 4]>(r)
merged = Concat<axis=0>(batch, channels, rest)
s = Reshape(t, merged)
y = Slice(s, half, big, one)
"""


def graph_of(body: str, x: str = "N, 6, 4, 5", opset: int = 17) -> Graph:
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
        net (float[{x}] x) => (float[] y) {{ {body} }}"""
    return Graph(parser.parse_model(text))


def test_channel_shuffle_of_a_free_batch() -> None:
    graph = graph_of(SHUFFLE)
    assert graph.shape("r") == ("N", 2, 3, 4, 5)
    assert graph.shape("s") == ("N", 6, 4, 5)
    half = graph.constant("half")
    assert half is not None
    assert half.tolist() == [3]
    assert graph.constant("grouped") is None, "the batch size is not constant"
    picked = graph.shape("y")
    assert picked is not None
    assert picked[1:] == (3, 4, 5)


def test_free_height_and_width_keep_their_names() -> None:
    graph = graph_of(SHUFFLE, x="N, 6, H, W")
    assert graph.shape("r") == ("N", 2, 3, "H", "W")
    assert graph.shape("s") == ("N", 6, "H", "W")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("[0, -1]", ("N", 120)),
        ("[-1, 120]", ("N", 120)),
        ("[-1, 60]", (None, 60)),
        ("[0, 0, 20]", ("N", 6, 20)),
    ],
)
def test_what_is_left_over_in_a_reshape(target: str, expected: tuple[Dim, ...]) -> None:
    shape = graph_of(f"t = Constant<value_ints={target}>() r = Reshape(x, t) y = Relu(r)").shape(
        "r"
    )
    assert shape is not None
    assert [d if isinstance(d, int) else d == "N" for d in shape] == [
        d if isinstance(d, int) else d == "N" for d in expected
    ]


def test_sizes_read_through_casts_and_unsqueeze() -> None:
    graph = graph_of(
        """n = Shape(x) i = Constant<value_int=2>() h = Gather(n, i) c = Cast<to=7>(h)
        a = Constant<value_ints=[0]>() u = Unsqueeze(c, a) e = Constant<value_ints=[-1]>()
        k = Concat<axis=0>(e, u) y = Reshape(x, k)"""
    )
    height = graph.constant("u")
    assert height is not None
    np.testing.assert_array_equal(height, [4])
    assert graph.shape("y") == ("30*N", 4)
