"""One row for each form of each operator that has an expansion."""

from __future__ import annotations

import math

import numpy as np

from tests.export.expansion.case import Array, Case
from tests.export.expansion.recurrent_cases import RECURRENT
from tests.export.expansion.sample_cases import SAMPLES


def _normal(x: Array, axes: tuple[int, ...], epsilon: float = 1e-5) -> Array:
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon)


def _group_norm(x: Array, gamma: Array, beta: Array, groups: int = 2) -> Array:
    """GroupNorm of (N, H, W, C), then x sigmoid(x)."""
    n, h, w, c = x.shape
    parts = _normal(x.reshape(n, h * w, groups, c // groups), (1, 3))
    y = parts.reshape(x.shape) * gamma + beta
    return y / (1 + np.exp(-y))


def _gelu(x: Array) -> Array:
    return x / 2 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _nhwc_conv(x: Array, w: Array, b: Array, z: Array) -> Array:
    """A convolution of 1 x 1 windows on (N, H, W, C), plus z, cut off below zero."""
    return np.maximum(x @ w[:, :, 0, 0].T + b + z, 0)


def _attention(q: Array, k: Array, v: Array) -> Array:
    """Attention of (N, L, heads, size)."""
    q, k, v = (np.swapaxes(part, 1, 2) for part in (q, k, v))
    mixed = _softmax(q @ np.swapaxes(k, 2, 3) / np.sqrt(q.shape[-1])) @ v
    return np.swapaxes(mixed, 1, 2).reshape(q.shape[0], q.shape[2], -1)


def _packed(x: Array) -> Array:
    return _attention(x[:, :, :, 0], x[:, :, :, 1], x[:, :, :, 2])


def _packed_pairs(x: Array, pairs: Array) -> Array:
    return _attention(x.reshape(2, 5, 2, 4), pairs[:, :, :, 0], pairs[:, :, :, 1])


MAP, TOKENS = (2, 3, 5, 5), (2, 5, 8)
CONV = ((2, 3, 5, 5), (4, 3, 3, 3), (4,))
PADDED = {"pads": [1, 1, 1, 1]}
MASK = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], np.int32)
PLACES = np.array([[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]])
ANGLES = (np.cos(np.arange(16).reshape(8, 2) / 3), np.sin(np.arange(16).reshape(8, 2) / 3))
CUBE = np.broadcast_to(MASK[:, None], (2, 5, 5)).copy()

