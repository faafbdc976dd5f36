"""Rewrites of operators that onnxruntime-training lacks into operators that it differentiates.

Reading order: `site` (what a rule is given), then the families `activations`, `arithmetic`,
`normalization`, `reduction`, `layout`, `einsum`. `preparation` holds them in one table.
"""
