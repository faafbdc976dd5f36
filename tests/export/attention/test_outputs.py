"""The attention outputs of exported files: values by hand, other operators, other precisions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper

from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.export.pipeline import export_model
from onnx_gradcam.export.report import ExportReport
from onnx_gradcam.runtime import Explainer, load
from tests.export.networks import network
from tests.export.precisions import HALF, converted
from tests.export.spatial.transformers import (
    ATTENTION_POOLED,
    CLASS_TOKEN,
    INTEGERS,
    PATCHES,
    POOLED,
    TAIL,
    attention,
    weights,
)

ZOO = Path(__file__).parents[2] / "zoo"
IMAGES = np.random.default_rng(5).standard_normal((2, 3, 8, 12)).astype(np.float32)


def export(
    model: ModelProto | Path, folder: Path, asked: str = "both", **options: object
) -> tuple[ExportReport, Explainer]:
    path = folder / "exported.onnx"
    options = {"gradient_builder": "reverse", "force": True, **options}
    report = export_model(model, path, attention=asked, **options)
    return report, load(path)


def maps(explainer: Explainer, images: NDArray = IMAGES) -> dict[str, NDArray]:
    explained = explainer.explain(images.astype(explainer.image_input.dtype), [1, 3])
    return {name: explained.with_method(name).raw_maps for name in ("rollout", "legrad")}


def test_outputs_and_what_the_file_says_of_them(tmp_path: Path) -> None:
    report, explainer = export(CLASS_TOKEN.model(), tmp_path)
    outputs = [output.name for output in onnx.load(report.output).graph.output]
    assert outputs[-2:] == ["cam_attention", "cam_legrad"]
    assert explainer.metadata.outputs == outputs[1:]
    said = explainer.metadata.attention
    assert said is not None
    assert (said["blocks"], said["heads"], said["outputs"]) == (["aa", "ba"], [1, 1], ["a", "b"])
    assert (said["grid"], said["order"], said["rows"], said["read"]) == ([4, 6], [1], 25, [0])
    checks = {check.name: check for check in report.verification.checks}
    assert checks["attention"].value < 1e-6
    assert checks["LeGrad"].value < 1e-2
    assert "2 blocks agree" in checks["LeGrad"].detail


def test_each_may_be_asked_for_alone(tmp_path: Path) -> None:
    plain = export_model(POOLED.model(), tmp_path / "plain.onnx", gradient_builder="reverse")
    added = {}
    for asked, (output, other) in {
        "rollout": ("cam_attention", "legrad"),
        "legrad": ("cam_legrad", "rollout"),
    }.items():
        report, explainer = export(POOLED.model(), tmp_path, asked)
        assert explainer.metadata.outputs[-1] == output
        assert len(explainer.metadata.outputs) == 4
        assert asked in explainer.methods
        assert other not in explainer.methods
        with pytest.raises(UnsupportedModelError, match=f"again with --attention {other}, or"):
            explainer.explain(IMAGES, 0, other)
        added[asked] = report.nodes_added - plain.nodes_added
    assert 0 < added["rollout"] < added["legrad"]
    without = load(plain.output)
    assert without.metadata.attention is None
    assert not {"rollout", "legrad"} & set(without.methods)


def test_an_image_alone_and_no_image(tmp_path: Path) -> None:
    _, explainer = export(CLASS_TOKEN.model(), tmp_path)
    together = maps(explainer)
    for method, expected in together.items():
        alone = explainer.explain(IMAGES[1:], 3, method).raw_maps
        np.testing.assert_allclose(alone[0], expected[1], rtol=1e-4)
        assert explainer.explain(IMAGES[:0], 3, method).cams.shape == (0, 8, 12)


def test_exports_are_deterministic(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        report, _ = export(CLASS_TOKEN.model(), tmp_path / name)
        files.append(report.output.read_bytes())
    assert files[0] == files[1]


def with_microsoft_operator(model: ModelProto) -> ModelProto:
    """Return a miniature whose attention onnxruntime's optimiser has fused."""
    nodes = []
    for node in model.graph.node:
        block, role = node.output[0][:1], node.output[0][1:]
        if role == "av":
            inputs = [f"{block}{x}" for x in "qkv"]
            options = {"num_heads": 1, "scale": 1.0, "domain": "com.microsoft"}
            nodes.append(helper.make_node("MultiHeadAttention", inputs, node.output, **options))
        elif role not in {"kt", "qk", "a"}:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def test_attention_of_onnxruntime_is_seen_through(tmp_path: Path) -> None:
    _, plain = export(CLASS_TOKEN.model(), tmp_path)
    expected = maps(plain)
    report, fused = export(with_microsoft_operator(CLASS_TOKEN.model()), tmp_path)
    assert report.verification.passed
    for method, found in maps(fused).items():
        np.testing.assert_allclose(found, expected[method], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("options", ["", ", softcap=0.5", ", is_causal=1", ", scale=2.0"])
@pytest.mark.parametrize("heads", [1, 2])
def test_operator_attention_with_heads_that_share_keys(
    tmp_path: Path, heads: int, options: str
) -> None:
    body = attention("embedded", "a") + attention("a", "b")
    shapes = weights("a", "b")
    for b in "ab":
        start, end = body.index(f"{b}kt ="), body.index(f"{b}p =")
        operator = f"{b}av = Attention<q_num_heads=2, kv_num_heads={heads}{options}>"
        body = f"{body[:start]}{operator}({b}q, {b}k, {b}v)\n    {body[end:]}"
        shapes |= {f"{b}wk": (4, 2 * heads), f"{b}wv": (4, 2 * heads)}
    tail = "head = ReduceMean<keepdims=0>(b, axis1)\n    " + TAIL.format(head="head")
    model = network(
        f"{PATCHES}{body}\n    {tail}",
        shapes,
        image="float[N, 3, 8, 12] image",
        integers=INTEGERS,
        opset=23,
        ir_version=11,
    )
    report, explainer = export(model, tmp_path)
    assert explainer.metadata.attention["heads"] == [2, 2]
    checks = {check.name: check for check in report.verification.checks}
    assert checks["attention"].value < 1e-5
    assert checks["LeGrad"].value < 2e-2
    assert all(found.std() > 1e-4 for found in maps(explainer).values())


@pytest.mark.parametrize("network", [CLASS_TOKEN, ATTENTION_POOLED])
def test_half_precision(tmp_path: Path, network: object) -> None:
    _, plain = export(network.model(), tmp_path)
    expected = maps(plain)
    report, half = export(converted(network.model(), HALF), tmp_path)
    assert report.verification.passed
    for method, found in maps(half).items():
        assert found.dtype == np.float32
        error = np.linalg.norm(found - expected[method]) / np.linalg.norm(expected[method])
        assert error < 1e-2


def test_the_last_blocks_alone(tmp_path: Path) -> None:
    _, explainer = export(CLASS_TOKEN.model(), tmp_path)
    whole = explainer.explain(IMAGES, 2)
    _, explainer = export(CLASS_TOKEN.model(), tmp_path, attention_blocks=1)
    last = explainer.explain(IMAGES, 2)
    for need, tokens in whole.further.items():
        np.testing.assert_allclose(last.further[need].values, tokens.values[:, -1:], rtol=1e-5)


def test_windows_before_the_last_stage_are_refused_by_rollout(tmp_path: Path) -> None:
    path = ZOO / "timm-swin_tiny_patch4_window7_224.onnx"
    message = (
        "rollout follows attention through all blocks, and 2 of 4 are not between the same tokens"
        " of the whole image: 'softmax_1' lies in windows.*--attention-blocks 2 takes the last"
    )
    with pytest.raises(UnsupportedModelError, match=message):
        export(path, tmp_path, "rollout")
    report, explainer = export(path, tmp_path, "rollout", attention_blocks=2)
    assert report.verification.passed
    assert explainer.metadata.attention["blocks"] == ["softmax_2", "softmax_3"]
    report, explainer = export(path, tmp_path, "legrad")
    assert report.warnings[0].startswith("LeGrad of the last 2 of 4 blocks alone: 'softmax_1' lies")
    assert explainer.metadata.attention["read"] == list(range(16))


def on_maps(block: str, stream: str) -> str:
    """Return a block between whose input and output the tokens are cells of a map (Visformer)."""
    b = block
    return f"""
    {b}rows = Reshape({stream}, to_rows)
    {b}t = Transpose<perm=[0, 2, 1]>({b}rows)
    {b}q = MatMul({b}t, {b}wq)
    {b}k = MatMul({b}t, {b}wk)
    {b}v = MatMul({b}t, {b}wv)
    {b}kt = Transpose<perm=[0, 2, 1]>({b}k)
    {b}qk = MatMul({b}q, {b}kt)
    {b}a = Softmax<axis=-1>({b}qk)
    {b}av = MatMul({b}a, {b}v)
    {b}back = Transpose<perm=[0, 2, 1]>({b}av)
    {b}map = Reshape({b}back, to_map)
    {b}x = Add({stream}, {b}map)
    {b}m = Conv<kernel_shape=[1,1]>({b}x, {b}w1)
    {b}g = Tanh({b}m)
    {b} = Add({b}x, {b}g)"""


def test_blocks_that_hand_on_maps(tmp_path: Path) -> None:
    shapes = weights()
    for b in "ab":
        shapes |= {f"{b}w{x}": (4, 4) for x in "qkv"} | {f"{b}w1": (4, 4, 1, 1)}
    model = network(
        "patches = Conv<kernel_shape=[2,2], strides=[2,2]>(image, we, be)"
        + on_maps("a", "patches")
        + on_maps("b", "a")
        + "\n    head4 = GlobalAveragePool(b)\n    head = Flatten(head4)\n    "
        + TAIL.format(head="head"),
        shapes,
        image="float[N, 3, 8, 12] image",
        integers={"to_rows": [0, 4, -1], "to_map": [0, 4, 4, 6]},
    )
    report, explainer = export(model, tmp_path)
    assert report.verification.passed
    said = explainer.metadata.attention
    assert (said["outputs"], said["read"]) == (["a", "b"], list(range(24)))
    images = IMAGES.copy()
    scores = explainer.explain(images, [1, 3]).further
    (attention_,) = (tokens.values for need, tokens in scores.items() if "gradients" not in need)
    mixed = (attention_ + np.eye(24)) / 2
    expected = np.mean(mixed[:, 1] @ mixed[:, 0], axis=1).reshape(2, 4, 6)
    np.testing.assert_allclose(maps(explainer)["rollout"], expected, rtol=1e-5)


def test_legrad_takes_the_blocks_that_there_are_and_says_so(tmp_path: Path) -> None:
    report, explainer = export(ZOO / "transformers-Segformer.onnx", tmp_path, "legrad")
    assert report.warnings == (
        "LeGrad of the last 1 of 4 blocks alone: 'val_292' has 4 keys for 16 queries: they are"
        " other tokens",
    )
    assert explainer.metadata.attention["grid"] == [2, 2]


def test_blocks_without_a_score_each(tmp_path: Path) -> None:
    body = CLASS_TOKEN.body.replace(
        attention("a", "b"), "\n    a2 = Mul(a, bs1)" + attention("a2", "b")
    )
    model = network(body, CLASS_TOKEN.weights, image=CLASS_TOKEN.image, integers=INTEGERS)
    message = "from attention 'aa' on do not all hand on the same tokens in the same way.*-blocks 1"
    with pytest.raises(UnsupportedModelError, match=message):
        export(model, tmp_path)
    assert export(model, tmp_path, "rollout")[0].verification.passed
    assert export(model, tmp_path, attention_blocks=1)[0].verification.passed


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="attention 'flow' is none of rollout, legrad, both"):
        export(CLASS_TOKEN.model(), tmp_path, "flow")
    with pytest.raises(UsageError, match="blocks are counted, but no attention is asked for"):
        export_model(CLASS_TOKEN.model(), tmp_path / "x.onnx", attention_blocks=2)


