"""Classifiers with recurrent layers, routed convolutions and spatial transformers, exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper, parser

from onnx_gradcam.export.pipeline import export_model

SEQUENCE = """
a = Conv<pads=[1,1,1,1], strides=[2,2]>(image, w)
b = Relu(a)
rows = ReduceMean<axes=[3], keepdims=0>(b)
steps = Transpose<perm=[2,0,1]>(rows)
y, last = LSTM<direction="bidirectional", hidden_size=4>(steps, lstm_w, lstm_r)
first = Transpose<perm=[1,0,2]>(last)
flat = Flatten(first)
logits = Gemm(flat, fc)
"""
SEQUENCE_WEIGHTS = {"w": (6, 3, 3, 3), "lstm_w": (2, 16, 6), "lstm_r": (2, 16, 4), "fc": (8, 5)}

ROUTED = """
a = Conv<pads=[1,1,1,1], strides=[2,2]>(image, w)
b = Relu(a)
mean = ReduceMean<axes=[2,3], keepdims=0>(b)
share = Sigmoid(mean)
mixed = MatMul(share, experts)
kernels = Reshape(mixed, kernel_shape)
folded = Reshape(b, folded_shape)
c = Conv<group=2, pads=[1,1,1,1]>(folded, kernels)
apart = Reshape(c, shape)
d = Relu(apart)
e = GlobalAveragePool(d)
flat = Flatten(e)
logits = Gemm(flat, fc)
"""
ROUTED_WEIGHTS = {"w": (6, 3, 3, 3), "experts": (6, 4 * 6 * 9), "fc": (4, 5)}
ROUTED_SHAPES = {"kernel_shape": [8, 6, 3, 3], "folded_shape": [1, 12, 4, 4], "shape": [2, 4, 4, 4]}

WARPED = """
a = Conv<pads=[1,1,1,1], strides=[2,2]>(image, w)
b = Relu(a)
mean = GlobalAveragePool(b)
flat_mean = Flatten(mean)
parameters = Gemm(flat_mean, locate, identity)
theta = Reshape(parameters, theta_shape)
grid = AffineGrid(theta, size)
warped = GridSample<padding_mode="border">(b, grid)
c = Conv(warped, v)
d = Relu(c)
e = GlobalAveragePool(d)
flat = Flatten(e)
logits = Gemm(flat, fc)
"""
WARPED_WEIGHTS = {"w": (6, 3, 3, 3), "locate": (6, 6), "v": (4, 6, 2, 2), "fc": (4, 5)}
WARPED_SHAPES = {"theta_shape": [2, 2, 3], "size": [2, 6, 4, 4]}


def model(
    body: str,
    weights: dict[str, tuple[int, ...]],
    integers: dict[str, list[int]] | None = None,
    opset: int = 17,
) -> ModelProto:
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g (float[2,3,8,8] image) => (float[2,5] logits) {{ {body} }}"""
    result = parser.parse_model(text)
    rng = np.random.default_rng(3)
    values = {name: rng.standard_normal(shape) / 2 for name, shape in weights.items()}
    values["identity"] = np.array([0.8, 0.1, 0.05, -0.1, 0.9, 0.02])
    for name, value in values.items():
        if any(name in node.input for node in result.graph.node):
            tensor = numpy_helper.from_array(value.astype(np.float32), name)
            result.graph.initializer.append(tensor)
    for name, shape in (integers or {}).items():
        result.graph.initializer.append(numpy_helper.from_array(np.array(shape), name))
    return result


NETWORKS = {
    "sequence": model(SEQUENCE, SEQUENCE_WEIGHTS),
    "routed": model(ROUTED, ROUTED_WEIGHTS, ROUTED_SHAPES),
    "warped": model(WARPED, WARPED_WEIGHTS, WARPED_SHAPES, opset=20),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_exports_prove_themselves(name: str, tmp_path: Path) -> None:
    report = export_model(
        NETWORKS[name], tmp_path / "out.onnx", layer="b", gradient_builder="reverse"
    )
    assert report.verification is not None
    assert report.verification.passed


@pytest.mark.needs_builder
@pytest.mark.parametrize(
    ("name", "builder"),
    [
        ("sequence", "onnxruntime-training"),
        ("routed", "onnxruntime-training"),
        ("warped", "reverse"),  # the other one has no gradient for Floor
    ],
)
def test_builders_that_are_chosen(name: str, builder: str, tmp_path: Path) -> None:
    report = export_model(NETWORKS[name], tmp_path / "out.onnx", layer="b")
    assert report.builder == builder
    assert report.verification is not None
    assert report.verification.passed


def test_maps_behind_a_routed_convolution_are_found(tmp_path: Path) -> None:
    """Images are channels of one image for a while, and nobody can tell which is which."""
    report = export_model(NETWORKS["routed"], tmp_path / "out.onnx", gradient_builder="reverse")
    assert report.target == "d"


def test_only_what_the_gradient_reads_is_computed_again(tmp_path: Path) -> None:
    report = export_model(
        NETWORKS["sequence"], tmp_path / "out.onnx", layer="b", gradient_builder="reverse"
    )
    nodes = onnx.load(tmp_path / "out.onnx").graph.node
    assert sum(node.op_type == "LSTM" for node in nodes) == 1, "the original one"
    steps = {name.split("/step_")[1][0] for n in nodes if "/step_" in (name := n.name)}
    assert steps == {"0", "1", "2", "3"}
    assert report.nodes_added < 4 * 45, "both directions share their nodes"
