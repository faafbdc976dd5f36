from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.graph import Graph, describe
from tests.export.networks import NETWORKS, network


def graph_of(body: str, opset: int = 17) -> Graph:
    text = f"""<ir_version: 8, opset_import: ["" : {opset}, "custom" : 2]>
        net (float[N, 3, 8, 6] x) => (float[] y) {{ {body} }}"""
    return Graph(parser.parse_model(text))


def test_who_makes_and_who_reads() -> None:
    graph = graph_of("a = Relu(x)\n b = Neg(a)\n y = Add(a, b)")
    assert graph.producer == {"a": 0, "b": 1, "y": 2}
    assert graph.consumers == {"x": [0], "a": [1, 2], "b": [2]}
    assert graph.outputs == ["y"]
    assert [i.name for i in graph.inputs] == ["x"]


def test_versions_of_operator_sets() -> None:
    graph = graph_of("y = Relu(x)", opset=13)
    assert (graph.opset(), graph.opset("ai.onnx"), graph.opset("custom")) == (13, 13, 2)
    assert graph.opset("com.microsoft") == 0


def test_inputs_with_a_default_are_no_inputs() -> None:
    net = NETWORKS["EfficientNet"]
    model = network(net.body, net.weights, ir_version=3, opset=9)
    assert len(model.graph.input) == 5
    assert [i.name for i in Graph(model).inputs] == ["image"]


def test_names_of_tensors_and_nodes() -> None:
    model = network("y = Mul(image, w)", {"w": (1,)}, scores="float[N, 3, 8, 8] y")
    model.graph.node[0].name = "/scale"
    assert Graph(model).names == {"image", "w", "y", "/scale"}


def test_what_sub_graphs_read_counts() -> None:
    graph = graph_of(
        """a = Relu(x)
        c = ReduceSum<keepdims=0>(x)
        k = Cast<to=9>(c)
        y = If (k) <then_branch = g1 () => (float[] t) { t = Neg(a) },
                    else_branch = g2 () => (float[] e) { i = Neg(x)  e = Add(i, i) }>"""
    )
    assert sorted(graph.reads(graph.nodes[3])) == ["a", "k", "x"]
    assert graph.consumers["a"] == [3]
    assert graph.consumers["x"] == [0, 1, 3]


def test_types_are_inferred() -> None:
    graph = graph_of(
        "a = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(x)\n s = Shape(a)\n y = Relu(a)"
    )
    assert graph.shape("a") == ("N", 3, 4, 3)
    assert graph.type_of("s").dtype == TensorProto.INT64  # type: ignore[union-attr]
    assert graph.is_float("a")
    assert not graph.is_float("s")
    assert graph.type_of("nobody") is None


def test_an_unknown_type_is_taken_to_be_float() -> None:
    graph = graph_of("a = custom.Mystery(x)\n y = Relu(a)")
    assert graph.type_of("a") is None
    assert graph.is_float("a")


def test_large_weights_do_not_weigh_on_inference() -> None:
    model = network(
        "y = MatMul(image, w)", {"w": (64, 64)}, image="float[N, 64] image", scores="float[P, Q] y"
    )
    fetched = []

    def values(tensor: TensorProto) -> np.ndarray:
        fetched.append(tensor.name)
        return numpy_helper.to_array(tensor)

    graph = Graph(model, values)
    assert graph.shape("y") == ("N", 64)
    assert fetched == []
    assert graph.constant("w") is not None
    assert fetched == ["w"]


def test_what_shape_inference_refuses_is_refused() -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["c" : 1]> net (float[2] x) => (float[] y) {y = Relu(x)}'
    )
    reason = "shape inference fails on the model: .*No opset import for domain"
    with pytest.raises(UnsupportedModelError, match=reason):
        _ = Graph(model).types


