"""Shapes that exporters compute at run time are followed as far as they are known."""

from __future__ import annotations

import time

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


# -- sizes known at run time only --------------------------------------------------------------

OPEN = "N, 6, H, W"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Conv<pads=[1,1,1,1]>(x, k)", ("N", 6, "H", "W")),
        ("y = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)", ("N", 6, "H", "W")),
        ('y = AveragePool<kernel_shape=[3,3], auto_pad="SAME_UPPER">(x)', ("N", 6, "H", "W")),
        ("y = DepthToSpace<blocksize=1>(x)", ("N", 6, "H", "W")),
        ("y = Flatten(x)", ("N", "6*H*W")),
        ("y = Flatten<axis=0>(x)", (1, "6*H*N*W")),
        ("y = Concat<axis=1>(x, x)", ("N", 12, "H", "W")),
        ("s = Sigmoid(x) y = Mul(x, s)", ("N", 6, "H", "W")),
        (
            """t = Constant<value_ints=[0, 6, -1]>() r = Reshape(x, t)
            y = Transpose<perm=[0,2,1]>(r)""",
            ("N", "H*W", 6),
        ),
        (
            """n = Shape(x) t = Constant<value_ints=[-1, 6]>() r = Transpose<perm=[0,2,3,1]>(x)
            f = Reshape(r, t) p = Transpose<perm=[0,2,3,1]>(x) m = Shape(p) y = Reshape(f, m)""",
            ("N", "H", "W", 6),
        ),
        (
            "n = Shape(x) e = Expand(k2, n) y = Add(e, x)",
            ("N", 6, "H", "W"),
        ),
        (
            """n = Shape(x) i = Constant<value_ints=[0]>() b = Gather(n, i)
            t = Constant<value_ints=[1, 48]>() to = Concat<axis=0>(b, t)
            z = ConstantOfShape(to) y = Add(z, c)""",
            ("N", 1, 48),
        ),
        (
            """a = Constant<value_ints=[1]>() e = Constant<value_ints=[9223372036854775807]>()
            p = Constant<value_ints=[0,0,1,0, 0,0,0,0]>() w = Pad(x, p)
            ax = Constant<value_ints=[2]>() y = Slice(w, a, e, ax)""",
            ("N", 6, "H", "W"),
        ),
    ],
)
def test_open_sizes_keep_their_symbols(body: str, expected: tuple[Dim, ...]) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[{OPEN}] x, float[6,6,3,3] k, float[1,6,1,1] k2, float[48] c)
        => (float[] out) {{ {body} out = Identity(y) }}"""
    assert Graph(parser.parse_model(text)).shape("y") == expected


def test_the_same_geometry_gives_the_same_symbol() -> None:
    graph = graph_of(
        """a = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)
        b = AveragePool<kernel_shape=[2,2], strides=[2,2]>(x)
        c = MaxPool<kernel_shape=[3,3], strides=[2,2]>(x) y = Add(a, b)""",
        x=OPEN,
    )
    assert graph.shape("a") == graph.shape("b") == graph.shape("y")
    assert (graph.shape("c") or ())[2:] != (graph.shape("a") or ())[2:]


def test_a_batch_that_windows_multiply_is_divided_again() -> None:
    graph = graph_of(
        """t = Constant<value_ints=[-1, 6]>() f = Reshape(x, t) n = Shape(f)
        i = Constant<value_int=0>() rows = Gather(n, i) per = Constant<value_int=20>()
        batch = Div(rows, per) a = Constant<value_ints=[0]>() b = Unsqueeze(batch, a)
        rest = Constant<value_ints=[20, 6]>() to = Concat<axis=0>(b, rest) y = Reshape(f, to)"""
    )
    assert graph.shape("f") == ("20*N", 6)
    assert graph.shape("y") == ("N", 20, 6)


# -- operators that no schema describes --------------------------------------------------------


def opaque(body: str) -> Graph:
    text = f"""<ir_version: 8, opset_import: ["" : 17, "custom" : 1, "com.microsoft" : 1]>
        net (float[N, 6, 4, 5] x, float[8,3,3,3] w, float[8] s) => (float[] out) {{
        {body} out = Identity(y) }}"""
    return Graph(parser.parse_model(text))


def test_weights_tell_the_rank_of_what_a_custom_operator_made() -> None:
    graph = opaque("m = custom.Mystery(x) y = Conv<group=2>(m, w)")
    assert (graph.shape("m") or ())[1] == 6
    found = graph.shape("y")
    assert found is not None
    assert len(found) == 4
    assert found[1] == 8
    assert graph.is_float("y")


def test_a_declared_shape_helps_where_nothing_else_is_known() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "custom" : 1]>
        net (float[N, 6] x) => (float[] y) <float[N, 7] m> { m = custom.Mystery(x) y = Relu(m) }"""
    assert Graph(parser.parse_model(text)).shape("y") == ("N", 7)


