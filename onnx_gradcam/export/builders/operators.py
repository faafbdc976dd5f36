"""Which operators onnxruntime-training 1.19.2 differentiates, as they are or once prepared."""

from __future__ import annotations

from onnx_gradcam.export.builders.preparation import RULES

_NATIVE = frozenset(
    {
        *("Abs", "Add", "AveragePool", "Cast", "Clip", "Concat", "Conv", "ConvTranspose", "Div"),
        *("Dropout", "Erf", "Exp", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"),
        *("Gelu", "Gemm", "GlobalAveragePool", "Identity", "LayerNormalization", "LeakyRelu"),
        *("Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Pad", "Pow"),
        *("Reciprocal", "ReduceL2", "ReduceLogSumExp", "ReduceMean", "ReduceSum", "Relu"),
        *("Reshape", "Resize", "ScatterElements", "ScatterND", "Sigmoid", "Slice", "Softmax"),
        *("Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "TopK", "Transpose", "Unsqueeze"),
        "Where",
    }
)
"""Measured: its GradientGraphBuilder builds a graph for a model of this operator alone."""


def training_can_differentiate(domain: str, op_type: str) -> bool:
    """Return whether onnxruntime-training has a gradient for an operator."""
    return domain in {"", "ai.onnx"} and (op_type in _NATIVE or op_type in RULES)
