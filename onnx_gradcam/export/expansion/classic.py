"""Linear classifiers and scalings of scikit-learn pipelines: the domain ``ai.onnx.ml``.

Source: ONNX, ``docs/Operators-ml.md``; what that leaves open is as onnxruntime does it.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from onnx_gradcam.export.expansion.registry import expansion
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError

DOMAIN = "ai.onnx.ml"

_TRANSFORMS = {"NONE": "", "SOFTMAX": "Softmax", "LOGISTIC": "Sigmoid"}


@expansion("LinearClassifier", domain=DOMAIN)
def _linear_classifier(ctx: Context) -> list[str]:
    """Scores = post_transform(X W^T + b), W ``(K, C)``; Y = the label of the highest.

    Raises:
        FormulaError: a transform beside SOFTMAX and LOGISTIC, or one score for two classes.
    """
    emit = ctx.emit
    integers = ctx.attribute("classlabels_ints", [])
    strings = ctx.attribute("classlabels_strings", [])
    count = len(integers or strings)
    coefficients = np.array(ctx.attribute("coefficients", []), np.float32)
    intercepts = np.array(ctx.attribute("intercepts", None) or np.zeros(count), np.float32)
    if len(intercepts) != count or not count or coefficients.size % count:
        raise FormulaError(f"{len(intercepts)} scores for {count} classes")
    transform = ctx.attribute("post_transform", "NONE")
    if transform not in _TRANSFORMS:
        raise FormulaError(f"its post_transform {transform} is not covered")
    weights = coefficients.reshape(count, -1)
    operands = [emit.constant(weights.T.copy()), emit.constant(intercepts)]
    scores = emit.node("Gemm", [_matrix(ctx), *operands], hint="scores")
    highest = emit.node("ArgMax", [scores], axis=1, keepdims=0)
    labels = emit.ints(integers) if integers else _strings(emit, strings)
    label = emit.node("Gather", [labels, highest], hint="label")
    operator = _TRANSFORMS[transform]
    if operator == "Softmax":
        scores = emit.node("Softmax", [scores], axis=1)
    elif operator:
        scores = emit.unary(operator, scores)
    return [label, scores]


def _strings(emit: Emitter, values: list[bytes]) -> str:
    kind = TensorProto.STRING
    tensor = TensorProto(name="labels", data_type=kind, dims=[len(values)], string_data=values)
    return emit.node("Constant", [], dtype=kind, value=tensor)


@expansion("Normalizer", domain=DOMAIN)
def _normalizer(ctx: Context) -> list[str]:
    """Y = X / |X| per row, |X| the sum of its absolute values (L1) or its length (L2).

    A row of length zero stays. Behind a softmax the sum is one, so Y = X.

    Raises:
        FormulaError: |X| is the largest element.
    """
    emit, x, norm = ctx.emit, _matrix(ctx), ctx.attribute("norm", "MAX")
    if norm == "L1" and _is_softmax(ctx):
        return [x]
    if norm == "L1":
        size = emit.reduce_sum(emit.unary("Abs", x), [1])
    elif norm == "L2":
        size = emit.unary("Sqrt", emit.reduce_sum(emit.mul(x, x), [1]))
    else:
        raise FormulaError(f"the norm {norm} is not covered")
    zero = emit.node("Not", [emit.greater(size, 0.0)])
    return [emit.div(x, emit.where(zero, 1.0, size))]


def _is_softmax(ctx: Context) -> bool:
    node = ctx.producer(ctx.inputs[0])
    if node is None:
        return False
    if node.op_type == "LinearClassifier":
        return any(a.name == "post_transform" and a.s == b"SOFTMAX" for a in node.attribute)
    return node.op_type == "Softmax"


@expansion("Scaler", domain=DOMAIN)
def _scaler(ctx: Context) -> list[str]:
    """Y = (X - offset) scale; one of each, or one per feature."""
    emit = ctx.emit
    offset, scale = (
        emit.constant(np.array(ctx.attribute(name, default), np.float32))
        for name, default in (("offset", [0.0]), ("scale", [1.0]))
    )
    return [emit.mul(emit.sub(_matrix(ctx), offset), scale)]


@expansion("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor", domain=DOMAIN)
def _trees(_: Context) -> list[str]:
    """Refused: trees are step functions.

    Raises:
        FormulaError: always.
    """
    raise FormulaError("trees have no gradient: their scores are constant between thresholds")


def _matrix(ctx: Context) -> str:
    """Return X ``(N, C)`` in float32, the type of the results.

    Raises:
        FormulaError: X has another number of axes.
    """
    x = ctx.inputs[0]
    if len(ctx.shape(x)) != 2:
        raise FormulaError("its input is no matrix")
    return x if ctx.emit.dtype(x) == TensorProto.FLOAT else ctx.emit.cast(x, TensorProto.FLOAT)
