"""A node of one opset, written in the form of another, means the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, helper, numpy_helper, parser

from onnx_gradcam.export.builders.standard_nodes import rewrite_standard_node
from onnx_gradcam.gradients.emitter import Emitter, TensorType
from onnx_gradcam.gradients.registry import Context, FormulaError

Array = np.ndarray[Any, np.dtype[Any]]

X = np.random.default_rng(4).standard_normal((2, 3, 4)).astype(np.float32)
ALL = (7, 8, 9, 10, 11, 13, 18, 21, 26)


@dataclass(frozen=True, eq=False)
class Case:
    """A node of opset 17 (or 18 and more) and what it reads.

    Attributes:
        text: the node, ONNX text; ``x`` is X, ``y`` its first output.
        constants: int64 lists, or float arrays.
        opset: of the text.
        targets: opsets to write it in.
        symbolic: whether the sizes of x are symbols.
    """

    text: str
    constants: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    targets: tuple[int, ...] = ALL
    symbolic: bool = False


CASES = {
    "copied": Case("y = LeakyRelu<alpha=0.3>(x)"),
    "a default that came later": Case(
        "y = MaxPool<kernel_shape=[2], ceil_mode=0, storage_order=0>(x)"
    ),
    "a neutral attribute that came later": Case(
        "y = AveragePool<kernel_shape=[2], dilations=[1]>(x)", opset=19
    ),
    "several outputs": Case("y, i = MaxPool<kernel_shape=[2]>(x)", targets=(8, 11, 21)),
    "Cast": Case("y = Cast<to=11>(x)"),
    "Cast to the same": Case("y = Cast<to=1>(x)"),
    "Clip": Case("y = Clip(x, low, high)", {"low": np.array(-0.5), "high": np.array(0.7)}),
    "Clip, one bound": Case("y = Clip(x, , high)", {"high": np.array(0.7)}),
    "Constant": Case("k = Constant<value=float[4] {1.0, 2.0, 3.0, 4.0}>()\n y = Mul(x, k)"),
    "Constant of a float": Case("k = Constant<value_float=0.3>()\n y = Mul(x, k)"),
    "Constant of ints": Case("k = Constant<value_ints=[0, 2]>()\n y = Unsqueeze(x, k)"),
    "Equal": Case("y = Equal(x, x)"),
    "Equal of some": Case("y = Equal(x, k)", {"k": X[0]}),
    "Expand": Case("y = Expand(x, k)", {"k": [2, 3, 4]}),
    "Expand to more axes": Case("y = Expand(x, k)", {"k": [5, 2, 3, 4]}),
    "Gemm": Case(
        "m = ReduceSum<keepdims=0>(x, k)\n y = Gemm<transA=1, alpha=0.5>(m, m)", {"k": [0]}
    ),
    "Gemm with bias": Case(
        "m = ReduceSum<keepdims=0>(x, k)\n y = Gemm<transB=1, beta=2.0>(m, m, b)",
        {"k": [0], "b": np.array([1.0, 2.0, 3.0])},
    ),
    "GreaterOrEqual": Case("y = GreaterOrEqual(x, k)", {"k": X[0]}),
    "LessOrEqual": Case("y = LessOrEqual(x, k)", {"k": X[0]}),
    "Identity": Case("i = Identity(x)\n y = Neg(i)"),
    "Pad": Case("y = Pad(x, k, f)", {"k": [0, 1, 2, 0, 0, 1], "f": np.array(0.5)}),
    "Pad, cropping": Case("y = Pad(x, k)", {"k": [0, -1, 2, 0, 0, -1]}),
    "ReduceMean": Case("y = ReduceMean<axes=[0, -1], keepdims=0>(x)"),
    "ReduceMean of all": Case("y = ReduceMean(x)"),
    "ReduceMean-18": Case("y = ReduceMean(x, k)", {"k": [1]}, opset=18),
    "ReduceSum": Case("y = ReduceSum(x, k)", {"k": [0, 2]}),
    "ReduceSum, fewer axes": Case("y = ReduceSum<keepdims=0>(x, k)", {"k": [1]}),
    "ReduceSum of all": Case("y = ReduceSum<keepdims=0>(x)"),
    "ReduceSum of none": Case(
        "s = ReduceSum<noop_with_empty_axes=1>(x, k)\n y = Neg(s)", {"k": []}
    ),
    "ReduceSum-12": Case("y = ReduceSum<axes=[1]>(x)", opset=12),
    "Shape": Case("y = Shape(x)"),
    "Shape of unknown size": Case("y = Shape(x)", symbolic=True),
    "Shape in part": Case("y = Shape<start=1, end=3>(x)", targets=(15, 26), symbolic=True),
    "Sign": Case("y = Sign(x)"),
    "Slice": Case("y = Slice(x, a, b, axes)", {"a": [1, 0], "b": [3, 2], "axes": [2, 1]}),
    "Slice without axes": Case("y = Slice(x, a, b)", {"a": [0, 1], "b": [1, 9]}),
    "Slice in steps of one": Case(
        "y = Slice(x, a, b, axes, t)", {"a": [1], "b": [3], "axes": [2], "t": [1]}
    ),
    "Slice in steps": Case(
        "y = Slice(x, a, b, axes, t)",
        {"a": [0], "b": [4], "axes": [2], "t": [2]},
        targets=(10, 11, 13, 26),
    ),
    "Split": Case("a, b = Split<axis=2>(x, k)\n y = Sub(b, a)", {"k": [2, 2]}),
    "Split-11": Case("a, b = Split<axis=2, split=[2, 2]>(x)\n y = Sub(b, a)", opset=11),
    "Squeeze": Case("s = Slice(x, a, b)\n y = Squeeze(s, a)", {"a": [0], "b": [1]}),
    "Squeeze-11": Case("s = Unsqueeze<axes=[1]>(x)\n y = Squeeze<axes=[1]>(s)", opset=11),
    "Sum": Case("n = Neg(x)\n y = Sum(x, n, x)"),
    "Unsqueeze": Case("y = Unsqueeze(x, k)", {"k": [0, 2]}),
    "Where": Case("c = Greater(x, k)\n y = Where(c, x, k)", {"k": X[0]}),
    "Max": Case("y = Max(x, k)", {"k": X[0]}, targets=(8, 11, 26)),
}


def rewritten(case: Case, target: int) -> tuple[Emitter, dict[str, str]]:
    """Return the emitter that holds the nodes, and their new names by old name."""
    nodes = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {case.opset}, "com.microsoft" : 1]>
        net (float[2, 3, 4] x) => (float[] y) {{ {case.text} }}"""
    ).graph.node
    values = constants(case)
    shape = ("P", "Q", "R") if case.symbolic else X.shape
    types = {"x": TensorType(1, shape)}
    types |= {
        n: TensorType(helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in values.items()
    }
    emit = Emitter(target, types, values.get, "new/", ["x", *values])
    names: dict[str, str] = {}
    for node in nodes:
        inputs = [names.get(name, name) for name in node.input]
        context = Context(emit, node, inputs, list(node.output), case.opset)
        names |= dict(zip(node.output, rewrite_standard_node(context), strict=True))
    return emit, names


def constants(case: Case) -> dict[str, Array]:
    return {
        name: value.astype(np.float32)
        if isinstance(value, np.ndarray)
        else np.array(value, np.int64)
        for name, value in case.constants.items()
    }


def model_of(
    nodes: list[NodeProto], initializers: dict[str, Array], opset: int, y: str
) -> ModelProto:
    shape = ["P", "Q", "R"]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_empty_tensor_value_info(y)],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: ModelProto) -> Array:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": X})[0])


