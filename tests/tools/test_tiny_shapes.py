"""The committed tiny network and its pictures, without the script that trained it."""

from __future__ import annotations

import json

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.runtime.preprocess import preprocess
from tools.make_models import MODELS
from tools.shapes import LABELS, SIZE, draw_random

FOLDER = MODELS / "tiny_shapes"
LAST_FEATURE_MAP = "/separable2/Relu_2_output_0"


@pytest.fixture(scope="module")
def recipe() -> Preprocessing:
    return Preprocessing.from_dict(json.loads((FOLDER / "preprocessing.json").read_text()))


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    model = onnx.load(str(MODELS / "tiny_shapes.onnx"))
    features = onnx.helper.make_tensor_value_info(LAST_FEATURE_MAP, 1, ["N", 96, 16, 16])
    model.graph.output.append(features)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def batch_of(pictures: list[np.ndarray], recipe: Preprocessing) -> np.ndarray:
    ready = [preprocess(p, recipe, "NCHW", np.dtype(np.float32))[0] for p in pictures]
    return np.stack(ready)


def test_the_file_is_small_and_plain() -> None:
    path = MODELS / "tiny_shapes.onnx"
    assert path.stat().st_size < 300_000
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    kinds = {node.op_type for node in model.graph.node}
    assert {"BatchNormalization", "MaxPool", "Add", "Sigmoid", "Mul", "Gemm"} <= kinds
    groups = {
        a.i
        for n in model.graph.node
        for a in n.attribute
        if n.op_type == "Conv"
        if a.name == "group"
    }
    assert max(groups) > 1


def test_it_knows_pictures_that_were_never_drawn_before(
    session: onnxruntime.InferenceSession, recipe: Preprocessing
) -> None:
    rng = np.random.default_rng(77)
    drawn = [draw_random(rng, 1 + index % 2) for index in range(120)]
    logits = session.run(["logits"], {"image": batch_of([p for p, _ in drawn], recipe)})[0]
    right = [
        {LABELS[i] for i in np.argsort(-row)[: len(shapes)]} == {s.label for s in shapes}
        for row, (_, shapes) in zip(logits, drawn, strict=True)
    ]
    assert np.mean(right) >= 0.95


def test_its_class_activation_maps_point_at_the_shape_of_the_class(
    session: onnxruntime.InferenceSession, recipe: Preprocessing
) -> None:
    """Pooling and a linear layer end it, so the map is the head's row times the features."""
    model = onnx.load(str(MODELS / "tiny_shapes.onnx"))
    head = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}["head.weight"]
    annotations = json.loads((FOLDER / "annotations.json").read_text())
    hits = []
    for name, objects in annotations.items():
        picture = cv2.imread(str(FOLDER / name))[..., ::-1]
        features = session.run([LAST_FEATURE_MAP], {"image": batch_of([picture], recipe)})[0][0]
        for found in objects:
            cam = np.tensordot(head[LABELS.index(found["label"])], features, 1)
            row, column = np.unravel_index(cam.argmax(), cam.shape)
            x, y = (column + 0.5) * SIZE / 16, (row + 0.5) * SIZE / 16
            x0, y0, x1, y1 = found["box"]
            hits.append(x0 <= x <= x1 and y0 <= y <= y1)
    assert len(hits) == 36
    assert np.mean(hits) >= 0.9


def test_the_annotations_fit_the_pictures() -> None:
    annotations = json.loads((FOLDER / "annotations.json").read_text())
    assert sorted(annotations) == sorted(path.name for path in FOLDER.glob("*.png"))
    assert len(annotations) == 24
    assert tuple((FOLDER / "labels.txt").read_text().split()) == LABELS
    counts = dict.fromkeys(LABELS, 0)
    for name, objects in annotations.items():
        picture = cv2.imread(str(FOLDER / name))
        assert picture.shape == (SIZE, SIZE, 3)
        assert len({found["label"] for found in objects}) == len(objects)
        for found in objects:
            x0, y0, x1, y1 = found["box"]
            assert 0 <= x0 < x1 <= SIZE
            assert 0 <= y0 < y1 <= SIZE
            counts[found["label"]] += 1
    assert set(counts.values()) == {6}
