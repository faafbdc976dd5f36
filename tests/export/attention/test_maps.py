"""Which attention is found in real architectures (tests/zoo) and in transformers in miniature."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import ModelProto

from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.export.attention.blocks import Blocks, find_blocks
from onnx_gradcam.export.attention.maps import AttentionMap, Unusable, find_attention
from onnx_gradcam.export.expansion import expand
from onnx_gradcam.export.files.model_file import load_model
from onnx_gradcam.export.image_choice import choose_image
from onnx_gradcam.export.score import find_score
from onnx_gradcam.export.spatial.feature_maps import FeatureMaps
from onnx_gradcam.export.target_layer import data_flow
from tests.export.networks import network
from tests.export.spatial.transformers import (
    ATTENDED,
    ATTENTION_POOLED,
    CLASS_TOKEN,
    GROWING,
    INTEGERS,
    MIXER,
    POOLED,
    TAIL,
    WINDOWS,
)
from tests.export.spatial.transformers import attention as attention_block

ZOO = Path(__file__).parents[2] / "zoo"
Model = ModelProto | Path


def blocks(model: Model, count: int | None = None) -> Blocks:
    graph = expand(load_model(model).model)
    score = find_score(graph)
    return find_blocks(graph, choose_image(graph, score, None), score, count)


def attention(model: Model) -> list[AttentionMap | Unusable]:
    graph = expand(load_model(model).model)
    score = find_score(graph)
    image = choose_image(graph, score, None)
    return find_attention(graph, FeatureMaps(graph, image), data_flow(graph, image, score))


def zoo(name: str) -> Path:
    (path,) = ZOO.glob(f"*-{name}*.onnx")
    return path


@pytest.mark.parametrize(
    ("name", "rows", "first", "read", "outputs"),
    [
        (
            "deit_tiny_distilled",
            18,
            2,
            (0, 1),
            ("/blocks/blocks.0/Add_1_output_0", "/blocks/blocks.1/Add_1_output_0"),
        ),
        ("beit", 17, 1, tuple(range(1, 17)), ("add_114", "add_212")),
        ("eva02", 17, 1, tuple(range(1, 17)), ("add_272", "add_523")),
        ("vit_little", 20, 4, tuple(range(4, 20)), ("add_119", "add_217")),
        (
            "ViT",
            17,
            1,
            (0,),
            ("/model/vit/layers.0/Add_1_output_0", "/model/vit/layers.1/Add_1_output_0"),
        ),
    ],
)
def test_blocks_of_vision_transformers(
    name: str, rows: int, first: int, read: tuple[int, ...], outputs: tuple[str, ...]
) -> None:
    found = blocks(zoo(name))
    assert [m.heads for m in found.maps] == [2, 2]
    assert (found.tokens.rows, found.tokens.grid) == (rows, (4, 4))
    assert found.tokens.order == tuple(range(first, first + 16))
    assert found.read == read
    assert found.outputs == outputs
    assert found.pooling is None
    assert not found.left_out


@pytest.mark.parametrize("model", [zoo("vit_base_patch16_siglip"), ATTENTION_POOLED.model()])
def test_pooling_by_attention_is_told_from_blocks(model: Model) -> None:
    found = blocks(model)
    assert found.pooling is not None
    assert found.pooling.pooling
    assert found.pooling.tokens == found.tokens
    assert not any(m.pooling for m in found.maps)
    assert found.read == ()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cait", r"'/blocks/blocks\.1/attn/Softmax_output_0' is not multiplied with values"),
        ("volo", "'softmax_2' is that of a class token that joins late"),
        ("xcit", "'softmax_1' runs between channels, not between tokens"),
        ("edgenext", "'softmax_2' runs between channels"),
        ("MaxVit", "'softmax_3' lies in windows: its tokens see a part of the image alone"),
        ("hiera", "'softmax_3' has 16 keys for 4 queries: they are other tokens"),
        ("Cvt", "'softmax_5' has 5 keys for 17 queries"),
        ("resnest14d", "is not multiplied with values"),
        ("resnet18", "the model has no attention: rollout and LeGrad are for vision transformers"),
        ("mixer", "the model has no attention"),
    ],
)
def test_what_is_no_attention_between_tokens_of_the_whole_image(name: str, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        blocks(zoo(name))


@pytest.mark.parametrize(
    ("name", "used", "reason"),
    [
        ("swin_tiny", 2, "lies in windows: its tokens see a part of the image alone"),
        ("tnt", 1, "lies in windows: its tokens see a part of the image alone"),
        ("Segformer", 1, "has 4 keys for 16 queries: they are other tokens"),
    ],
)
def test_earlier_attention_that_is_left_out_is_named(name: str, used: int, reason: str) -> None:
    found = blocks(zoo(name))
    assert len(found.maps) == used
    assert found.left_out[-1].reason == reason


def test_miniatures_of_one_head_without_an_axis_for_it() -> None:
    found = blocks(CLASS_TOKEN.model())
    assert [(m.weights, m.heads, m.joined) for m in found.maps] == [
        ("aa", 1, True),
        ("ba", 1, True),
    ]
    assert found.outputs == ("a", "b")
    assert found.read == (0,)
    assert found.tokens.order == tuple(range(1, 25))
    pooled = blocks(POOLED.model())
    assert pooled.outputs == ("a", "b")
    assert pooled.read == tuple(range(24))
    with pytest.raises(UnsupportedModelError, match="'aa' lies in windows"):
        blocks(WINDOWS.model())
    with pytest.raises(UnsupportedModelError, match="has no attention"):
        blocks(MIXER.model())


def test_the_last_blocks_alone() -> None:
    found = blocks(CLASS_TOKEN.model(), 1)
    assert [m.weights for m in found.maps] == ["ba"]
    assert not found.left_out
    assert found.read == (0,)
    with pytest.raises(UnsupportedModelError, match="3 attention blocks were asked for, the model"):
        blocks(CLASS_TOKEN.model(), 3)
    with pytest.raises(
        UnsupportedModelError, match=r"has 2 that attend.*'softmax_1' lies in windo"
    ):
        blocks(zoo("swin_tiny"), 3)
    with pytest.raises(UsageError, match="0 attention blocks; at least 1"):
        blocks(CLASS_TOKEN.model(), 0)


def test_weights_that_something_else_reads_too() -> None:
    body = CLASS_TOKEN.body.replace(
        "bx = Add(a, bp)", "bw = MatMul(ba, bn1)\n    bpw = Add(bp, bw)\n    bx = Add(a, bpw)"
    )
    model = network(body, CLASS_TOKEN.weights, image=CLASS_TOKEN.image, integers=INTEGERS)
    with pytest.raises(UnsupportedModelError, match="'ba' is not multiplied with values as it is"):
        blocks(model)


def test_blocks_side_by_side() -> None:
    body = CLASS_TOKEN.body.replace(attention_block("a", "b"), attention_block("x0", "b"))
    body = body.replace("(b, bs1, bb1)", "(both, bs1, bb1)")
    body = body.replace("    last = ", "    both = Add(a, b)\n    last = ")
    model = network(body, CLASS_TOKEN.weights, image=CLASS_TOKEN.image, integers=INTEGERS)
    with pytest.raises(UnsupportedModelError, match="'aa' and 'ba' stand side by side"):
        blocks(model)


def test_attention_beside_the_way_of_all_paths() -> None:
    body = (
        ATTENDED
        + """
    left_head = ReduceMean<axes=[1], keepdims=0>(a)
    right_head = ReduceMean<axes=[1], keepdims=0>(b)
    head = Add(left_head, right_head)
    """
    )
    shapes = {**POOLED.weights, "we2": (4, 3, 2, 2)}
    model = network(body + TAIL.format(head="head"), shapes, image=POOLED.image, integers=INTEGERS)
    with pytest.raises(UnsupportedModelError, match="'aa' and 'ba' stand side by side"):
        blocks(model)
    message = "behind attention 'ba' the score passes through no layer of its tokens"
    with pytest.raises(UnsupportedModelError, match=message):
        blocks(model, 1)


def test_blocks_that_end_in_another_way_each() -> None:
    body = CLASS_TOKEN.body.replace(
        attention_block("a", "b"), "\n    a2 = Mul(a, bs1)" + attention_block("a2", "b")
    )
    model = network(body, CLASS_TOKEN.weights, image=CLASS_TOKEN.image, integers=INTEGERS)
    assert blocks(model).outputs == ()
    assert blocks(model, 1).outputs == ("last",)


def test_a_number_of_tokens_that_depends_on_the_image() -> None:
    with pytest.raises(UnsupportedModelError, match="depends on the size of the image; export the"):
        blocks(GROWING.model())


CROSSED = """
    rows = Reshape(image, to_rows)
    upper = Slice(rows, zero, half, axis)
    lower = Slice(rows, half, end, axis)
    q = Transpose<perm=[0, 2, 1]>(upper)
    v = Transpose<perm=[0, 2, 1]>(lower)
    qk = MatMul(q, lower)
    a = Softmax<axis=AXIS>(qk)
    o = MatMul(a, v)
    mean = ReduceMean<axes=[1], keepdims=0>(o)
    logits = MatMul(mean, w)"""


@pytest.mark.parametrize(
    ("axis", "reason"),
    [
        (-1, "has queries and keys that are not the same tokens"),
        (1, "does not run over the keys"),
    ],
)
def test_one_half_of_the_image_that_asks_the_other(axis: int, reason: str) -> None:
    model = network(
        CROSSED.replace("AXIS", str(axis)),
        {"w": (3, 5)},
        integers={"to_rows": [0, 3, -1], "zero": [0], "half": [32], "end": [64], "axis": [2]},
    )
    (found,) = attention(model)
    assert found == Unusable("a", reason)
