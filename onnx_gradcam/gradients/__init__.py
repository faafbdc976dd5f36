"""Gradient formulas: one per operator, written once, in standard ONNX operators.

Importing the package fills the tables of `registry`; each family has a file of its own.
"""

from onnx_gradcam.gradients import (
    activations,
    arithmetic,
    attention,
    conv,
    conv_transpose,
    einsum,
    elementwise,
    indexing,
    linear,
    max_pooling,
    normalization,
    padding,
    pooling,
    quantization,
    reduction,
    resize,
    scatter,
    shape,
    slicing,
)

__all__ = [
    "activations",
    "arithmetic",
    "attention",
    "conv",
    "conv_transpose",
    "einsum",
    "elementwise",
    "indexing",
    "linear",
    "max_pooling",
    "normalization",
    "padding",
    "pooling",
    "quantization",
    "reduction",
    "resize",
    "scatter",
    "shape",
    "slicing",
]
