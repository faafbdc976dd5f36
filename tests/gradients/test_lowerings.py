"""Each training-only operator, lowered, against central differences of what it differentiates.

The nodes are written here as onnxruntime-training 1.19 writes them, so this needs no builder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, helper

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.tail import Tail
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import MICROSOFT, Context, FormulaError, find_lowering
from tests.gradients.case import Case, weights
from tests.gradients.cases import CASES
from tests.gradients.checks import FLOAT32_TOLERANCE, gradient_model, onnxruntime_errors

BY_NAME = {case.name: case for case in CASES}
Finish = Callable[[Emitter, str], str]


@dataclass(frozen=True, eq=False)
class Lowering:
    """A training-only node that computes dL/dA.

    Attributes:
        op_type: its operator.
        inputs: names of tensors of the forward model, ``seed`` for dL/dy, ``Shape(A)`` for the
            shape of A as the emitter writes it.
        forward: the forward model.
        attributes: of the node.
        outputs: of the node; ``A_grad`` is the one that is looked at.
        finish: makes dL/dA from that output.
        domain: of the operator.
    """

    op_type: str
    inputs: Sequence[str]
    forward: Case
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: Sequence[str] = ("A_grad",)
    finish: Finish = lambda _emit, name: name
    domain: str = MICROSOFT

    def context(self, graph: Graph, emit: Emitter) -> Context:
        node = helper.make_node(
            self.op_type, self.inputs, self.outputs, domain=self.domain, **self.attributes
        )

        def reader(op_type: str, tensor: str) -> NodeProto | None:
            found = (n for n in graph.nodes if n.op_type == op_type and n.input[0] == tensor)
            return next(found, None)

        return Context(
            emit,
            node,
            [emit.shape_tensor(n[6:-1]) if n.startswith("Shape(") else n for n in self.inputs],
            list(self.outputs),
            graph.opset(),
            forward_node=reader,
            producer=lambda tensor: graph.nodes[graph.producer[tensor]],
            differentiated="A",
        )

    def build(self, graph: Graph, _tail: Tail, emit: Emitter) -> str:
        formula = find_lowering(self.domain, self.op_type)
        assert formula is not None
        results = formula(self.context(graph, emit))
        return self.finish(emit, results[list(self.outputs).index("A_grad")])


def sum_over(emit: Emitter, axes: str) -> str:
    """Return the sum of the seed over computed axes, as onnxruntime-training goes on."""
    known = emit.value(axes)
    if known is None:
        total = emit.node("ReduceSum", ["seed", axes], keepdims=1, noop_with_empty_axes=1)
    else:
        total = emit.reduce_sum("seed", [int(a) for a in known]) if known.size else "seed"
    return emit.reshape(total, emit.shape_tensor("A"))


def stretched(name: str, shape: tuple[int, ...], other: tuple[int, ...], **more: Any) -> Case:
    """Return the sum of A and w."""
    return Case(
        f"BroadcastGradientArgs: {name}", "y = Add(A, w)", shape, inputs={"w": other}, **more
    )


_CONV = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
_POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
_SHAPES = {"inputs": ("Shape(A)", "Shape(w)"), "outputs": ("A_grad", ""), "finish": sum_over}

_LOWER = Case("Trilu: lower", "y = Trilu<upper=0>(A, k)", (2, 3, 3), (14, 26), {"k": np.array(-1)})


def _points(batch: int) -> Case:
    """Return a GatherND that picks the same twice."""
    index = np.array([[[1], [1]], [[0], [2]]]) if batch else np.array([[0, 1], [1, 2], [0, 1]])
    body = f"y = GatherND<batch_dims={batch}>(A, i)" if batch else "y = GatherND(A, i)"
    opsets = (12 if batch else 11, 26)
    return Case(f"GatherNDGrad: {batch}", body, (2, 3, 4), opsets, {"i": index}, images=False)


LOWERINGS = [
    Lowering("ReluGrad", ["seed", "A"], BY_NAME["Relu"]),
    Lowering("ReluGrad", ["seed", "y"], BY_NAME["Relu"]),
    Lowering("SigmoidGrad", ["seed", "y"], BY_NAME["Sigmoid"]),
    Lowering("TanhGrad", ["seed", "y"], BY_NAME["Tanh"]),
    Lowering("GeluGrad", ["seed", "A"], BY_NAME["Gelu"]),
    Lowering("FastGeluGrad", ["seed", "A"], BY_NAME["Gelu tanh"]),
    Lowering("LeakyReluGrad", ["seed", "y"], BY_NAME["LeakyRelu"]),
    Lowering("LeakyReluGrad", ["seed", "y"], BY_NAME["LeakyRelu 0.3"], {"alpha": 0.3}),
    Lowering("SoftmaxGrad", ["seed", "y"], BY_NAME["Softmax-1 of a map"]),
    Lowering("SoftmaxGrad", ["seed", "y"], BY_NAME["Softmax-1, axis 2"], {"axis": 2}),
    Lowering("LogSoftmaxGrad", ["seed", "y"], BY_NAME["LogSoftmax-11, axis -2"], {"axis": -2}),
    Lowering("SoftmaxGrad_13", ["seed", "y"], BY_NAME["Softmax-13"]),
    Lowering("SoftmaxGrad_13", ["seed", "y"], BY_NAME["Softmax-13, axis 1"], {"axis": 1}),
    Lowering("LogSoftmaxGrad_13", ["seed", "y"], BY_NAME["LogSoftmax-13, axis -2"], {"axis": -2}),
    Lowering(
        "LayerNormalizationGrad",
        ["seed", "A", "s", "mean", "deviation"],
        BY_NAME["LayerNormalization with statistics"],
        outputs=["A_grad", "", ""],
    ),
    Lowering(
        "LayerNormalizationGrad",
        ["seed", "A", "s", "mean", "deviation"],
        BY_NAME["LayerNormalization, axis -2"],
        {"axis": -2, "epsilon": 0.2},
    ),
    Lowering("ConvGrad", ["seed", "A", "w"], BY_NAME["Conv stride 2, pad 1, size 6"], _CONV),
    Lowering(
        "ConvGrad", ["seed", "A", "w"], BY_NAME["Conv depthwise"], {"group": 3, "pads": [1] * 4}
    ),
    Lowering(
        "ConvGrad",
        ["seed", "x", "A"],
        BY_NAME["Conv by its weights, groups, strided"],
        {"strides": [2, 2], "group": 2},
        outputs=["", "A_grad", ""],
    ),
    Lowering(
        "ConvGrad",
        ["seed", "x", "w"],
        Case(
            "ConvGrad: bias",
            "y = Conv(x, w, A)",
            (4,),
            constants={"x": weights(2, 3, 5, 4), "w": weights(4, 3, 3, 2)},
            symbolic=(),
            images=False,
        ),
        outputs=["", "", "A_grad"],
    ),
    Lowering(
        "ConvTransposeGrad",
        ["seed", "x", "A"],
        BY_NAME["ConvTranspose by its weights, groups, dilated"],
        {"strides": [2, 2], "dilations": [2, 1], "group": 2},
        outputs=["", "A_grad", ""],
    ),
    Lowering(
        "AveragePoolGrad", ["seed"], BY_NAME["AveragePool overlapping, padded"], _POOL, domain=""
    ),
    Lowering(
        "MaxPoolGrad",
        ["seed", "i"],
        BY_NAME["MaxPool with indices, storage_order 0"],
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        domain="",
    ),
    Lowering("Scale", ["seed", "k"], BY_NAME["Mul with a scalar, A left"]),
    Lowering("Scale", ["seed", "k"], BY_NAME["Div with a scalar, A left"], {"scale_down": 1}),
    Lowering(
        "Scale",
        ["seed", "w"],
        Case("Scale: by an input", "y = Mul(A, w)", (2, 3), inputs={"w": (1,)}),
    ),
    Lowering(
        "Scale",
        ["seed", "w"],
        Case("Scale: down by an input", "y = Div(A, w)", (2, 3), inputs={"w": (1,)}),
        {"scale_down": 1},
    ),
    Lowering(
        "DivGrad",
        ["seed", "A", "k"],
        BY_NAME["Div with both stretched, A left"],
        outputs=["A_grad", "k_grad"],
    ),
    Lowering(
        "DivGrad",
        ["seed", "k", "A"],
        BY_NAME["Div with both stretched, A right"],
        outputs=["", "A_grad"],
    ),
    Lowering("FusedMatMul", ["seed", "k"], BY_NAME["MatMul of tokens"], {"transB": 1}),
    Lowering("FusedMatMul", ["k", "seed"], BY_NAME["MatMul, right, rank 4"], {"transA": 1}),
    Lowering(
        "FusedMatMul",
        ["seed", "k"],
        Case(
            "FusedMatMul: alpha",
            "m = MatMul(A, k)\n y = Mul(m, a)",
            (2, 3, 4),
            constants={"k": weights(4, 5), "a": 0.4},
        ),
        {"transB": 1, "alpha": 0.4},
    ),
    Lowering(
        "GatherGrad",
        ["A", "k", "seed"],
        Case("GatherGrad", "y = Gather<axis=1>(A, k)", (2, 3, 4), constants={"k": [2, 0, 2]}),
        {"axis": 1},
    ),
    Lowering(
        "GatherElementsGrad",
        ["seed", "Shape(A)", "i"],
        Case(
            "GatherElementsGrad",
            "y = GatherElements<axis=-1>(A, i)",
            (2, 3),
            (11, 26),
            {"i": np.array([[0, 2, 0], [1, 1, 2]])},
            symbolic=(),
            images=False,
        ),
        {"axis": -1},
    ),
    Lowering("GatherNDGrad", ["Shape(A)", "i", "seed"], _points(0)),
    Lowering(
        "GatherNDGrad",
        ["Shape(A)", "i", "seed"],
        _points(1),
        {"batch_dims": 1},
    ),
    Lowering(
        "ConvTransposeGrad",
        ["seed", "A", "w"],
        BY_NAME["ConvTranspose padded unevenly"],
        {"strides": [2, 2], "pads": [1, 0, 0, 1]},
    ),
    Lowering(
        "ResizeGrad",
        ["seed", "A", "", "k"],
        BY_NAME["Resize linear, align_corners"],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    Lowering(
        "ResizeGrad",
        ["seed", "A", "", ""],
        BY_NAME["Resize linear, to sizes"],
        {"mode": "linear"},
    ),
    Lowering("Trilu", ["seed", "k"], _LOWER, {"upper": 0}),
    Lowering(
        "SliceGrad",
        ["seed", "A", "start", "end", "axes", "steps"],
        Case(
            "SliceGrad",
            "y = Slice(A, start, end, axes, steps)",
            (2, 3, 5),
            (10, 26),
            {"start": [-1, 1], "end": [0, 3], "axes": [2, 1], "steps": [-2, 1]},
        ),
    ),
    Lowering(
        "SliceGrad",
        ["seed", "A", "start", "end"],
        Case(
            "SliceGrad without axes",
            "y = Slice(A, start, end)",
            (2, 3),
            (10, 26),
            {"start": [0, 1], "end": [9, 3]},
            images=False,
            symbolic=(),
        ),
    ),
    Lowering("BroadcastGradientArgs", forward=stretched("neither", (2, 3), (0, 3)), **_SHAPES),
    Lowering("BroadcastGradientArgs", forward=stretched("A", (2, 3, 1), (0, 3, 4)), **_SHAPES),
    Lowering(
        "BroadcastGradientArgs",
        forward=stretched("A to more axes", (3, 1), (2, 3, 4), symbolic=(), images=False),
        **_SHAPES,
    ),
    Lowering("BroadcastGradientArgs", forward=stretched("the other", (2, 3, 4), (3, 1)), **_SHAPES),
    Lowering(
        "BroadcastGradientArgs",
        forward=stretched(
            "known at run time", (2, 1, 4), (0, 3, 4), symbolic=(0, 1, 2), opsets=(13, 26)
        ),
        **_SHAPES,
    ),
    Lowering(
        "BroadcastGradientArgs",
        forward=stretched(
            "known at run time, more axes",
            (1, 4),
            (2, 3, 4),
            symbolic=(0,),
            images=False,
            opsets=(13, 26),
        ),
        **_SHAPES,
    ),
]


@pytest.mark.parametrize("lowering", LOWERINGS, ids=lambda c: f"{c.op_type}: {c.forward.name}")
def test_lowering(lowering: Lowering) -> None:
    errors = onnxruntime_errors(lowering.forward, lowering.build)
    assert {opset: e for opset, e in errors.items() if e >= FLOAT32_TOLERANCE} == {}


REFUSALS = [
    (
        Lowering("FusedMatMul", ["seed", "k"], BY_NAME["MatMul of tokens"], {"transBatchA": 1}),
        "transBatchA and transBatchB are not covered",
    ),
    (
        Lowering(
            "BroadcastGradientArgs",
            forward=stretched(
                "known at run time, opset 12", (2, 1, 4), (0, 3, 4), symbolic=(0, 1), opsets=(7, 12)
            ),
            **_SHAPES,
        ),
        "which axes were broadcast is only known at run time",
    ),
    (
        Lowering(
            "BroadcastGradientArgs",
            ("Shape(A)", "w"),
            Case(
                "BroadcastGradientArgs of a shape from outside",
                "y = Neg(A)",
                (2, 3),
                (13, 26),
                inputs={"w": (2,)},
            ),
        ),
        "the ranks of its operands are unknown",
    ),
]


@pytest.mark.parametrize(("lowering", "reason"), REFUSALS, ids=lambda v: getattr(v, "op_type", ""))
def test_refusal(lowering: Lowering, reason: str) -> None:
    case = lowering.forward
    with pytest.raises(FormulaError, match=reason):
        gradient_model(case, np.float32, case.main_opset, build=lowering.build)


def test_max_pooling_without_its_forward_node_is_refused() -> None:
    lowering = next(case for case in LOWERINGS if case.op_type == "MaxPoolGrad")

    def build(graph: Graph, _tail: Tail, emit: Emitter) -> str:
        context = lowering.context(graph, emit)
        context.producer = lambda _tensor: None
        formula = find_lowering("", "MaxPoolGrad")
        assert formula is not None
        return formula(context)[0]

    with pytest.raises(FormulaError, match="its forward MaxPool is missing"):
        gradient_model(lowering.forward, np.float32, 13, build=build)