def test_a_block_without_a_gradient_is_named(tmp_path: Path) -> None:
    body = CLASS_TOKEN.body.replace("ag = Sigmoid(ah)", "ag = Reshape(ah, squares)")
    body = body.replace("am = MatMul(ag, aw2)", "ad = Det(ag)\n    am = Unsqueeze(ad, last_axis)")
    integers = {**INTEGERS, "squares": [0, 25, 2, 2], "last_axis": [2]}
    shapes = {name: shape for name, shape in CLASS_TOKEN.weights.items() if name != "aw2"}
    model = network(body, shapes, image=CLASS_TOKEN.image, integers=integers)
    report, _ = export(model, tmp_path, "rollout")
    assert report.verification.passed
    message = r"no LeGrad of block 1: no gradient formula for ai\.onnx::Det-17 .*/logits'; --atten"
    with pytest.raises(UnsupportedModelError, match=message):
        export(model, tmp_path, "legrad")


@pytest.mark.parametrize("objective", ["softmax", "sigmoid"])
def test_rollout_goes_with_every_objective(tmp_path: Path, objective: str) -> None:
    _, plain = export(CLASS_TOKEN.model(), tmp_path, "rollout")
    expected = plain.explain(IMAGES, 2, "rollout").raw_maps
    report, explainer = export(CLASS_TOKEN.model(), tmp_path, "rollout", objective=objective)
    assert report.verification.passed
    found = explainer.explain(IMAGES, 2, "rollout").raw_maps
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(UsageError, match="LeGrad asks how each block scores one class: leave out"):
        export(CLASS_TOKEN.model(), tmp_path, "legrad", objective=objective)