CASES = (
    # -- convolutions ------------------------------------------------------------------------
    Case("FusedConv Relu", "FusedConv", CONV, {"activation": "Relu", **PADDED}),
    Case("FusedConv without activation or bias", "FusedConv", CONV[:2], {"strides": [2, 2]}),
    Case("FusedConv Tanh, grouped", "FusedConv", ((2, 4, 5, 5), (4, 2, 3, 3)),
         {"activation": "Tanh", "group": 2, "dilations": [2, 2]}),
    Case("FusedConv Sigmoid", "FusedConv", CONV,
         {"activation": "Sigmoid", "auto_pad": "SAME_UPPER"}),
    Case("FusedConv LeakyRelu", "FusedConv", CONV,
         {"activation": "LeakyRelu", "activation_params": [0.2]}),
    Case("FusedConv Clip", "FusedConv", CONV,
         {"activation": "Clip", "activation_params": [-0.5, 2.0]}),
    Case("FusedConv Clip, opset 9", "FusedConv", CONV,
         {"activation": "Clip", "activation_params": [-0.5, 2.0]}, opset=9),
    Case("FusedConv HardSigmoid", "FusedConv", CONV,
         {"activation": "HardSigmoid", "activation_params": [0.1, 0.4]}),
    Case("FusedConv plus Z", "FusedConv", (*CONV, (2, 4, 5, 5)),
         {"activation": "Relu", **PADDED}, variable=(0, 3)),
    Case("NhwcFusedConv", "NhwcFusedConv", ((2, 4, 5, 3), (4, 3, 1, 1), (4,), (2, 4, 5, 4)),
         {"activation": "Relu"}, definition=_nhwc_conv),
    Case("NhwcConv", "NhwcConv", ((2, 4, 5, 3), (4, 3, 1, 1), (4,)),
         definition=lambda x, w, b: x @ w[:, :, 0, 0].T + b),
    # -- products ----------------------------------------------------------------------------
    Case("FusedGemm Relu", "FusedGemm", ((2, 6), (6, 4), (4,)), {"activation": "Relu"}),
    Case("FusedGemm LeakyRelu, transposed", "FusedGemm", ((6, 2), (4, 6), (4,)),
         {"activation": "LeakyRelu", "activation_alpha": 0.3, "transA": 1, "transB": 1,
          "alpha": 0.5, "beta": 2.0}),
    Case("FusedGemm Elu without C, opset 9", "FusedGemm", ((2, 6), (6, 4)),
         {"activation": "Elu", "activation_alpha": 0.7}, opset=9),
    Case("FusedGemm HardSigmoid", "FusedGemm", ((2, 6), (6, 4), (4,)),
         {"activation": "HardSigmoid", "activation_alpha": 0.1, "activation_beta": 0.6}),
    Case("FusedMatMul", "FusedMatMul", ((2, 3, 4), (4, 5)), {"alpha": 0.25}),
    Case("FusedMatMul transA", "FusedMatMul", ((2, 4, 3), (2, 4, 5)), {"transA": 1}),
    Case("FusedMatMul transB", "FusedMatMul", ((2, 3, 4), (2, 5, 4)), {"transB": 1, "alpha": 3.0}),
    Case("FusedMatMul transBatchA", "FusedMatMul", ((3, 2, 6, 4), (2, 6, 4, 5)),
         {"transBatchA": 1}),
    Case("FusedMatMul transBatchA and transA", "FusedMatMul", ((4, 2, 6, 3), (2, 6, 4, 5)),
         {"transBatchA": 1, "transA": 1}),
    Case("FusedMatMul transBatchB and transB", "FusedMatMul", ((2, 6, 3, 4), (5, 2, 6, 4)),
         {"transBatchB": 1, "transB": 1}),
    Case("TransposeMatMul", "TransposeMatMul", ((2, 4, 3), (2, 4, 5)), {"transA": 1}),
    Case("FusedMatMulActivation", "FusedMatMulActivation", ((2, 3, 4), (4, 5)),
         {"activation": "Sigmoid", "alpha": 0.5},
         definition=lambda x, w: 1 / (1 + np.exp(-0.5 * (x @ w)))),
    # -- activations -------------------------------------------------------------------------
    Case("Gelu", "Gelu", (TOKENS,)),
    Case("Gelu, opset 20", "Gelu", (TOKENS,), opset=20),
    Case("BiasGelu", "BiasGelu", (TOKENS, (8,))),
    Case("FastGelu", "FastGelu", (TOKENS,)),
    Case("FastGelu plus bias", "FastGelu", (TOKENS, (8,))),
    Case("QuickGelu", "QuickGelu", (TOKENS,)),
    Case("QuickGelu, SiLU", "QuickGelu", (MAP,), {"alpha": 1.0}),
    Case("BiasSplitGelu", "BiasSplitGelu", (TOKENS, (8,)),
         definition=lambda x, b: (x + b)[..., :4] * _gelu((x + b)[..., 4:])),
    Case("Affine", "Affine", (MAP,), {"alpha": 2.0, "beta": 0.5}, domain="", opset=9),
    Case("Scale", "Scale", (MAP,), {"scale": 0.3}, domain="", opset=9),
    Case("ScaledTanh", "ScaledTanh", (MAP,), {"alpha": 1.7, "beta": 0.6}, domain="", opset=9),
    Case("ParametricSoftplus", "ParametricSoftplus", (MAP,), {"alpha": 1.7, "beta": 0.6},
         domain="", opset=9),
    Case("ImageScaler", "ImageScaler", (MAP,), {"scale": 0.5, "bias": [0.1, 0.2, 0.3]},
         domain="", opset=9),
    # -- normalisation -----------------------------------------------------------------------
    Case("LayerNormalization, opset 13", "LayerNormalization", (TOKENS, (8,), (8,)),
         {"axis": -1, "epsilon": 1e-3}, domain="", opset=13),
    Case("LayerNormalization over two axes, opset 11", "LayerNormalization", (TOKENS, (5, 8)),
         {"axis": 1}, domain="", opset=11),
    Case("SimplifiedLayerNormalization", "SimplifiedLayerNormalization", (TOKENS, (8,)),
         {"axis": -1, "epsilon": 1e-3}, domain=""),
    Case("SkipLayerNormalization", "SkipLayerNormalization", (TOKENS, TOKENS, (8,), (8,)),
         {"epsilon": 1e-3}, variable=(0, 1)),
    Case("SkipLayerNormalization, bias and sum", "SkipLayerNormalization",
         (TOKENS, TOKENS, (8,), (8,), (8,)), outputs=(True, False, False, True), variable=(0, 1)),
    Case("SkipLayerNormalization without beta", "SkipLayerNormalization",
         (TOKENS, TOKENS, (8,)), variable=(0, 1)),
    Case("SkipSimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization",
         (TOKENS, TOKENS, (8,), (8,)), outputs=(True, False, False, True), variable=(0, 1)),
    Case("GroupNorm", "GroupNorm", ((2, 3, 3, 4), (4,), (4,)), {"groups": 2, "activation": 1},
         definition=_group_norm),
    Case("SkipGroupNorm", "SkipGroupNorm", ((2, 3, 3, 4), (4,), (4,), (2, 4), (4,)),
         {"groups": 2, "activation": 1},
         definition=lambda x, g, b, s, c: _group_norm(x + s[:, None, None] + c, g, b)),
    # -- attention ---------------------------------------------------------------------------
    Case("Attention", "Attention", (TOKENS, (8, 12), (12,)), {"num_heads": 2}),
    Case("Attention without bias, scaled", "Attention", (TOKENS, (8, 12), None),
         {"num_heads": 2, "scale": 0.4}),
    Case("Attention with other values", "Attention", (TOKENS, (8, 14), (14,)),
         {"num_heads": 2, "qkv_hidden_sizes": [4, 4, 6]}),
    Case("Attention, mask of keys", "Attention", (TOKENS, (8, 12), (12,), MASK),
         {"num_heads": 2}),
    Case("Attention, mask of pairs", "Attention", (TOKENS, (8, 12), (12,), CUBE),
         {"num_heads": 2, "mask_filter_value": -3.0}),
    Case("Attention, causal", "Attention", (TOKENS, (8, 12), (12,)),
         {"num_heads": 2, "unidirectional": 1}),
    Case("Attention plus bias", "Attention",
         (TOKENS, (8, 12), (12,), None, None, (1, 2, 5, 5)), {"num_heads": 2}),
    Case("MultiHeadAttention", "MultiHeadAttention", (TOKENS, TOKENS, TOKENS), {"num_heads": 2},
         variable=(0, 1, 2)),
    Case("MultiHeadAttention plus biases", "MultiHeadAttention",
         (TOKENS, (2, 3, 8), (2, 3, 6), (22,), None, (2, 2, 5, 3)),
         {"num_heads": 2, "scale": 0.3}, variable=(0, 1, 2)),
    Case("MultiHeadAttention, packed", "MultiHeadAttention", ((2, 5, 2, 3, 4),), {"num_heads": 2},
         definition=_packed),
    Case("MultiHeadAttention, keys and values packed", "MultiHeadAttention",
         (TOKENS, (2, 3, 2, 2, 4)), {"num_heads": 2}, variable=(0, 1), definition=_packed_pairs),
    Case("MultiHeadAttention, keys and values in heads", "MultiHeadAttention",
         (TOKENS, (2, 2, 3, 4), (2, 2, 3, 4)), {"num_heads": 2}, variable=(0, 1, 2)),
    Case("MultiHeadAttention, masked", "MultiHeadAttention",
         (TOKENS, TOKENS, TOKENS, None, MASK), {"num_heads": 2}, variable=(0, 1, 2)),
    Case("MultiHeadAttention, causal", "MultiHeadAttention", (TOKENS, TOKENS, TOKENS),
         {"num_heads": 2, "unidirectional": 1}, variable=(0, 1, 2)),
    Case("RotaryEmbedding", "RotaryEmbedding", (TOKENS, PLACES, *ANGLES)),
    Case("RotaryEmbedding, neighbours, from a first place", "RotaryEmbedding",
         (TOKENS, np.array([2]), *ANGLES), {"interleaved": 1}),
    Case("RotaryEmbedding of some features", "RotaryEmbedding", ((2, 5, 12), PLACES, *ANGLES),
         {"num_heads": 2, "rotary_embedding_dim": 4}),
    Case("RotaryEmbedding in heads", "RotaryEmbedding", ((2, 2, 5, 4), np.array([0]), *ANGLES)),
    # -- layout ------------------------------------------------------------------------------
    Case("BiasAdd", "BiasAdd", (TOKENS, (8,), TOKENS),
         definition=lambda x, bias, skip: x + bias + skip),
    Case("BiasDropout", "BiasDropout", (TOKENS, (8,), TOKENS),
         definition=lambda x, bias, residual: x + bias + residual),
    Case("BitmaskBiasDropout", "BitmaskBiasDropout", (TOKENS, (8,)),
         definition=lambda x, bias: x + bias),
    Case("BitmaskDropout", "BitmaskDropout", (TOKENS,), definition=lambda x: x),
    Case("BiasSoftmax", "BiasSoftmax", (TOKENS, (2, 1, 8)), {"axis": 2, "is_inner_broadcast": 1},
         definition=lambda x, bias: _softmax(x + bias)),
    Case("Crop", "Crop", (MAP,), {"border": [1, 0, 0, 2]}, domain="", opset=9),
    Case("Crop to a size", "Crop", (MAP,), {"border": [1, 2, 0, 0], "scale": [2, 3]}, domain="",
         opset=9),
    Case("ExpandDims", "ExpandDims", (TOKENS, np.array(-2, np.int32))),
    Case("Pad", "Pad", (TOKENS, np.array([0, 1, 0, 0, 2, 3])), {"mode": "constant"}),
    Case("Pad with a value", "Pad", (TOKENS, np.array([[0, 1, 0, 0, 2, 3]]), (1,))),
    Case("Pad, reflected", "Pad", (TOKENS, np.array([0, 1, 0, 0, 2, 3])), {"mode": "reflect"}),
    Case("GatherND", "GatherND", (TOKENS, np.array([[0, 1], [1, 4]]))),
    Case("Trilu", "Trilu", (TOKENS, np.array(1)), {"upper": 0}),
    *RECURRENT,
    *SAMPLES,
)  # fmt: skip
