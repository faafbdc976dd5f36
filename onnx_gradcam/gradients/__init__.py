"""Gradient formulas: one per operator, written once, in standard ONNX operators.

Importing the package fills the tables of `registry`; each family has a file of its own.
"""

from onnx_gradcam.gradients import (
    activations,
    arithmetic,
    conv,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    reduction,
    shape,
)

__all__ = [
    "activations",
    "arithmetic",
    "conv",
    "elementwise",
    "indexing",
    "linear",
    "normalization",
    "pooling",
    "reduction",
    "shape",
]