# -- constants ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("k = Constant<value_ints=[4, 2]>()", [4, 2]),
        ("k = Constant<value=float[2] {0.5, 1.5}>()", [0.5, 1.5]),
        ("a = Constant<value_ints=[4, 2]>()\n k = Mul(a, a)", [16, 4]),
        ("s = Shape<start=1>(x)\n k = Identity(s)", [3, 8, 6]),
        ("s = Shape(x)\n i = Constant<value_int=3>()\n k = Gather(s, i)", 6),
        (
            """s = Shape(x)
            i = Constant<value_int=-2>()
            h = Gather(s, i)
            two = Constant<value_int=2>()
            k = Div(h, two)""",
            4,
        ),
        (
            """s = Shape(x)
            a = Constant<value_ints=[2]>()
            b = Constant<value_ints=[4]>()
            k = Slice(s, a, b)""",
            [8, 6],
        ),
        (
            """s = Shape(x)
            i = Constant<value_ints=[1]>()
            c = Gather(s, i)
            m = Constant<value_ints=[-1]>()
            k = Concat<axis=0>(m, c)""",
            [-1, 3],
        ),
        ("s = Constant<value_ints=[2, 2]>()\n k = ConstantOfShape(s)", [[0.0, 0.0], [0.0, 0.0]]),
    ],
)
def test_constants(body: str, value: object) -> None:
    found = graph_of(f"{body}\n y = Relu(x)").constant("k")
    assert found is not None
    np.testing.assert_array_equal(found, np.asarray(value))


@pytest.mark.parametrize(
    "body",
    [
        "k = Relu(x)",
        "k = Shape(x)",
        "s = Shape(x)\n i = Constant<value_int=0>()\n k = Gather(s, i)",
        "k = RandomNormal<shape=[2]>()",
        "s = Constant<value_ints=[300, 300]>()\n k = ConstantOfShape(s)",
        "k = custom.Mystery()",
    ],
)
def test_what_is_no_constant(body: str) -> None:
    assert graph_of(f"{body}\n y = Relu(x)").constant("k") is None


@pytest.mark.parametrize(("opset", "rows"), [(11, 2), (13, 4)])
def test_constants_are_computed_as_the_opset_says(opset: int, rows: int) -> None:
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        g (float[2, 2, 3] x) => (float[2, 2, 3] y) {{
            k = Softmax(w)
            y = Mul(x, k)
        }}"""
    )
    weights = np.array([[[1, -np.inf, 0]] * 2] * 2, np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    found = Graph(model).constant("k")
    assert found is not None
    assert found.sum() == pytest.approx(rows)


def test_a_tensor_nobody_makes_is_no_constant() -> None:
    assert graph_of("y = Relu(x)").constant("nobody") is None


# -- reachability ------------------------------------------------------------------------------


def test_gradients_do_not_flow_through_integers() -> None:
    graph = graph_of(
        """a = Relu(x)
        s = Shape(a)
        g = GlobalAveragePool(x)
        e = Expand(g, s)
        b = Greater(a, g)
        y = Where(b, e, g)"""
    )
    assert graph.depends_on(["a"]) == {"a"}
    assert graph.depends_on(["g"]) == {"g", "e", "y"}
    assert graph.leads_to("y") == {"x", "a", "s", "g", "e", "b", "y"}
    assert graph.leads_to("b") == {"x", "a", "g", "b"}


def test_gradients_flow_into_sub_graphs() -> None:
    graph = graph_of(
        """a = Relu(x)
        c = ReduceSum<keepdims=0>(x)
        k = Cast<to=9>(c)
        y = If (k) <then_branch = g1 () => (float[] t) { t = Neg(a) },
                    else_branch = g2 () => (float[] e) { e = Neg(x) }>"""
    )
    assert graph.depends_on(["a"]) == {"a", "y"}


def test_nodes_are_described_by_name_or_output() -> None:
    named = helper.make_node("Conv", ["x", "w"], ["y"], name="/layer1/conv")
    assert describe(named, 17) == "ai.onnx::Conv-17 (node '/layer1/conv')"
    nameless = helper.make_node("Gelu", ["x"], ["", "y"], domain="com.microsoft")
    assert describe(nameless, 1) == "com.microsoft::Gelu-1 (node 'y')"
