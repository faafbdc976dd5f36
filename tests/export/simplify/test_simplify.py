"""Passes over a gradient: what they leave out, and that the gradient stays what it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from onnx_gradcam.errors import VerificationError
from onnx_gradcam.export import pipeline
from onnx_gradcam.export.pipeline import export_model
from onnx_gradcam.export.simplify import zero_rows
from onnx_gradcam.export.simplify.cut_rows import Rows
from onnx_gradcam.export.simplify.reshaped_rows import core_sizes, reshaped
from onnx_gradcam.gradients.emitter import Dim
from tests.export.networks import NETWORKS, Network
from tests.export.spatial.transformers import CLASS_TOKEN, POOLED

MEAN_OF_OTHERS = replace(
    CLASS_TOKEN,
    body=CLASS_TOKEN.body.replace(
        "picked = Gather<axis=1>(last, zero)", "others = Slice(last, one, end, one)"
    ).replace("head = Squeeze(picked, axis1)", "head = ReduceMean<axes=[1], keepdims=0>(others)"),
)
"""The gradient of the last layer itself is padded with a row of zeros."""

TOKENS_FIRST = replace(
    CLASS_TOKEN,
    body=CLASS_TOKEN.body.replace(
        "bp = MatMul(bav, bwp)",
        """turned = Transpose<perm=[1, 0, 2]>(bav)
        flat = Reshape(turned, to_flat)
        projected = Gemm(flat, bwp)
        sizes = Shape(turned)
        unflat = Reshape(projected, sizes)
        bp = Transpose<perm=[1, 0, 2]>(unflat)""",
    ),
    integers={**CLASS_TOKEN.integers, "to_flat": [-1, 4]},
)
"""The projection behind attention as PyTorch writes it: one product for all tokens and images."""

FLATTENED = replace(
    NETWORKS["fully convolutional"],
    body=NETWORKS["fully convolutional"].body.replace("logits =", "conv2 =")
    + "\nlogits = Flatten(conv2)",
    scores="float[N, 5] logits",
)

BUILDERS = ["reverse", pytest.param("onnxruntime-training", marks=pytest.mark.needs_builder)]
EVERYTHING = [
    *((name, NETWORKS[name], "0") for name in ("VGG", "ResNet", "DenseNet", "MobileNetV3")),
    *((name, NETWORKS[name], "0") for name in ("EfficientNet", "ConvNeXt", "SqueezeNet")),
    ("class token", CLASS_TOKEN, "auto"),
    ("class token, first block", CLASS_TOKEN, "an1"),
    ("class token, tokens first", TOKENS_FIRST, "auto"),
    ("convolution as classifier", NETWORKS["fully convolutional"], "auto"),
    ("convolution as classifier, flattened", FLATTENED, "auto"),
    ("all but the class token", MEAN_OF_OTHERS, "last"),
    ("mean of tokens", POOLED, "auto"),
]
CLASSES = (None, [3], [-2], [1, -1, 4])


def exported(network: Network, layer: str, path: Path, builder: str = "reverse") -> ModelProto:
    export_model(network.model(), path, layer=layer, gradient_builder=builder, force=True)
    return onnx.load(path)


def added(model: ModelProto, op_type: str) -> list[NodeProto]:
    ours = (n for n in model.graph.node if n.name.startswith("onnx_gradcam/gradient/"))
    return [node for node in ours if node.op_type == op_type]


def run(model: ModelProto, classes: list[int] | None) -> dict[str, NDArray[np.generic]]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options)
    image, *_ = session.get_inputs()
    x = np.random.default_rng(5).standard_normal((3, *image.shape[1:])).astype(np.float32)
    feeds = {image.name: x}
    if classes is not None:
        feeds["cam_class"] = np.array(classes)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(("name", "network", "layer"), EVERYTHING, ids=[e[0] for e in EVERYTHING])
def test_nothing_changes_but_the_cost(
    name: str,
    network: Network,
    layer: str,
    builder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simple = exported(network, layer, tmp_path / "simple.onnx", builder)
    monkeypatch.setattr(pipeline, "simplify", lambda *_args, **_options: None)
    plain = exported(network, layer, tmp_path / "plain.onnx", builder)
    assert len(simple.graph.node) <= len(plain.graph.node) + 12, name
    for classes in CLASSES:
        expected, found = run(plain, classes), run(simple, classes)
        assert np.abs(expected["cam_gradients"]).max() > 0
        for output, value in expected.items():
            size = np.abs(value).max()
            np.testing.assert_allclose(found[output], value, rtol=0, atol=2e-6 * size)


@pytest.mark.parametrize("builder", BUILDERS)
def test_the_row_of_a_class_is_read(builder: str, tmp_path: Path) -> None:
    model = exported(NETWORKS["ResNet"], "auto", tmp_path / "o.onnx", builder)
    assert not added(model, "MatMul") + added(model, "Gemm")
    (gather,) = added(model, "Gather")
    assert gather.input[0] == "w4", "the classifier's weights"


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_gradient_is_spread_over_known_positions_by_a_product(
    builder: str, tmp_path: Path
) -> None:
    model = exported(NETWORKS["ResNet"], "auto", tmp_path / "o.onnx", builder)
    assert not added(model, "Expand")
    (product,) = (n for n in model.graph.node if "cam_gradients" in n.output)
    (spread,) = (t for t in model.graph.initializer if t.name in product.input)
    values = onnx.numpy_helper.to_array(spread)
    assert product.op_type == "Mul"
    assert values.shape == (1, 1, 4, 4)
    assert (values == np.float32(1 / 16)).all(), "the factor of the mean is in it"
    anywhere = replace(NETWORKS["ResNet"], image="float[N, 3, H, W] image")
    assert added(exported(anywhere, "auto", tmp_path / "any.onnx", builder), "Expand")


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("network", [NETWORKS["fully convolutional"], FLATTENED])
def test_the_row_of_a_class_is_read_from_a_convolution(
    network: Network, builder: str, tmp_path: Path
) -> None:
    model = exported(network, "auto", tmp_path / "o.onnx", builder)
    assert not added(model, "Conv") + added(model, "ConvTranspose")
    (gather,) = added(model, "Gather")
    assert gather.input[0] == "w2", "the classifier's weights"


@pytest.mark.parametrize("builder", BUILDERS)
def test_rows_go_through_a_product_for_all_images(builder: str, tmp_path: Path) -> None:
    model = exported(TOKENS_FIRST, "auto", tmp_path / "o.onnx", builder)
    products = [n for n in added(model, "Gemm") + added(model, "MatMul") if "bwp" in n.input[1]]
    assert products, "the projection's gradient"
    assert all("gradient/rows" in n.name for n in products)


@pytest.mark.parametrize("builder", BUILDERS)
def test_the_scale_of_batch_normalization_goes_into_the_weights(
    builder: str, tmp_path: Path
) -> None:
    body = NETWORKS["ResNet"].body.replace("relu2 = Relu(conv2)", "relu2 = Relu(bn2)")
    body = body.replace(
        "conv2 = Conv<pads=[1,1,1,1]>(relu1, w2)",
        "conv2 = Conv<pads=[1,1,1,1]>(relu1, w2)\nbn2 = BatchNormalization(conv2, t, t, t, t2)",
    )
    shapes = {**NETWORKS["ResNet"].weights, "t": (6,), "t2": (6,)}
    network = Network(body, shapes, "relu3", ())
    positive = network.model()
    for tensor in positive.graph.initializer:
        if tensor.name in {"t2", "var"}:
            values = np.abs(onnx.numpy_helper.to_array(tensor)) + 0.5
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    export_model(positive, tmp_path / "o.onnx", layer="relu1", gradient_builder=builder)
    model = onnx.load(tmp_path / "o.onnx")
    (scaled,) = (n for n in added(model, "Mul") if "scaled_weights" in n.name)
    readers = [n.op_type for n in model.graph.node if scaled.output[0] in n.input]
    assert readers == ["Conv"]


@pytest.mark.parametrize("builder", BUILDERS)
def test_swish_takes_few_products(builder: str, tmp_path: Path) -> None:
    model = exported(NETWORKS["EfficientNet"], "0", tmp_path / "o.onnx", builder)
    swish = [n.op_type for n in model.graph.node if "gradient/swish" in n.name]
    assert sorted(swish) == ["Add", "Mul", "Mul"], "dy (y (1 - s) + s)"
    assert len(added(model, "HardSigmoid")) == 1, "1 - s"


@pytest.mark.parametrize("builder", BUILDERS)
def test_rows_of_zeros_are_left_out(builder: str, tmp_path: Path) -> None:
    """Of a class token, the last block is gone through with one row up to its attention."""
    model = exported(CLASS_TOKEN, "auto", tmp_path / "o.onnx", builder)
    rows = [n for n in added(model, "MatMul") if "gradient/rows" in n.name]
    assert len(rows) >= 4, "the MLP, the projection, and both products of attention"
    pooled = exported(POOLED, "auto", tmp_path / "pooled.onnx", builder)
    assert not [n for n in pooled.graph.node if "gradient/rows" in n.name], "no zeros, no change"


def test_a_wrong_row_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = zero_rows._padded_rows

    def shifted(added: object, node: NodeProto) -> Rows | None:
        rows = right(added, node)  # type: ignore[arg-type]
        return rows and Rows(rows.axis, rows.begin + 1, rows.count, rows.total)

    monkeypatch.setattr(zero_rows, "_padded_rows", shifted)
    with pytest.raises(VerificationError, match="gradient"):
        exported(CLASS_TOKEN, "auto", tmp_path / "o.onnx")


@pytest.mark.parametrize("fixed", ["fixed:2", "fixed:-1", "fixed:-3", "required"])
def test_classes_fixed_and_required(fixed: str, tmp_path: Path) -> None:
    network, path = NETWORKS["ResNet"], tmp_path / "o.onnx"
    export_model(network.model(), path, class_input=fixed)
    choice = None if fixed != "required" else [-3]
    found = run(onnx.load(path), choice)
    order = np.argsort(-found["logits"], axis=1, kind="stable")
    expected = {"fixed:2": np.full(3, 2), "fixed:-1": order[:, 0]}.get(fixed, order[:, 2])
    assert np.array_equal(found["cam_classes"], expected)


@pytest.mark.parametrize(
    ("before", "after", "rows", "expected"),
    [
        ((197, "N", 8), ("197*N", 8), Rows(0, 0, 1, 197), Rows(0, 0, 1, 197, "N")),
        (("197*N", 8), (197, "N", 2, 4), Rows(0, 0, 1, 197, "N"), Rows(0, 0, 1, 197)),
        (("N", 5, 8), ("N", 1, 5, 8), Rows(1, 2, 1, 5), Rows(2, 2, 1, 5)),
        (("N", 5, 8), ("N", 40), Rows(1, 2, 1, 5), Rows(1, 2, 1, 5, 8)),
        (("N", 5, 8), ("N", 5, 2, 4), Rows(1, 2, 1, 5), Rows(1, 2, 1, 5)),
        (("N", 5, 8), (8, 5, "N"), Rows(1, 2, 1, 5), None),
        (("N", 5, 8), ("5*N", 8), Rows(1, 2, 1, 5), None),
        (("N", 6, 8), ("N", 2, 3, 8), Rows(1, 2, 1, 6), None),
    ],
)
def test_rows_behind_a_reshape(
    before: tuple[Dim, ...], after: tuple[Dim, ...], rows: Rows, expected: Rows | None
) -> None:
    assert reshaped(before, after, rows) == expected


def test_sizes_of_rows() -> None:
    assert core_sizes(("N", 5, 8), Rows(1, 2, 1, 5)) == [-1, 1, 8]
    assert core_sizes(("197*N", 8), Rows(0, 0, 1, 197, "N")) == [-1, 8]
    assert core_sizes(("197*N", 8), Rows(0, 0, 1, 197, "N"), split=True) == [1, -1, 8]
    assert core_sizes(("N", "T", 5), Rows(2, 0, 1, 5)) is None, "one size may be open"
