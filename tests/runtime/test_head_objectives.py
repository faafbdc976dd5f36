"""Head runs of what is no class score: y is always the one that was asked for, or was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from onnx_gradcam import export_model, load
from onnx_gradcam.cam import Need
from onnx_gradcam.contract import SCORE_OUTPUT
from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.runtime import Explainer
from tests.export.objective_models import objective_model
from tests.export.objective_seeds import BOXES, CLASSES, EMBEDDING, IMAGES, MASK

Array = NDArray[Any]
PLACES = 20  # of A, 4 x 5


def explainer_of(body: str, folder: Path, batch: str = "N", **options: Any) -> Explainer:
    path = folder / f"model{len(list(folder.glob('*.onnx'))) or ''}.onnx"
    model = objective_model(body, batch=batch)
    export_model(model, path, layer="A", gradient_builder="reverse", verify=False, **options)
    return load(path, device="cpu")


def scores_of_places(
    path: Path, a: Array, image: Array, output: str, feeds: dict[str, Array]
) -> Array:
    """Return an output of the whole file for A with one place of an image kept."""
    model = onnx.load(path)
    for node in model.graph.node:
        node.input[:] = ["changed" if name == "A" else name for name in node.input]
    kind = onnx.TensorProto.FLOAT
    model.graph.input.append(onnx.helper.make_tensor_value_info("changed", kind, None))
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name=output))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options)
    kept = np.eye(PLACES, dtype=np.float32).reshape(PLACES, 1, 4, 5) * a
    names = {n.name for n in (*session.get_inputs(), *session.get_overridable_initializers())}
    found = []
    for one in kept:
        given = {"changed": one[None], "image": image[None], **feeds}
        found.append(session.run(None, {n: v for n, v in given.items() if n in names})[0][0])
    return np.array(found)


KINDS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("classifier", {"objective": "softmax"}, {"classes": CLASSES}, {"cam_class": CLASSES}),
    ("classifier", {"objective": "sigmoid"}, {"classes": CLASSES}, {"cam_class": CLASSES}),
    ("single logit", {"objective": "binary"}, {"classes": (1, 0)}, {"cam_class": (1, 0)}),
    (
        "classifier",
        {"weights": True},
        {"weights": [0, 1, 0, -1, 0]},
        {"cam_weights": [[0, 1, 0, -1, 0]] * 2},
    ),
    ("classifier", {"weights": True}, {"classes": CLASSES}, {"cam_class": CLASSES}),
    (
        "detector",
        {"objective": "detection", "class_channels": "4:"},
        {"classes": CLASSES, "box": list(BOXES)},
        {"cam_class": CLASSES, "cam_box": BOXES},
    ),
    (
        "embedder",
        {"objective": "similarity"},
        {"embedding": EMBEDDING},
        {"cam_embedding": EMBEDDING},
    ),
    (
        "segmenter",
        {"objective": "segmentation"},
        {"classes": CLASSES, "mask": MASK},
        {"cam_class": CLASSES, "cam_mask": [MASK] * 2},
    ),
]


@pytest.mark.parametrize(("body", "export", "asked", "feeds"), KINDS, ids=str)
def test_each_objective(
    body: str, export: dict[str, Any], asked: dict[str, Any], feeds: dict[str, Any], tmp_path: Path
) -> None:
    explainer = explainer_of(body, tmp_path, **export)
    found = explainer.explain(IMAGES, method="reciprocam", **asked)
    for image in range(2):
        seeds = {
            name: np.asarray(value[image])[None].astype(
                np.int64 if name in {"cam_class", "cam_box"} else np.float32
            )
            for name, value in feeds.items()
        }
        expected = scores_of_places(
            tmp_path / "model.onnx", found.activations[image], IMAGES[image], SCORE_OUTPUT, seeds
        )
        raw = found.raw_maps[image].reshape(-1)
        np.testing.assert_allclose(raw, expected, atol=1e-4 * np.abs(expected).max())
        assert np.ptp(raw) > 1e-4
    again = explainer.explain(IMAGES, method="ablationcam", **asked)
    assert again.notes == ("", "")


def test_the_best_box_stays_the_one_it_was(tmp_path: Path) -> None:
    options = {"objective": "detection", "class_channels": "4:"}
    explainer = explainer_of("detector", tmp_path, **options)
    best = explainer.explain(IMAGES, method="reciprocam")
    assert best.boxes is not None
    same = explainer.explain(IMAGES, best.classes.tolist(), "reciprocam", box=best.boxes)
    np.testing.assert_array_equal(best.raw_maps, same.raw_maps)
    kept = np.arange(PLACES) != best.boxes[0]
    assert np.ptp(best.raw_maps[0].reshape(-1)[kept]) > 0


@pytest.mark.parametrize("body", ["segmenter", "segmenter of one class", "channels-last segmenter"])
def test_the_region_of_a_class_stays_the_one_it_was(body: str, tmp_path: Path) -> None:
    explainer = explainer_of(body, tmp_path, objective="segmentation")
    found = explainer.explain(IMAGES, method="reciprocam")
    meta = explainer.metadata
    for image in range(2):
        path, a = tmp_path / "model.onnx", found.activations[image]
        session = explainer._reruns._parts.giving([meta.score_tensor])  # type: ignore[union-attr]
        order = (meta.class_axis, *meta.places)
        own = session.run([meta.score_tensor], {"image": IMAGES[image : image + 1]})[0]
        own = own.transpose(0, *order)[0]
        one = len(own) == 1
        region = own[0] > 0 if one else own.argmax(axis=0) == found.classes[image]
        assert 0 < region.mean() < 1
        scores = scores_of_places(path, a, IMAGES[image], meta.score_tensor, {})
        changed = scores.transpose(0, *(axis for axis in order))[:, found.classes[image]]
        expected = (changed * region).sum(axis=(1, 2))
        raw = found.raw_maps[image].reshape(-1)
        np.testing.assert_allclose(raw, expected, atol=1e-4 * np.abs(expected).max())


def test_several_classes_in_one_run(tmp_path: Path) -> None:
    explainer = explainer_of("classifier", tmp_path, several=True)
    single = explainer_of("classifier", tmp_path)
    asked = np.array([[1, 4, 0], [2, 3, -1]])
    found = explainer.explain(IMAGES, asked, "reciprocam")
    assert found.raw_maps.shape == (6, 4, 5)
    for row, (image, name) in enumerate([(i, n) for i in range(2) for n in range(3)]):
        alone = single.explain(IMAGES[image], int(asked[image, name]), "reciprocam")
        np.testing.assert_allclose(found.raw_maps[row], alone.raw_maps[0], atol=1e-5)
    several = explainer.explain_classes(IMAGES[:1], [0, 3], "ablationcam")
    each = single.explain_classes(IMAGES[:1], [0, 3], "ablationcam")
    np.testing.assert_allclose(several.raw_maps, each.raw_maps, atol=1e-4)


def test_masks_and_weights_of_a_fixed_batch(tmp_path: Path) -> None:
    options = {"objective": "segmentation", "weights": True}
    fixed = explainer_of("segmenter", tmp_path, batch="1", **options)
    free = explainer_of("segmenter", tmp_path, **options)
    for asked in ({"mask": MASK}, {}, {"weights": [1, -1, 0, 0, 2]}):
        found, expected = (
            e.explain(IMAGES, method="vitreciprocam", **asked) for e in (fixed, free)
        )
        np.testing.assert_allclose(found.raw_maps, expected.raw_maps, atol=1e-4)
        assert np.ptp(found.raw_maps) > 0.1


def test_runs_of_the_whole_model_are_of_classes(tmp_path: Path) -> None:
    explainer = explainer_of("classifier", tmp_path, objective="softmax")
    assert Need.MODEL_RUNS not in explainer._offered
    weighted = explainer_of("classifier", tmp_path, weights=True)
    assert Need.MODEL_RUNS in weighted._offered
    batch = weighted.image_input.fit(IMAGES)
    row = {"cam_weights": np.array([[1, -1, 0, 0, 0]] * 2, np.float32)}
    seeds = {"cam_class": np.array([-1, -1]), **row}
    found = weighted._run(batch, seeds, {}, 1)
    runs = weighted._further(batch, seeds, found, {}, 1)[Need.MODEL_RUNS]
    with pytest.raises(UnsupportedModelError, match="explain classes, and these are weights"):
        _ = runs.scores