def test_rollout_of_several_classes_in_one_run(tmp_path: Path) -> None:
    _, plain = export(CLASS_TOKEN.model(), tmp_path, "rollout")
    expected = plain.explain(IMAGES[:1], 2, "rollout").raw_maps
    report, explainer = export(CLASS_TOKEN.model(), tmp_path, "rollout", several=True)
    assert report.verification.passed
    found = explainer.explain_classes(IMAGES[:1], [0, 1, 2], "rollout").raw_maps
    np.testing.assert_allclose(found, expected.repeat(3, axis=0), rtol=1e-6)
    with pytest.raises(UsageError, match="leave out --several and --objective"):
        export(CLASS_TOKEN.model(), tmp_path, several=True)


def test_legrad_of_weighted_classes_is_that_of_their_sum(tmp_path: Path) -> None:
    report, explainer = export(CLASS_TOKEN.model(), tmp_path, "legrad", weights=True)
    assert report.verification.passed
    whole = explainer.explain(IMAGES, 1, "legrad").raw_maps
    one = np.eye(5, dtype=np.float32)[[1]]
    weighted = explainer.explain(IMAGES, method="legrad", weights=2 * one).raw_maps
    np.testing.assert_allclose(weighted, 2 * whole, rtol=1e-4)
    contrast = explainer.explain(IMAGES, method="legrad", weights=one - one[:, ::-1]).raw_maps
    assert np.abs(contrast - whole).max() > 0.1 * whole.max()