def test_onnxruntime_is_asked_for_the_rank() -> None:
    graph = opaque("p = Constant<value_ints=[0,0,1,1,0,0,1,1]>() y = com.microsoft.Pad(x, p)")
    assert len(graph.shape("y") or ()) == 4


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("com.microsoft.FastGelu(x)", ("N", 6, 4, 5)),
        ("com.microsoft.FusedConv<pads=[1,1,1,1], group=2>(x, w)", ("N", 8, 4, 5)),
        ("com.microsoft.FusedMatMul<transB=1>(x, x)", ("N", 6, 4, 4)),
        ("com.microsoft.NhwcMaxPool<kernel_shape=[2,2]>(x)", ("N", 5, 3, 5)),
        ("com.microsoft.SkipLayerNormalization(x, x, s)", ("N", 6, 4, 5)),
    ],
)
def test_operators_of_onnxruntime(node: str, expected: tuple[Dim, ...]) -> None:
    assert opaque(f"y = {node}").shape("y") == expected


def test_a_constant_condition_decides_an_if() -> None:
    graph = graph_of(
        """yes = Constant<value = bool {1}>()
        y = If (yes) <then_branch = t () => (float[a, b] p) { p = Flatten(x) },
                      else_branch = e () => (float[] q) { q = Identity(x) }>"""
    )
    assert graph.shape("y") == ("N", 120)


def test_local_functions_are_looked_into() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        net (float[N, 6] x) => (float[] y) { y = local.Widen(x) }
        <domain: "local", opset_import: ["" : 17]>
        Widen (a) => (b) { b = Concat<axis=1>(a, a) }"""
    assert Graph(parser.parse_model(text)).shape("y") == ("N", 12)


# -- what a model declares ---------------------------------------------------------------------


def test_declared_shapes_that_contradict_the_inputs_do_not_count() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 6] x) => (float[1, 6] y) <float[1, 6] a> { a = Relu(x) y = Neg(a) }"""
    graph = Graph(parser.parse_model(text))
    assert graph.shape("a") == graph.shape("y") == ("N", 6)
    assert graph.stale == {"a", "y"}


def test_zero_and_minus_one_stand_for_open_sizes() -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> net (float[0, 6] x) => (float[] y) {y = Relu(x)}'
    )
    for written in (0, -1):
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = written
        shape = Graph(model).shape("y")
        assert shape is not None
        assert isinstance(shape[0], str)
        assert shape[1] == 6


def test_an_input_of_open_rank_gets_that_of_the_weights() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        net (float[] x, float[8,3,3,3] w, float[1,3,1,1] m) => (float[] y)
        { s = Sub(x, m) c = Cast<to=1>(s) y = Conv(c, w) }"""
    assert len(Graph(parser.parse_model(text)).shape("x") or ()) == 4


def test_a_thousand_nodes_take_less_than_a_second() -> None:
    """They take 0.05 s where nothing else runs."""
    lines = [
        f"a{i + 1} = Conv<pads=[1,1,1,1]>(r{i}, k) r{i + 1} = Relu(a{i + 1})" for i in range(500)
    ]
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[{OPEN}] r0, float[6,6,3,3] k) => (float[] y) {{
        {" ".join(lines)} y = Neg(r500) }}"""
    graph = Graph(parser.parse_model(text))
    start = time.process_time()
    assert graph.shape("y") == ("N", 6, "H", "W")
    assert time.process_time() - start < 1
