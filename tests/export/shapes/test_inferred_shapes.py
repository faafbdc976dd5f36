"""What is inferred of every tensor agrees with a run of onnxruntime, optimised models included."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, parser

from onnx_gradcam.export.graph import Graph
from tests.export.networks import NETWORKS
from tests.export.unusual_models import UNUSUAL

Array = np.ndarray
QUIET = 4

SCALE = "s = Constant<value = float {0.1}>() z = Constant<value = uint8 {128}>()"

OPERATORS = {
    "BiasGelu": ("y = com.microsoft.BiasGelu(t, b)", {"t": (2, 3, 8), "b": (8,)}),
    "QuickGelu": ("y = com.microsoft.QuickGelu(t)", {"t": (2, 3, 8)}),
    "FusedConv": (
        'y = com.microsoft.FusedConv<pads=[1,1,1,1], strides=[2,2], activation="Relu">(x, w)',
        {"x": (2, 6, 7, 8), "w": (4, 6, 3, 3)},
    ),
    "FusedMatMul": (
        "y = com.microsoft.FusedMatMul<transA=1>(a, b)",
        {"a": (2, 5, 3), "b": (2, 5, 4)},
    ),
    "FusedGemm": (
        'y = com.microsoft.FusedGemm<transB=1, activation="Relu">(a, b, c)',
        {"a": (2, 5), "b": (4, 5), "c": (4,)},
    ),
    "SkipLayerNormalization": (
        "y, m, d, r = com.microsoft.SkipLayerNormalization(t, u, g)",
        {"t": (2, 3, 8), "u": (2, 3, 8), "g": (8,)},
    ),
    "Attention": (
        "y = com.microsoft.Attention<num_heads=2>(t, w, b)",
        {"t": (2, 3, 8), "w": (8, 24), "b": (24,)},
    ),
    "MultiHeadAttention": (
        "y = com.microsoft.MultiHeadAttention<num_heads=2>(t, u, v)",
        {"t": (2, 3, 8), "u": (2, 5, 8), "v": (2, 5, 8)},
    ),
    "QLinearAdd": (
        f"{SCALE} q = QuantizeLinear(x, s, z) r = QuantizeLinear(w, s, z)"
        " y = com.microsoft.QLinearAdd(q, s, z, r, s, z, s, z)",
        {"x": (2, 6, 7, 8), "w": (1, 6, 1, 1)},
    ),
    "QLinearConcat": (
        f"{SCALE} q = QuantizeLinear(x, s, z)"
        " y = com.microsoft.QLinearConcat<axis=1>(s, z, q, s, z, q, s, z)",
        {"x": (2, 6, 7, 8)},
    ),
    "QLinearGlobalAveragePool": (
        f"{SCALE} q = QuantizeLinear(x, s, z)"
        " y = com.microsoft.QLinearGlobalAveragePool<channels_last=1>(q, s, z, s, z)",
        {"x": (2, 7, 8, 6)},
    ),
    "QLinearAveragePool": (
        f"{SCALE} q = QuantizeLinear(x, s, z)"
        " y = com.microsoft.QLinearAveragePool<kernel_shape=[3,3], strides=[2,2]>(q, s, z, s, z)",
        {"x": (2, 6, 7, 8)},
    ),
    "QLinearLeakyRelu": (
        f"{SCALE} q = QuantizeLinear(x, s, z)"
        " y = com.microsoft.QLinearLeakyRelu<alpha=0.1>(q, s, z, s, z)",
        {"x": (2, 6)},
    ),
    "QLinearSoftmax": (
        f"{SCALE} q = QuantizeLinear(x, s, z)"
        " y = com.microsoft.QLinearSoftmax<axis=1, opset=13>(q, s, z, s, z)",
        {"x": (2, 6)},
    ),
    "QGemm": (
        f"{SCALE} q = QuantizeLinear(a, s, z) r = QuantizeLinear(b, s, z)"
        " y = com.microsoft.QGemm<transB=1>(q, s, z, r, s, z)",
        {"a": (2, 5), "b": (4, 5)},
    ),
    "NhwcMaxPool": (
        f"{SCALE} q = QuantizeLinear(x, s, z)"
        " y = com.microsoft.NhwcMaxPool<kernel_shape=[3,2], pads=[1,0,1,0], strides=[2,1]>(q)",
        {"x": (2, 7, 8, 6)},
    ),
    "DynamicQuantizeMatMul": (
        f"{SCALE} q = QuantizeLinear(b, s, z) y = com.microsoft.DynamicQuantizeMatMul(a, q, s, z)",
        {"a": (2, 3, 5), "b": (5, 4)},
    ),
    "DequantizeLinear": (
        f"{SCALE} q = com.microsoft.QuantizeLinear(x, s, z)"
        " y = com.microsoft.DequantizeLinear(q, s, z)",
        {"x": (2, 6, 7)},
    ),
}


def session_of(model: ModelProto, *, level: int = 0, saved: Path | None = None) -> object:
    options = ort.SessionOptions()
    options.log_severity_level = QUIET
    options.graph_optimization_level = ort.GraphOptimizationLevel(level)
    if saved is not None:
        options.optimized_model_filepath = str(saved)
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def compare(model: ModelProto, feeds: Mapping[str, Array]) -> int:
    """Run a model, compare all tensors with what is inferred, and return how many there were."""
    graph = Graph(model)
    names = [o for node in model.graph.node for o in node.output if o]
    names = [n for n in names if n in graph.types]
    widened = ModelProto()
    widened.CopyFrom(model)
    del widened.graph.output[:]
    widened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    values = dict(zip(names, session_of(widened).run(names, dict(feeds)), strict=True))  # type: ignore[attr-defined]
    sizes: dict[str, int] = {}
    for known, array in ((graph.types[n], feeds[n]) for n in feeds):
        for symbol, size in zip(known.shape or (), array.shape, strict=False):
            if isinstance(symbol, str):
                sizes[symbol] = size
    for name in names:
        known, value = graph.types[name], values[name]
        assert known.dtype == helper.np_dtype_to_tensor_dtype(value.dtype), name
        if known.shape is None:
            continue
        assert len(known.shape) == value.ndim, (name, known.shape, value.shape)
        for size, actual in zip(known.shape, value.shape, strict=True):
            if isinstance(size, str):  # the same symbol stands for the same size everywhere
                assert sizes.setdefault(size, actual) == actual, (name, known.shape, value.shape)
                factors = size.split("*")
                if len(factors) > 1 and all(f in sizes or f.isdecimal() for f in factors):
                    numbers = [sizes[f] if f in sizes else int(f) for f in factors]
                    assert np.prod(numbers) == actual, (name, known.shape, value.shape)
            else:
                assert size == actual, (name, known.shape, value.shape)
    return len(names)


def image_feeds(model: ModelProto, shape: tuple[int, ...]) -> dict[str, Array]:
    random = np.random.default_rng(0)
    held = {t.name for t in model.graph.initializer}
    (image,) = (i for i in model.graph.input if i.name not in held)
    return {image.name: random.standard_normal(shape).astype(np.float32)}


def shape_of(model: ModelProto) -> tuple[int, ...]:
    held = {t.name for t in model.graph.initializer}
    (image,) = (i for i in model.graph.input if i.name not in held)
    return tuple(d.dim_value or 2 for d in image.type.tensor_type.shape.dim)


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_models(name: str) -> None:
    unusual = UNUSUAL[name]
    model = unusual.model()
    images, extra = unusual.feeds()
    held = {t.name for t in model.graph.initializer}
    (image,) = (i.name for i in model.graph.input if i.name not in {*extra, *held})
    if name == "a fixed batch of four":
        images = np.concatenate([images, images[:1]])
    if name == "scores without a batch axis":
        images = images[:1]
    assert compare(model, {image: images, **extra}) >= 4


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("level", [0, 1, 2, 99])
def test_as_onnxruntime_optimises_it(name: str, level: int, tmp_path: Path) -> None:
    """Level 2 fuses to operators of com.microsoft, level 99 reorders to com.microsoft.nchwc."""
    model = NETWORKS[name].model()
    shape = shape_of(model)
    session_of(model, level=level, saved=tmp_path / "saved.onnx")
    saved = onnx.load(tmp_path / "saved.onnx")
    assert compare(saved, image_feeds(saved, shape)) >= 3


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_of_onnxruntime(name: str) -> None:
    body, shapes = OPERATORS[name]
    inputs = ", ".join(f"float[{', '.join(map(str, s))}] {n}" for n, s in shapes.items())
    text = f"""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        operator ({inputs}) => (float[] y) {{ {body} }}"""
    model = parser.parse_model(text)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.UNDEFINED
    random = np.random.default_rng(0)
    feeds = {n: random.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    known = Graph(model).types.get("y")
    assert known is not None
    assert known.shape is not None
    assert all(isinstance(size, int) for size in known.shape)
    assert compare(model, feeds) >= 1
