"""Objectives other than a class: gradients against central differences of y in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_gradcam.contract import OBJECTIVES
from onnx_gradcam.errors import (
    UnsupportedModelError,
    UsageError,
    VerificationError,
)
from onnx_gradcam.export import seed as seed_module
from onnx_gradcam.export.inspection import inspect_model
from onnx_gradcam.export.objective import KINDS
from onnx_gradcam.export.pipeline import export_model
from tests.export.exported_objective import Exported, Outputs
from tests.export.objective_models import BODIES, objective_model


def assert_gradient(exported: Exported, found: Outputs, y: Any) -> None:
    """Compare dy/dA with central differences along three directions; `y` is of the score tensor."""
    activations, gradients = found["cam_activations"], found["cam_gradients"]
    assert np.linalg.norm(gradients) > 1e-3
    at_point = y(exported.scores(activations))
    if "cam_score" in found:
        np.testing.assert_allclose(found["cam_score"], at_point, rtol=2e-4, atol=1e-5)
    random = np.random.default_rng(7)
    for direction in (gradients, random.normal(size=gradients.shape), np.sign(gradients)):
        step = 2e-2 * direction / np.abs(direction).max()
        slope = y(exported.scores(activations + step)) - y(exported.scores(activations - step))
        claimed = 2 * (gradients * step).reshape(len(step), -1).sum(axis=1)
        size = np.linalg.norm(gradients) * np.linalg.norm(step)
        np.testing.assert_allclose(slope / size, claimed / size, atol=2e-3)


def softmax(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def sigmoid(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(1 / (1 + np.exp(-scores)))


W = np.array([[1, 0, -1, 0.5, 0], [0, 0, 2, 0, -3]], np.float32)
SECOND = np.array([[0], [1]], np.float32)
ROWS = np.arange(2)


@pytest.mark.parametrize("body", ["classifier", "logits", "scores in maps"])
def test_weights_of_classes(tmp_path: Path, body: str) -> None:
    exported = Exported(tmp_path, body, weights=True)
    found = exported.run(weights=W)
    assert found["cam_classes"].tolist() == [-1, -1]
    assert_gradient(exported, found, lambda z: (W * z.reshape(2, 5)).sum(axis=1))
    mixed = exported.run(weights=W * SECOND, **{"class": [3, 3]})
    assert mixed["cam_classes"].tolist() == [3, -1]
    assert_gradient(
        exported, mixed, lambda z: np.array([z.reshape(2, 5)[0, 3], W[1] @ z.reshape(2, 5)[1]])
    )
    plain = exported.run(**{"class": [1]})
    assert plain["cam_classes"].tolist() == [1, 1]
    assert_gradient(exported, plain, lambda z: z.reshape(2, 5)[:, 1])


@pytest.mark.parametrize("opset", [9, 12, 13, 18])
@pytest.mark.parametrize(("kind", "squash"), [("softmax", softmax), ("sigmoid", sigmoid)])
def test_probabilities(tmp_path: Path, kind: str, squash: Any, opset: int) -> None:
    exported = Exported(tmp_path, "logits", opset, objective=kind, weights=True)
    found = exported.run(**{"class": [4, -2]})
    classes = found["cam_classes"]
    assert classes[0] == 4
    assert_gradient(exported, found, lambda z: squash(z)[ROWS, classes])
    assert_gradient(exported, exported.run(weights=W), lambda z: (W * squash(z)).sum(axis=1))


def test_both_sides_of_a_single_logit(tmp_path: Path) -> None:
    exported = Exported(tmp_path, "single logit", objective="binary")
    assert exported.metadata.num_classes == 2
    positive, negative = exported.run(**{"class": [1]}), exported.run(**{"class": [0]})
    assert_gradient(exported, positive, lambda z: z[:, 0])
    assert_gradient(exported, negative, lambda z: -z[:, 0])
    likelier = (exported.scores(positive["cam_activations"])[:, 0] > 0).astype(int)
    assert exported.run()["cam_classes"].tolist() == likelier.tolist()
    assert exported.run(**{"class": [-2]})["cam_classes"].tolist() == (1 - likelier).tolist()


@pytest.mark.parametrize("opset", [13, 17, 18])
@pytest.mark.parametrize("body", ["segmenter", "segmenter of labels"])
def test_a_class_over_its_region_or_a_mask(tmp_path: Path, body: str, opset: int) -> None:
    exported = Exported(tmp_path, body, opset, objective="segmentation")
    found = exported.run()
    z = exported.scores(found["cam_activations"])
    areas = (z.argmax(axis=1)[:, None] == np.arange(5)[:, None, None]).sum(axis=(2, 3))
    assert found["cam_classes"].tolist() == areas.argmax(axis=1).tolist()
    classes = np.argsort(-areas, axis=1, kind="stable")[:, 1]
    second = exported.run(**{"class": [-2]})
    assert second["cam_classes"].tolist() == classes.tolist()
    region = z.argmax(axis=1) == classes[:, None, None]
    assert region.any(axis=(1, 2)).all()
    assert_gradient(exported, second, lambda s: (s[ROWS, classes] * region).sum(axis=(1, 2)))
    mask = np.random.default_rng(3).random((2, *z.shape[2:])).astype(np.float32)
    masked = exported.run(mask=mask, **{"class": [2]})
    assert_gradient(exported, masked, lambda s: (s[:, 2] * mask).sum(axis=(1, 2)))


def test_a_single_class_is_segmented_where_its_logit_is_positive(tmp_path: Path) -> None:
    exported = Exported(tmp_path, "segmenter of one class", objective="segmentation")
    found = exported.run()
    region = exported.scores(found["cam_activations"]) > 0
    assert 0 < region.mean() < 1
    assert_gradient(exported, found, lambda s: (s * region).sum(axis=(1, 2, 3)))


def test_maps_with_the_classes_last(tmp_path: Path) -> None:
    exported = Exported(
        tmp_path, "channels-last segmenter", objective="segmentation", class_axis=-1, weights=True
    )
    mask = np.random.default_rng(3).random((1, 4, 5)).astype(np.float32)
    found = exported.run(mask=mask, **{"class": [0, 3]})
    picked = np.array([0, 3])
    assert_gradient(exported, found, lambda s: (s[ROWS, :, :, picked] * mask).sum(axis=(1, 2)))
    everywhere = exported.run(weights=W)
    assert_gradient(exported, everywhere, lambda s: np.einsum("nhwk,nk->n", s, W))


def test_a_class_in_a_box(tmp_path: Path) -> None:
    exported = Exported(tmp_path, "detector", objective="detection", class_channels="4:")
    assert exported.metadata.score_tensor == "flat"  # before the sigmoid, behind which boxes join
    found = exported.run()
    z = exported.scores(found["cam_activations"])
    for image in ROWS:
        best = np.unravel_index(z[image].argmax(), z[image].shape)
        assert (found["cam_classes"][image], found["cam_boxes"][image]) == best
    chosen = exported.run(box=[7, 19], **{"class": [2]})
    assert chosen["cam_boxes"].tolist() == [7, 19]
    assert_gradient(exported, chosen, lambda s: s[ROWS, 2, [7, 19]])
    third = exported.run(box=[-3], **{"class": [1]})
    boxes = np.argsort(-z[:, 1], axis=1, kind="stable")[:, 2]
    assert third["cam_boxes"].tolist() == boxes.tolist()
    assert_gradient(exported, third, lambda s: s[ROWS, 1, boxes])


def test_some_of_the_channels_are_classes(tmp_path: Path) -> None:
    exported = Exported(
        tmp_path, "detector", objective="detection", class_channels="5:8", weights=True
    )
    found = exported.run(box=[3], **{"class": [1]})
    assert_gradient(exported, found, lambda s: s[:, 6, 3])
    weighted = exported.run(box=[3], weights=W[:, :3])
    assert_gradient(exported, weighted, lambda s: (s[:, 5:8, 3] * W[:, :3]).sum(axis=1))


def test_queries_with_a_last_class_of_no_object(tmp_path: Path) -> None:
    exported = Exported(
        tmp_path, "detector of queries", objective="detection", class_channels=":-1"
    )
    assert exported.metadata.num_classes == 4
    found = exported.run(box=[11], **{"class": [3]})
    assert_gradient(exported, found, lambda s: s[:, 11, 3])


def test_similarity_to_an_embedding(tmp_path: Path) -> None:
    exported = Exported(tmp_path, "embedder", objective="similarity")
    t = np.random.default_rng(9).normal(size=(2, 5)).astype(np.float32)

    def cosine(e: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return (e * t).sum(axis=1) / np.linalg.norm(e, axis=1) / np.linalg.norm(t, axis=1)

    assert_gradient(exported, exported.run(embedding=t), cosine)
    required = [i.name for i in exported.session.get_inputs()]
    assert required == ["image", "cam_embedding"]


@pytest.mark.parametrize(
    ("body", "options", "name", "asked"),
    [
        ("classifier", {}, "class", [[0, 4, -1], [2, -2, 1]]),
        ("classifier", {"objective": "softmax", "weights": True}, "weights", np.stack([W, -W], 1)),
        ("segmenter", {"objective": "segmentation"}, "class", [[1, 2], [4, -1]]),
        ("detector", {"objective": "detection", "class_channels": "4:"}, "box", [[1, 7], [-1, 2]]),
        ("embedder", {"objective": "similarity"}, "embedding", np.stack([W, 1 + W], 1)),
    ],
)
def test_several_in_one_run_are_what_each_is_alone(
    tmp_path: Path, body: str, options: dict[str, Any], name: str, asked: Any
) -> None:
    one = Exported(tmp_path, body, **options)
    together = Exported(tmp_path, body, several=True, force=True, **options).run(**{name: asked})
    count = np.shape(asked)[1]
    assert together["cam_gradients"].shape[:2] == (2, count)
    for index in range(count):
        alone = one.run(**{name: np.asarray(asked)[:, index]})
        for output in ("cam_gradients", "cam_classes", "cam_boxes", "cam_score"):
            if output in alone:
                np.testing.assert_allclose(
                    together[output][:, index], alone[output], rtol=1e-5, atol=1e-7
                )
    assert not np.allclose(together["cam_gradients"][:, 0], together["cam_gradients"][:, 1])


def test_what_does_not_depend_on_the_class_is_computed_once(tmp_path: Path) -> None:
    path = tmp_path / "several.onnx"
    export_model(objective_model("segmenter"), path, objective="segmentation", several=True)
    graph = onnx.load(path).graph
    (scan,) = (node for node in graph.node if node.op_type == "Scan")
    body = scan.attribute[0].g if scan.attribute[0].name == "body" else scan.attribute[-1].g
    for attribute in scan.attribute:
        body = attribute.g if attribute.name == "body" else body
    made = {"onnx_gradcam/several/seed"}
    for node in body.node:
        if not node.output[0].rpartition("/")[2].startswith(("Shape", "Slice", "Concat")):  # sizes
            assert made & set(node.input), node
            made |= set(node.output)


@pytest.mark.parametrize("kind", ["softmax", "binary", "segmentation", "detection", "similarity"])
def test_a_wrong_seed_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    emitted = seed_module._EMITTED[kind]

    def wrong(writer: Any) -> seed_module.Seed:
        found = emitted(writer)
        twice = writer.emit.mul(found.seed, 1.1)
        return seed_module.Seed(twice, found.classes, found.score, found.boxes)

    monkeypatch.setitem(seed_module._EMITTED, kind, wrong)
    bodies = {"binary": "single logit", "segmentation": "segmenter", "similarity": "embedder"}
    body = bodies.get(kind, "classifier" if kind == "softmax" else "detector")
    options = {"class_channels": "4:"} if kind == "detection" else {}
    with pytest.raises(VerificationError, match="central differences differ by"):
        export_model(
            objective_model(body), tmp_path / "x.onnx", objective=kind,
            gradient_builder="reverse", **options,
        )  # fmt: skip


def test_a_wrong_score_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emitted = seed_module._EMITTED["softmax"]

    def wrong(writer: Any) -> seed_module.Seed:
        found = emitted(writer)
        return seed_module.Seed(found.seed, found.classes, writer.emit.mul(found.score, 1.1))

    monkeypatch.setitem(seed_module._EMITTED, "softmax", wrong)
    with pytest.raises(VerificationError, match="cam_score is"):
        export_model(objective_model("classifier"), tmp_path / "x.onnx", objective="softmax")


@pytest.mark.parametrize(
    ("body", "options", "message"),
    [
        ("classifier", {"objective": "sotfmax"}, "no objective 'sotfmax'; did you mean 'softmax'"),
        ("single logit", {"objective": "binary", "weights": True}, "no classes that could be wei"),
        ("embedder", {"objective": "similarity", "class_input": "fixed:1"}, "no class that could"),
        ("classifier", {"several": True, "class_input": "fixed:1"}, "takes neither weights nor"),
        ("classifier", {"class_channels": "4:"}, "--class-channels goes with"),
        ("classifier", {"class_axis": 1}, "--class-axis goes with"),
        ("detector", {"objective": "detection", "class_channels": "4"}, "are no range such as"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, body: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        export_model(objective_model(body), tmp_path / "x.onnx", **options)


@pytest.mark.parametrize(
    ("body", "options", "message"),
    [
        ("classifier", {"objective": "binary"}, "holds 5 scores: the objective binary takes one"),
        ("classifier", {"objective": "segmentation"}, "no output holds scores for segmentation"),
        ("segmenter", {"objective": "detection"}, r"'y' of shape \(N, 5, 8, 10\) is no score for"),
        ("detector", {"objective": "detection", "class_channels": "12:"}, "leave nothing of the 9"),
        ("segmenter", {"objective": "segmentation", "class_axis": 7}, "has no class axis 7"),
        ("detector", {"objective": "detection", "layer": "flat"}, "'flat' is the score itself"),
    ],
)
def test_models_that_have_no_such_score(
    tmp_path: Path, body: str, options: dict[str, Any], message: str
) -> None:
    given = {"class_channels": "4:"} if options.get("layer") else {}
    with pytest.raises(UnsupportedModelError, match=message):
        export_model(objective_model(body), tmp_path / "x.onnx", **given, **options)


def test_several_classes_need_scan(tmp_path: Path) -> None:
    model = objective_model("logits")
    model.opset_import[0].version = 8
    with pytest.raises(UnsupportedModelError, match="several classes per run need opset 9"):
        export_model(model, tmp_path / "x.onnx", several=True)


def test_required_inputs_have_no_default(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    export_model(
        objective_model("segmenter"), path, objective="segmentation", weights=True,
        class_input="required",
    )  # fmt: skip
    model = onnx.load(path)
    names = [i.name for i in model.graph.input]
    assert names == ["image", "cam_class", "cam_weights", "cam_mask"]
    assert not {t.name for t in model.graph.initializer} & set(names)


def test_every_body_is_used() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{body}"' in text for body in BODIES)


def test_sizes_in_the_body_of_the_scan_are_declared(tmp_path: Path) -> None:
    model = objective_model("segmenter", batch="N")
    nodes = {node.output[0]: node for node in model.graph.node}
    resize = nodes["y"]  # as torchvision writes it: to the size of the image
    resize.input[:] = ["small", "", "", "sizes"]
    body = onnx.parser.parse_graph(
        """g (float[N, 3, 8, 10] image) => (int64[4] sizes) {
          whole = Shape (image)
          places = Slice (whole, two, four)
          small_shape = Shape (small)
          start = Slice (small_shape, none, two)
          sizes = Concat <axis = 0> (start, places)
        }"""
    )
    index = list(model.graph.node).index(resize)
    rest = list(model.graph.node)[index:]
    del model.graph.node[index:]
    model.graph.node.extend([*body.node, *rest])
    for name, value in {"two": 2, "four": 4, "none": 0}.items():
        tensor = onnx.numpy_helper.from_array(np.array([value]), name)
        model.graph.initializer.append(tensor)
    report = export_model(
        model, tmp_path / "x.onnx", objective="segmentation", several=True,
        gradient_builder="reverse",
    )  # fmt: skip
    assert report.verification is not None
    assert report.verification.passed


def test_inspect_finds_the_scores_and_layers_of_a_detector() -> None:
    report = inspect_model(objective_model("detector"), objective="detection", class_channels="4:")
    assert report.scores[0].num_classes == 5
    assert report.recommended is not None
    assert report.candidates[report.recommended].tensor == "hidden_map"
    plain = inspect_model(objective_model("detector"))
    assert "more than a class axis" in plain.reason


def test_the_command_line_knows_all_objectives() -> None:
    assert tuple(KINDS) == OBJECTIVES


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_probabilities_near_zero_and_one_are_proven(tmp_path: Path, kind: str) -> None:
    model = objective_model("logits")
    for tensor in model.graph.initializer:
        if tensor.name in {"head", "bias"}:  # scores of tens: probabilities down to 1e-20
            steep = 12 * onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(steep, tensor.name))
    report = export_model(model, tmp_path / "x.onnx", objective=kind, weights=True)
    assert report.verification is not None
    (check,) = (c for c in report.verification.checks if c.name == "gradient")
    assert "agree to" in check.detail  # measured, not lost in rounding
