"""A vision transformer as onnxruntime's optimizer writes it: contrib operators from end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper, parser

from onnx_gradcam.export.pipeline import export_model

BLOCK = """
n{i} = com.microsoft.SkipLayerNormalization<epsilon=0.001>(t{i}, zero, g, b)
{attention}
m{i}, , , s{i} = com.microsoft.SkipLayerNormalization(a{i}, t{i}, g, b)
u{i} = MatMul(m{i}, w1)
v{i} = com.microsoft.BiasGelu(u{i}, b1)
o{i} = MatMul(v{i}, w2)
t{j} = Add(o{i}, s{i})
"""
ATTENTION = {
    "Attention": "a{i} = com.microsoft.Attention<num_heads=2>(n{i}, qkv, qkv_bias)",
    "MultiHeadAttention": """q{i} = MatMul(n{i}, wq) k{i} = MatMul(n{i}, wk) r{i} = MatMul(n{i}, wv)
        a{i} = com.microsoft.MultiHeadAttention<num_heads=2>(q{i}, k{i}, r{i}, qkv_bias)""",
}
WEIGHTS = {
    "patches": (8, 3, 4, 4), "zero": (1, 17, 8), "class": (1, 1, 8), "g": (8,), "b": (8,),
    "qkv": (8, 24), "qkv_bias": (24,), "wq": (8, 8), "wk": (8, 8), "wv": (8, 8),
    "w1": (8, 12), "b1": (12,), "w2": (12, 8), "head": (8, 5),
}  # fmt: skip


def transformer(attention: str) -> ModelProto:
    blocks = "".join(
        BLOCK.format(i=i, j=i + 1, attention=ATTENTION[attention].format(i=i)) for i in range(2)
    )
    body = f"""p = Conv<strides=[4,4]>(image, patches)
    shape = Constant<value_ints=[0, 8, -1]>()
    flat = Reshape(p, shape)
    tokens = Transpose<perm=[0,2,1]>(flat)
    size = Shape<end=1>(tokens)
    rest = Constant<value_ints=[1, 8]>()
    sizes = Concat<axis=0>(size, rest)
    classes = Expand(class, sizes)
    t0 = Concat<axis=1>(classes, tokens)
    {blocks}
    z = com.microsoft.SkipLayerNormalization(t2, zero, g, b)
    first = Constant<value_int=0>()
    y = Gather<axis=1>(z, first)
    logits = MatMul(y, head)"""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        vit (float[N,3,16,16] image) => (float[N,5] logits) {{ {body} }}"""
    )
    rng = np.random.default_rng(8)
    for name, shape in WEIGHTS.items():
        values = rng.standard_normal(shape) / np.sqrt(shape[0])
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    return model


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize(
    "builder",
    ["reverse", pytest.param("onnxruntime-training", marks=pytest.mark.needs_builder)],
)
def test_it_is_explained_at_the_recommended_layer(
    tmp_path: Path, attention: str, builder: str
) -> None:
    model = transformer(attention)
    report = export_model(model, tmp_path / "out.onnx", gradient_builder=builder)
    assert report.target == "n1", "the last block's first norm"
    assert report.target_shape == ("N", 8, 4, 4)
    assert report.verification is not None
    assert report.verification.passed