def emitted(emit: Emitter, case: Case, y: str) -> Array:
    read = {name for node in emit.nodes for name in node.input} | {y}
    values = {t.name: numpy_helper.to_array(t) for t in emit.initializers} | constants(case)
    return run(model_of(emit.nodes, {n: v for n, v in values.items() if n in read}, emit.opset, y))


@pytest.mark.parametrize("name", CASES)
def test_a_node_means_the_same_in_every_opset(name: str) -> None:
    case = CASES[name]
    nodes = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {case.opset}]>
        net (float[2, 3, 4] x) => (float[] y) {{ {case.text} }}"""
    ).graph.node
    wanted = run(model_of(list(nodes), constants(case), case.opset, "y"))
    for target in case.targets:
        emit, names = rewritten(case, target)
        if names["y"] in {"x", *case.constants}:
            np.testing.assert_array_equal(X, wanted)
            continue
        result = emitted(emit, case, names["y"])
        assert result.dtype == wanted.dtype, target
        np.testing.assert_allclose(result, wanted, rtol=1e-6, atol=1e-6, err_msg=str(target))


FOLDED: dict[str, tuple[str, dict[str, Any], Any]] = {
    "Concat": ("y = Concat<axis=0>(a, b)", {"a": [1, 2], "b": [3]}, [1, 2, 3]),
    "Gather": ("y = Gather(a, b)", {"a": [4, 5, 6], "b": [2, 0]}, [6, 4]),
    "Neg": ("y = Neg(a)", {"a": [4, -5]}, [-4, 5]),
    "Add": ("y = Add(a, b)", {"a": [4], "b": [5]}, [9]),
    "Sub": ("y = Sub(a, b)", {"a": [4], "b": [5]}, [-1]),
    "Mul": ("y = Mul(a, b)", {"a": [4], "b": [5]}, [20]),
    "Div": ("y = Div(a, b)", {"a": [9], "b": [4]}, [2]),
    "a size": ("s = Shape(x)\n y = Gather(s, a)", {"a": [1, -1]}, [3, 4]),
    "a ratio of sizes": (
        "r = ReduceSum(x, a)\n p = Size(x)\n q = Size(r)\n y = Div(p, q)",
        {"a": [2]},
        4,
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_arithmetic_on_sizes_is_folded(name: str) -> None:
    text, given, wanted = FOLDED[name]
    emit, names = rewritten(Case(text, given), 13)
    if name == "a ratio of sizes":
        emit.declare("new/ReduceSum", 1, (2, 3, 1))
        node = helper.make_node("Div", ["p", "q"], ["y"])
        context = Context(emit, node, [names["p"], names["q"]], ["y"], 13)
        value = emit.value(rewrite_standard_node(context)[0])
    else:
        value = emit.value(names["y"])
    assert value is not None
    assert value.dtype == np.int64
    np.testing.assert_array_equal(value, wanted)


def test_symbolic_sizes_cancel_in_a_ratio() -> None:
    types = {"x": TensorType(1, ("N", 5, "H", "W")), "y": TensorType(1, ("N", 5, "H", 1))}
    emit = Emitter(13, types, lambda _name: None, "new/")
    sizes = [emit.node("Size", [name]) for name in ("x", "y")]
    node = helper.make_node("Div", sizes, ["r"])
    (result,) = rewrite_standard_node(Context(emit, node, sizes, ["r"], 13))
    assert emit.value(result) is None  # W is known at run time alone
    emit.declare("x", 1, ("N", 5, "H", 7))
    (result,) = rewrite_standard_node(Context(emit, node, sizes, ["r"], 13))
    value = emit.value(result)
    assert value is not None
    assert value.item() == 7


REFUSED = [
    ("y = com.microsoft.QuickGelu(x)", {}, 17, 17, "nothing lowers this operator to standard ones"),
    ("y = HardSwish(x)", {}, 17, 13, "opset 13 has no HardSwish"),
    (
        "y = AveragePool<kernel_shape=[2], dilations=[2]>(x)",
        {},
        21,
        13,
        "opset 13 has no AveragePool with dilations",
    ),
    (
        'y = Pad<mode="reflect">(x, k)',
        {"k": [0, 0, 1, 0, 0, 1]},
        17,
        13,
        "only constant padding of all",
    ),
    ("y = Pad(x, k, , a)", {"k": [1, 1], "a": [2]}, 18, 18, "only constant padding of all axes"),
    ("s = Shape<end=1>(x)\n y = ReduceSum(x, s)", {}, 17, 12, "opset 12 has no Shape with end"),
    (
        "s = Shape(x)\n y = ReduceSum(x, s)",
        {},
        17,
        12,
        "the axes of a sum are only known at run time",
    ),
    ("s = Shape(x)\n y = Slice(x, s, s)", {}, 17, 13, "its bounds must be constant"),
    ("s = Shape(x)\n y = Clip(x, s)", {}, 17, 10, "its min bound must be constant"),
]


@pytest.mark.parametrize(("text", "given", "opset", "target", "reason"), REFUSED)
def test_what_an_opset_cannot_express_is_refused(
    text: str, given: dict[str, Any], opset: int, target: int, reason: str
) -> None:
    with pytest.raises(FormulaError, match=reason):
        rewritten(Case(text, given, opset, symbolic=True), target)
