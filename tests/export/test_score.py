from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, parser

from onnx_gradcam.contract import CLASS_INPUT
from onnx_gradcam.errors import ScoreNotFoundError, UnsupportedModelError
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.score import Score, find_score, format_shape
from onnx_gradcam.export.seed import emit_seed
from onnx_gradcam.gradients.emitter import Emitter, TensorType

HEAD = "pooled = GlobalAveragePool(image)\n flat = Flatten(pooled)\n"


def score_of(body: str, outputs: str, name: str | None = None, opset: int = 17) -> Score:
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
        net (float[N, 5, 8, 8] image, float[5, 7] w) => ({outputs}) {{ {HEAD} {body} }}"""
    return find_score(Graph(parser.parse_model(text)), name)


@pytest.mark.parametrize("activation", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_the_scores_are_those_before_the_final_activation(activation: str) -> None:
    score = score_of(f"logits = MatMul(flat, w)\n y = {activation}(logits)", "float[N, 7] y")
    assert score == Score("logits", "y", 1, 7, 2, activation)


def test_scores_without_an_activation_are_the_output() -> None:
    score = score_of("y = MatMul(flat, w)", "float[N, 7] y")
    assert score == Score("y", "y", 1, 7, 2, "")


@pytest.mark.parametrize(
    "after",
    [
        "y = Identity(p)",
        "y = Flatten(p)",
        "y = Dropout(p)",
        "c = Cast<to=11>(p)\n y = Cast<to=1>(c)",
        "t = Transpose<perm=[1, 0]>(p)\n y = Transpose<perm=[1, 0]>(t)",
        "axes = Constant<value_ints=[2]>()\n u = Unsqueeze(p, axes)\n y = Squeeze(u, axes)",
        "shape = Constant<value_ints=[-1, 7]>()\n y = Reshape(p, shape)",
        "s = Constant<value_float=0.1>()\n z = Constant<value=uint8 {0}>()\n"
        "q = QuantizeLinear(p, s, z)\n y = DequantizeLinear(q, s, z)",
    ],
)
def test_what_follows_the_activation_is_looked_through(after: str) -> None:
    score = score_of(f"logits = MatMul(flat, w)\n p = Softmax(logits)\n {after}", "float[N, 7] y")
    assert score == Score("logits", "y", 1, 7, 2, "Softmax")


def test_an_activation_that_is_not_the_last_step_stays() -> None:
    body = "logits = MatMul(flat, w)\n p = Softmax(logits)\n y = Mul(p, p)"
    assert score_of(body, "float[N, 7] y").tensor == "y"


@pytest.mark.parametrize(
    ("body", "shape", "axis"),
    [
        ("y = GlobalAveragePool(image)", "N, 5, 1, 1", 1),
        ("p = GlobalAveragePool(image)\n y = Transpose<perm=[0, 2, 3, 1]>(p)", "N, 1, 1, 5", 3),
        ("a = Constant<value_ints=[1]>()\n y = Unsqueeze(flat, a)", "N, 1, 5", 2),
    ],
)
def test_axes_of_size_one_are_no_class_axis(body: str, shape: str, axis: int) -> None:
    score = score_of(body, f"float[{shape}] y")
    assert (score.class_axis, score.num_classes, score.rank) == (axis, 5, len(shape.split(",")))


def test_one_class() -> None:
    body = """a = Constant<value_ints=[1]>()
        m = ReduceMean<axes=[1]>(flat)
        y = Sigmoid(m)"""
    assert score_of(body, "float[N, 1] y") == Score("m", "y", 1, 1, 2, "Sigmoid")


def test_outputs_that_are_no_scores_are_left_out() -> None:
    body = """logits = MatMul(flat, w)
        y = Softmax(logits)
        best = ArgMax<axis=1>(y)
        map = Relu(image)
        norm = ReduceSum<keepdims=0>(image)"""
    outputs = "float[N, 5, 8, 8] map, int64[N, 1] best, float norm, float[N, 7] y"
    assert score_of(body, outputs).output == "y"


def test_several_scores_need_a_name() -> None:
    body = "y = MatMul(flat, w)\n auxiliary = MatMul(flat, w)"
    outputs = "float[N, 7] y, float[N, 7] auxiliary"
    with pytest.raises(UnsupportedModelError, match=r"several .* 'y', 'auxiliary'; use --score"):
        score_of(body, outputs)
    assert score_of(body, outputs, "auxiliary").tensor == "auxiliary"


def test_a_named_tensor_belongs_to_the_output_that_depends_on_it() -> None:
    body = "logits = MatMul(flat, w)\n p = Softmax(logits)\n y = Mul(p, p)"
    assert score_of(body, "float[N, 7] y", "logits") == Score("logits", "y", 1, 7, 2)
    assert score_of(body, "float[N, 7] y", "flat") == Score("flat", "y", 1, 5, 2)


def test_a_named_output_is_taken_before_its_activation() -> None:
    body = "logits = MatMul(flat, w)\n y = Softmax(logits)"
    assert score_of(body, "float[N, 7] y", "y").tensor == "logits"


def test_a_wrong_name_comes_with_near_ones() -> None:
    with pytest.raises(ScoreNotFoundError, match="no output or tensor 'logit'; did you mean 'log"):
        score_of("logits = MatMul(flat, w)\n y = Softmax(logits)", "float[N, 7] y", "logit")


@pytest.mark.parametrize(
    ("body", "outputs", "name", "reason"),
    [
        ("y = ArgMax<axis=1>(flat)", "int64[N, 1] y", None, "the model has no float output; use"),
        ("y = Relu(image)", "float[N, 5, 8, 8] y", None,
         r"'y' of shape \(N, 5, 8, 8\) has more than a class axis"),
        ("y = ReduceSum<keepdims=0>(flat)", "float y", None, r"\(\) has no class axis beside the"),
        ("z = MatMul(flat, w)\n y = Transpose(z)", "float[7, N] y", None,
         "the number of classes of 'y' is not known at export"),
        ("s = Shape(image)\n y = Relu(flat)", "float[N, 5] y", "s",
         "no output of the model depends on the score 's'"),
        ("b = ArgMax<axis=1>(flat)\n y = Relu(flat)", "float[N, 5] y, int64[N, 1] b", "b",
         "'b' is not a float tensor and has no gradient"),
    ],
)  # fmt: skip
def test_what_is_no_score(body: str, outputs: str, name: str | None, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        score_of(body, outputs, name)


def test_sizes_without_a_name_are_shown_as_unknown() -> None:
    assert format_shape(("N", 5, None, "unk__3")) == "(N, 5, ?, ?)"


# -- the seed ----------------------------------------------------------------------------------


def seed_model(
    shape: tuple[str | int, ...], class_axis: int, opset: int, dtype: int, fixed: int | None
) -> ModelProto:
    count = int(shape[class_axis])
    emit = Emitter(opset, {"y": TensorType(dtype, shape)}, lambda _name: None, "cam/", ["y"])
    seed = emit_seed(emit, Score("y", "y", class_axis, count, len(shape)), fixed)
    emit.node("Identity", [seed.seed], output="seed")
    emit.node("Identity", [seed.classes], output="classes")
    inputs = [helper.make_tensor_value_info("y", dtype, shape)]
    if fixed is None:
        inputs.append(helper.make_tensor_value_info(CLASS_INPUT, TensorProto.INT64, ["M"]))
    outputs = [
        helper.make_tensor_value_info("seed", dtype, shape),
        helper.make_tensor_value_info("classes", TensorProto.INT64, ["N"]),
    ]
    graph = helper.make_graph(emit.nodes, "seed", inputs, outputs, emit.initializers)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def run_seed(
    y: np.ndarray,
    classes: list[int] | None,
    class_axis: int = 1,
    opset: int = 17,
    fixed: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    dtype = helper.np_dtype_to_tensor_dtype(y.dtype)
    shape = ("N", *y.shape[1:])
    session = onnxruntime.InferenceSession(
        seed_model(shape, class_axis, opset, dtype, fixed).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    feeds = {"y": y}
    if classes is not None:
        feeds[CLASS_INPUT] = np.array(classes, np.int64)
    seed, chosen = session.run(["seed", "classes"], feeds)
    return seed, chosen


Y = np.array([[0.1, 0.4, 0.3, 0.2], [0.9, -2.0, 0.95, 0.5], [0.0, 0.0, -1.0, 7.0]], np.float32)
BY_RANK = np.argsort(-Y, axis=1, kind="stable")
OPSETS = [7, 8, 9, 10, 11, 12, 13, 17, 18, 21, 26]


@pytest.mark.parametrize("opset", OPSETS)
def test_classes_and_ranks(opset: int) -> None:
    requests = [[0, 1, 2], [3, 3, 3], [-1, -1, -1], [-4, -2, 1], [-3, 0, -3], [2], [-1], [-4]]
    for request in requests:
        seed, classes = run_seed(Y, request, opset=opset)
        rows = np.broadcast_to(request, 3)
        wanted = [c if c >= 0 else BY_RANK[i, -c - 1] for i, c in enumerate(rows)]
        assert classes.tolist() == wanted
        assert classes.dtype == np.int64
        np.testing.assert_array_equal(seed, np.eye(4, dtype=np.float32)[wanted])


@pytest.mark.parametrize("opset", [7, 10, 11, 17, 26])
def test_among_equal_scores_the_lower_index_is_the_higher(opset: int) -> None:
    y = np.array([[1.0, 3.0, 3.0, 1.0], [2.0, 2.0, 2.0, 2.0]], np.float32)
    ranks = [run_seed(y, [-k], opset=opset)[1].tolist() for k in (1, 2, 3, 4)]
    assert ranks == [[1, 0], [2, 1], [0, 2], [3, 3]]


@pytest.mark.parametrize("opset", [7, 11, 17])
@pytest.mark.parametrize("fixed", [2, -2])
def test_a_fixed_class_needs_no_input(fixed: int, opset: int) -> None:
    seed, classes = run_seed(Y, None, opset=opset, fixed=fixed)
    wanted = [2, 2, 2] if fixed == 2 else BY_RANK[:, 1].tolist()
    assert classes.tolist() == wanted
    np.testing.assert_array_equal(seed, np.eye(4, dtype=np.float32)[wanted])


@pytest.mark.parametrize("opset", [7, 13, 21])
@pytest.mark.parametrize(("shape", "axis"), [((3, 4, 1, 1), 1), ((3, 1, 1, 4), 3), ((3, 1, 4), 2)])
def test_the_seed_has_the_shape_of_the_scores(
    shape: tuple[int, ...], axis: int, opset: int
) -> None:
    seed, classes = run_seed(Y.reshape(shape), [1, -1, -2], class_axis=axis, opset=opset)
    assert seed.shape == shape
    assert classes.tolist() == [1, 2, 0]
    np.testing.assert_array_equal(seed.reshape(3, 4), np.eye(4, dtype=np.float32)[[1, 2, 0]])


@pytest.mark.parametrize("opset", [10, 11, 17])
@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_other_float_types(dtype: type, opset: int) -> None:
    seed, classes = run_seed(Y.astype(dtype), [-1, -2, 1], opset=opset)
    assert classes.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(seed, np.eye(4, dtype=dtype)[[1, 0, 1]])


def test_one_class_has_one_rank() -> None:
    y = np.array([[0.5], [-3.0]], np.float32)
    for request in ([0, 0], [-1, -1], [-1]):
        seed, classes = run_seed(y, request)
        assert classes.tolist() == [0, 0]
        assert seed.tolist() == [[1.0], [1.0]]


def test_scores_that_are_no_numbers_give_a_class_all_the_same() -> None:
    y = np.array([[np.nan, 1.0, 2.0], [-np.inf, np.inf, 0.0]], np.float32)
    seed, classes = run_seed(y, [-1])
    assert classes[1] == 1
    assert seed.sum(axis=1).tolist() == [1.0, 1.0]
