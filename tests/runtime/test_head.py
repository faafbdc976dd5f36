"""The head of a file against the whole model with A replaced, on architectures of all kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from onnx_gradcam import export_model, load
from onnx_gradcam.arrangement import Arrangement
from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.runtime import Explainer
from onnx_gradcam.runtime.boundary import OfThePlace, OfTheSize, PerImage, another_image, measure
from onnx_gradcam.runtime.cutting import divide
from onnx_gradcam.runtime.feeds import BatchFeeds
from onnx_gradcam.runtime.head import Head
from onnx_gradcam.runtime.head_run import HeadRun

ZOO = Path(__file__).parents[1] / "zoo"

Array = NDArray[Any]


def exported(source: Path | bytes, path: Path, layer: str, **options: Any) -> Explainer:
    export_model(source, path, layer=layer, gradient_builder="reverse", verify=False, **options)
    return load(path, device="cpu")


def head_of(explainer: Explainer) -> Head:
    assert explainer._reruns is not None
    return explainer._reruns.head


def head_on(explainer: Explainer, x: Array, **extra: Array) -> tuple[HeadRun, Array]:
    """Return the head for a batch, and A of it."""
    assert explainer._reruns is not None
    file = explainer._reruns
    fixed = explainer._runner.fixed_batch(explainer.metadata.score_output)
    feeds = explainer._runner.feeds(x, {}, extra, fixed)
    activations = explainer.explain(x, extra_inputs=extra).activations

    def whole(rows: Array) -> Array:
        some = {name: value[rows] for name, value in feeds.per_image.items()}
        return file.scores(BatchFeeds(some, feeds.shared))

    return file.head.on(feeds, activations, whole), activations


def session_of(model: onnx.ModelProto, output: str) -> ort.InferenceSession:
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name=output))
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def whole_model(source: onnx.ModelProto, meta: Any) -> Callable[..., Array]:
    """Return the whole model as a function of its inputs: its A, or y where A is given."""
    plain, changed = onnx.ModelProto(), onnx.ModelProto()
    plain.CopyFrom(source)
    changed.CopyFrom(source)
    for node in changed.graph.node:
        node.input[:] = ["changed" if name == meta.target else name for name in node.input]
    kind = next(t.data_type for t in source.graph.initializer if t.data_type in FLOATS)
    changed.graph.input.append(onnx.helper.make_tensor_value_info("changed", kind, None))
    own, score = session_of(plain, meta.target), session_of(changed, meta.score_tensor)

    def run(feeds: dict[str, Array], a: Array | None = None) -> Array:
        names = {node.name for node in score.get_inputs()}
        if a is None:
            return np.asarray(own.run(None, feeds)[0])
        return np.asarray(
            score.run(None, {n: v for n, v in (feeds | {"changed": a}).items() if n in names})[0]
        )

    return run


FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


def assert_is_the_model(
    explainer: Explainer, source: onnx.ModelProto, x: Array, tolerance: float = 1e-4, **extra: Array
) -> None:
    """Compare scores for changed A, of several images in any order, with those of all of it."""
    meta, whole = explainer.metadata, whole_model(source, explainer.metadata)
    run, activations = head_on(explainer, x, **extra)
    rows = np.array([len(x) - 1, 0, 0, len(x) - 1, 0])
    changed = activations[rows] * np.random.default_rng(8).uniform(
        0, 2, (5, 1, *activations.shape[2:])
    )
    found = run(changed.astype(np.float32), rows)
    step = explainer.image_input.batch or 1
    expected, rests = [], []
    for row, values in zip(rows, changed, strict=True):  # one by one: no batch to mix up
        copies = np.full(step, row)
        feeds = {meta.image_input: x[copies], **{n: v[copies] for n, v in extra.items()}}
        own = whole(feeds)
        arrangement = Arrangement.from_metadata(meta).on_grid(activations.shape[2:])
        others = arrangement.other_rows(own)
        laid = arrangement.from_map(np.repeat(values[None], step, 0), own.shape, others)
        expected.append(whole(feeds, laid.astype(own.dtype))[0])
        rests.append(others[0])
    scale = np.abs(expected).max()
    reference = np.stack(expected).reshape(found.shape)
    np.testing.assert_allclose(found, reference, rtol=0, atol=tolerance * scale)
    unchanged = run(activations[rows], rows)
    assert np.abs(found - unchanged).max() > 10 * tolerance * scale, "the change should matter"
    np.testing.assert_allclose(run.other_rows()[rows], np.stack(rests), atol=10 * tolerance)


@pytest.mark.parametrize(
    ("name", "layer", "kinds"),
    [
        ("timm-resnet18", "auto", set()),  # nothing by-passes A
        ("timm-swin_tiny_patch4_window7_224", "auto", set()),  # channels last
        ("transformers-ViT", "auto", {PerImage}),  # norm1, a class token, a residual
        ("timm-vit_little_patch16_reg4_gap_256", "auto", {PerImage}),  # register tokens
        ("torchvision-MaxVit", "auto", {PerImage}),  # tokens in windows
        ("timm-tnt_s_patch16_224", "first", {PerImage}),  # a batch of patches
        ("timm-xcit_nano_12_p16_224", "first", {PerImage, OfTheSize}),  # sizes
        ("timm-coatnet_nano_cc_224", "auto", {PerImage, OfThePlace}),  # indices into the batch
    ],
)
def test_heads_of_real_architectures(
    name: str, layer: str, kinds: set[type], tmp_path: Path
) -> None:
    with np.load(ZOO / f"{name}.npz") as known:
        target, image = str(known[f"{layer}_target"]), known["image"].astype(np.float32)
    source = onnx.load(ZOO / f"{name}.onnx")
    explainer = exported(ZOO / f"{name}.onnx", tmp_path / "model.onnx", target)
    x = np.concatenate([image[:1], 0.7 * image[:1, ::-1, :, ::-1], image[:1, :, ::-1]])
    assert_is_the_model(explainer, source, x)
    (known_size,) = head_of(explainer)._known.values()
    assert isinstance(known_size, dict)
    assert {type(dependence) for dependence in known_size.values()} == kinds


HEAD = """
<ir_version: 8, opset_import: ["" : 17]>
bypass ({kind}[{image}] image{inputs}) => ({kind}[{n}, 4] probabilities)
{{
  conv = Conv <pads = [1, 1, 1, 1]> (image, conv_weight)
  A = Relu (conv)
  {side}
  {join}
  bent = Tanh (joined)
  pooled = GlobalAveragePool (bent)
  flat = Flatten (pooled)
  y = Gemm <transB = 1> (flat, W)
  probabilities = Softmax (y)
}}
"""
SIDES = {
    "residual": "side = Conv <pads = [1, 1, 1, 1]> (image, side_weight)",
    "sizes": """shape = Shape (image)
  first = Slice (shape, zero, one)
  sizes = Concat <axis = 0> (first, rest)
  side = Expand (small, sizes)""",
    "interleaved": """beside = Conv (image, point_weight)
  by_line = Transpose <perm = [2, 0, 1, 3]> (beside)
  side = Reshape (by_line, flat_rows)""",
    "others": """mean = ReduceMean <axes = [0]> (image)
  apart = Sub (image, mean)
  side = Conv (apart, point_weight)""",
}
JOINS = {
    "interleaved": """lines = Transpose <perm = [2, 0, 1, 3]> (A)
  shape = Shape (lines)
  rows = Reshape (lines, flat_rows)
  sum = Add (rows, side)
  back = Reshape (sum, shape)
  joined = Transpose <perm = [1, 2, 0, 3]> (back)""",
    "gain": """louder = Mul (A, gain)
  beside = Conv (image, point_weight)
  joined = Add (louder, beside)""",
}
TYPES = {"float": np.float32, "float16": np.float16}


def small_model(
    side: str,
    *,
    image: str = "n, 3, 4, 5",
    kind: str = "float",
    inputs: str = "",
) -> onnx.ModelProto:
    """Return a classifier in which `side` by-passes A."""
    count = image.partition(",")[0]
    join = JOINS.get(side, "joined = Add (A, side)")
    side = SIDES.get(side, "")
    text = HEAD.format(kind=kind, image=image, n=count, side=side, inputs=inputs, join=join)
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(9)
    shapes = {
        "conv_weight": (6, 3, 3, 3),
        "side_weight": (6, 3, 3, 3),
        "point_weight": (6, 3, 1, 1),
        "W": (4, 6),
        "small": (1, 6, 1, 1),
    }
    values = {n: random.normal(size=s).astype(TYPES[kind]) for n, s in shapes.items()}
    constants = {"zero": [0], "one": [1], "rest": [6, 4, 5], "flat_rows": [-1, 30]}
    values |= {name: np.array(value) for name, value in constants.items()}
    for name, value in values.items():
        if any(name in node.input for node in model.graph.node):
            model.graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.checker.check_model(model)
    return model


def batch(count: int, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(3).normal(size=(count, 3, 4, 5)).astype(dtype)


@pytest.mark.parametrize("image", ["n, 3, 4, 5", "1, 3, 4, 5", "2, 3, 4, 5"])
@pytest.mark.parametrize("side", ["residual", "sizes", "interleaved"])
def test_what_by_passes_a_layer(side: str, image: str, tmp_path: Path) -> None:
    model = small_model(side, image=image)
    explainer = exported(model.SerializeToString(), tmp_path / "model.onnx", "A")
    assert_is_the_model(explainer, model, batch(3))
    (known,) = head_of(explainer)._known.values()
    if image[0] != "n":
        assert known == int(image[0]), "copies of an image, as many as the model takes"
    elif side == "interleaved":
        assert known == 32, "images lie between one another: copies of one at a time"
    else:
        assert isinstance(known, dict)


def test_half_precision(tmp_path: Path) -> None:
    model = small_model("residual", kind="float16")
    explainer = exported(model.SerializeToString(), tmp_path / "model.onnx", "A")
    x = batch(3, np.float16)
    assert_is_the_model(explainer, model, x, tolerance=5e-3)
    run, activations = head_on(explainer, x)
    assert run.target_type == "tensor(float16)"
    ends = run(np.full_like(activations, 1e7), np.arange(3))
    largest = run(np.full_like(activations, 6e4), np.arange(3))
    np.testing.assert_array_equal(ends, largest)  # half precision ends before 1e7


def test_inputs_that_the_head_reads_itself(tmp_path: Path) -> None:
    model = small_model("gain", inputs=", float[n, 1, 1, 1] gain")
    explainer = exported(model.SerializeToString(), tmp_path / "model.onnx", "A")
    gain = np.array([1, -2, 3], np.float32).reshape(3, 1, 1, 1)
    x = batch(3)
    assert_is_the_model(explainer, model, x, gain=gain)
    found = explainer.explain(x, 1, "reciprocam", extra_inputs={"gain": gain})
    other = explainer.explain(x, 1, "reciprocam", extra_inputs={"gain": gain[::-1]})
    assert np.abs(found.raw_maps[0] - other.raw_maps[0]).max() > 0.01
    np.testing.assert_allclose(found.raw_maps[1], other.raw_maps[1], atol=1e-6)


def test_each_size_of_images_is_measured_once(tmp_path: Path) -> None:
    model = small_model("residual", image="n, 3, h, w")
    explainer = exported(model.SerializeToString(), tmp_path / "model.onnx", "A")
    for height in (4, 9, 4):
        x = np.random.default_rng(height).normal(size=(2, 3, height, 7)).astype(np.float32)
        assert_is_the_model(explainer, model, x)
    assert len(head_of(explainer)._known) == 2


def test_images_that_mix_in_a_batch_are_refused(tmp_path: Path) -> None:
    model = small_model("others")
    explainer = exported(model.SerializeToString(), tmp_path / "model.onnx", "A")
    message = "behind 'A', run by themselves, give other scores than the model: .* of .*--layer"
    for _ in range(2):  # the second time as well
        with pytest.raises(UnsupportedModelError, match=message):
            explainer.explain(batch(3), 1, "ablationcam")


def test_the_proof_takes_notice_of_a_wrong_arrangement(tmp_path: Path) -> None:
    with np.load(ZOO / "transformers-ViT.npz") as known:
        target, image = str(known["auto_target"]), known["image"].astype(np.float32)
    explainer = exported(ZOO / "transformers-ViT.onnx", tmp_path / "model.onnx", target)
    change(explainer, token_order=[0])
    with pytest.raises(UnsupportedModelError, match="give other scores"):
        head_on(explainer, image)


def change(explainer: Explainer, **fields: Any) -> None:
    """Give the head of a file other metadata."""
    assert explainer._reruns is not None
    metadata = replace(explainer.metadata, **fields)
    parts, declared = explainer._reruns._parts, explainer.image_input
    explainer._reruns.head = Head(parts, metadata, declared, None, metadata.score_tensor)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": "y", "score_tensor": "A"}, "the score 'A' is not computed from 'y'"),
        ({"target": "nowhere"}, "the score 'y' is not computed from 'nowhere'"),
        ({"target": "shape"}, "is a tensor.int64., whose values cannot be changed"),
    ],
)
def test_heads_that_cannot_be_cut(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = small_model("sizes")
    explainer = exported(model.SerializeToString(), tmp_path / "model.onnx", "A")
    change(explainer, **fields)
    with pytest.raises(UnsupportedModelError, match=message):
        head_on(explainer, batch(1))


def test_a_head_is_the_head_alone(tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "whole")
    model = small_model("residual")
    path = tmp_path / "model.onnx"
    export_model(model.SerializeToString(), path, layer="A", gradient_builder="reverse")
    explainer = load(path, device="cpu", session_options=options)
    explainer.explain(batch(2), 1, "reciprocam")
    halves = head_of(explainer)._halves
    assert {node.name for node in halves.head.get_inputs()} == {"A", "side"}
    assert {node.name for node in halves.trunk.get_outputs()} == {"A", "side"}
    assert len(list(tmp_path.glob("whole*"))) == 1, "parts write no profile of their own"
    explainer._session.end_profiling()
    with explainer._reruns._parts.index() as index:  # type: ignore[union-attr]
        assert divide(index, "A", "y").operators == {
            *("Add", "Tanh", "GlobalAveragePool", "Flatten", "Gemm")
        }


def test_tensors_by_their_dependence_on_the_batch() -> None:
    rows = np.array([2, 0, 1])
    alone = {
        "image": np.array([[1.0, 2.0]]),
        "windows": np.array([[1.0], [2.0]]),
        "heads": np.array([[[1.0]], [[2.0]]]),
        "mask": np.array([True, False]),
        "size": np.array([1, 7]),
        "index": np.array([[0], [1]]),
    }
    other = alone | {
        "image": np.array([[3.0, 4.0]]),
        "windows": np.array([[3.0], [4.0]]),
        "heads": np.array([[[5.0]], [[6.0]]]),
    }
    both = {
        "image": np.array([[1.0, 2.0], [3.0, 4.0]]),
        "windows": np.array([[1.0], [2.0], [3.0], [4.0]]),
        "heads": np.array([[[1.0], [5.0]], [[2.0], [6.0]]]),
        "mask": np.array([True, False]),
        "size": np.array([2, 7]),
        "index": np.array([[0], [1], [2], [3]]),
    }
    found = measure(alone, other, both)
    assert found is not None
    assert (found["image"], found["windows"]) == (PerImage(0, 1), PerImage(0, 2))
    assert found["heads"] == PerImage(1, 1)
    windows = np.arange(6.0).reshape(6, 1)
    assert found["windows"].of(windows, rows).ravel().tolist() == [4, 5, 0, 1, 2, 3]
    assert found["mask"].of(None, rows).tolist() == [True, False]
    assert found["size"].of(None, rows).tolist() == [3, 7]
    assert found["index"].of(None, rows).ravel().tolist() == [0, 1, 2, 3, 4, 5]
    assert found["index"].of(None, rows).dtype == both["index"].dtype


@pytest.mark.parametrize(
    ("alone", "other", "both"),
    [
        ([[1.0], [2.0]], [[3.0], [4.0]], [[1.0], [3.0], [2.0], [4.0]]),  # between one another
        ([1.0], [2.0], [1.5]),  # of both images
        ([1.0], [1.0, 2.0], [1.0, 1.0, 2.0]),  # as many as the content has
        ([True], [True], [False]),
        ([[1.0]], [[2.0]], [[1.0, 2.0], [1.0, 2.0]]),
    ],
)
def test_other_dependences_are_none(alone: Any, other: Any, both: Any) -> None:
    given = ({"x": np.array(value)} for value in (alone, other, both))
    assert measure(*given) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
@pytest.mark.parametrize("value", [0, 7])
def test_another_image_differs(dtype: Any, value: int) -> None:
    image = np.full((1, 3, 4, 5), value, dtype)
    for width in (-1, -2):
        other = another_image(image, width)
        assert other.shape == image.shape
        assert other.dtype == image.dtype
        assert (other != image).mean() >= 0.4
        assert np.isfinite(other).all()
