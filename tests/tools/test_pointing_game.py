"""The pointing game's own sums, on heat maps whose maximum is known, and on the tiny network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import onnx_gradcam
from onnx_gradcam.evaluation.annotations import mask_on_input
from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.runtime.preprocess import crop_geometry, preprocess
from tests.shared_material import shared_folder
from tools.make_models import MODELS
from tools.pointing_game import play, report, summary
from tools.pointing_targets import (
    Target,
    annotated_targets,
    box_mask,
    mosaic_targets,
    voc_boxes,
)


@pytest.mark.parametrize(
    ("size", "resize", "crop"),
    [
        ((60, 100), 32, (28, 28)),
        ((100, 60), 32, (28, 28)),
        ((64, 64), (64, 64), None),
        ((20, 30), None, (24, 24)),
        ((50, 40), (100, 20), (30, 16)),
    ],
)
def test_a_mask_goes_the_way_of_the_picture(size: Any, resize: Any, crop: Any) -> None:
    """A white box on black, preprocessed, is white where the carried mask is true."""
    height, width = size
    mask = box_mask(size, [(width // 4, height // 3, width * 3 // 5, height * 2 // 3)])
    photo = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    recipe = Preprocessing(resize=resize, crop=crop, antialias=False, interpolation="bilinear")
    image, geometry = preprocess(photo, recipe, "NCHW", np.dtype(np.float32))
    carried = mask_on_input(mask, geometry)
    assert carried.shape == image.shape[1:]
    certain = abs(image[0] - 127.5) > 100
    np.testing.assert_array_equal(carried[certain], image[0][certain] > 127)
    assert certain.mean() > 0.7
    assert carried.any()


def fake_explainer(cams: dict[str, np.ndarray], scores: dict[str, float], size: Any) -> Any:
    """An explainer that answers with given heat maps, without resize or crop."""

    def explain_image(photo: Path, classes: list[str], method: str) -> Any:
        assert method == "gradcam"
        return SimpleNamespace(
            class_scores=np.array([scores[name] for name in classes]),
            class_names=tuple(classes),
            cams=np.stack([cams[name] for name in classes]),
            geometry=crop_geometry(size, Preprocessing()),
        )

    return SimpleNamespace(explain_image=explain_image)


def peak(row: int, column: int) -> np.ndarray:
    cam = np.full((20, 30), 0.1, np.float32)
    cam[row, column] = 1
    return cam


def test_hits_misses_and_the_other_object_are_told_apart() -> None:
    size = (20, 30)
    left, right = box_mask(size, [(2, 2, 12, 18)]), box_mask(size, [(14, 2, 28, 18)])
    explainer = fake_explainer(
        {"cat": peak(5, 5), "dog": peak(5, 20), "fox": peak(19, 0), "owl": np.zeros(size)},
        {"cat": 1.0, "dog": 2.0, "fox": 3.0, "owl": 4.0},
        size,
    )
    photo = Path("a.jpg")

    def result(*labels: str, other: Any = right) -> Any:
        return play(explainer, Target("g", "a.jpg", photo, labels, left, other), "gradcam")

    cat, dog, fox, owl = (result(label) for label in ("cat", "dog", "fox", "owl"))
    assert (cat.hit, cat.hit_other) == (True, False)
    assert (dog.hit, dog.hit_other) == (False, True)
    assert (fox.hit, fox.hit_other) == (False, False)
    assert (owl.hit, owl.hit_other, owl.energy) == (False, False, 0.0)
    assert result("cat", "dog").label == "dog"
    assert result("cat", other=None).hit_other is None
    assert cat.area == pytest.approx(160 / 600)
    assert cat.energy == pytest.approx((159 * 0.1 + 1) / (599 * 0.1 + 1))
    assert not cat.centre
    assert play(explainer, Target("g", "a.jpg", photo, ("cat",), right), "gradcam").centre

    lines = summary([cat, dog, fox])
    assert lines[2] == "| g | 1 of 3 | 1 of 3 | 0 of 3 | 27 % | 27 % |"
    page = report("gradcam", {"a model": [cat, dog]}, "by {method}")
    assert "| a.jpg | dog | on the other | no | 26 % | 27 % |" in page


def test_groups_are_counted_alone_and_together() -> None:
    explainer = fake_explainer({"cat": peak(5, 5)}, {"cat": 1.0}, (20, 30))
    mask = box_mask((20, 30), [(0, 0, 30, 10)])
    targets = [Target(g, "a", Path("a"), ("cat",), m) for g, m in (("g", mask), ("h", ~mask))]
    lines = summary([play(explainer, target, "gradcam") for target in targets])
    hits = [line.split(" | ")[:2] for line in lines[2:]]
    assert hits == [["| g", "1 of 1"], ["| h", "0 of 1"], ["| **together**", "1 of 2"]]


def test_every_photo_is_once_in_every_quarter_of_the_mosaics(tmp_path: Path) -> None:
    for index in range(50):
        color = np.full((8, 12, 3), index * 5, np.uint8)
        cv2.imwrite(str(tmp_path / f"{index:03d}_x.png"), color)
    labels = [f"label {index}" for index in range(50)]
    targets = list(mosaic_targets(tmp_path, labels))
    assert len(targets) == 200
    seen = set()
    for target in targets:
        assert isinstance(target.photo, np.ndarray)
        assert target.photo.shape == (448, 448, 3)
        (value,) = np.unique(target.photo[target.mask])
        assert target.labels == (f"label {value // 5}",)
        assert target.other is not None
        assert value not in np.unique(target.photo[target.other])
        assert target.mask.sum() == 224 * 224
        seen.add((value, *np.argwhere(target.mask)[0]))
    assert len(seen) == 200


def test_voc_boxes_count_from_one_and_include_their_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(
        "<annotation><object><name>x</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>10</xmax>"
        "<ymax>20</ymax></bndbox></object></annotation>"
    )
    assert voc_boxes(path) == [(0, 1, 10, 20)]


def test_the_tiny_network_looks_at_the_shape_it_is_asked_for(tmp_path: Path) -> None:
    folder = MODELS / "tiny_shapes"
    onnx_gradcam.export_model(
        MODELS / "tiny_shapes.onnx",
        tmp_path / "tiny.cam.onnx",
        gradient_builder="reverse",
        preprocess=folder / "preprocessing.json",
        labels=folder / "labels.txt",
    )
    explainer = onnx_gradcam.load(tmp_path / "tiny.cam.onnx", device="cpu")
    results = [
        play(explainer, target, "gradcam") for target in annotated_targets(folder, "{count}")
    ]
    assert len(results) == 36
    assert sum(result.hit for result in results) >= 34
    assert sum(result.centre for result in results) <= 12
    pairs = [result for result in results if result.hit_other is not None]
    assert len(pairs) == 24
    assert sum(bool(result.hit_other) for result in pairs) <= 1
    energies, areas = ([getattr(r, name) for r in results] for name in ("energy", "area"))
    assert np.mean(energies) > 3 * np.mean(areas)


@pytest.mark.real_models
def test_the_demonstration_model_finds_its_class_in_mosaics(tmp_path: Path) -> None:
    photos = shared_folder("photos") / "imagenet"
    model = MODELS / "efficientnet_lite0.onnx"
    if not model.is_file():
        pytest.skip(f"no {model.name}; build it with: python tools/make_models.py")
    onnx_gradcam.export_model(
        model,
        tmp_path / "it.cam.onnx",
        gradient_builder="reverse",
        preprocess="efficientnet-lite",
        labels=MODELS / "imagenet_classes.txt",
    )
    explainer = onnx_gradcam.load(tmp_path / "it.cam.onnx", device="cpu")
    targets = list(mosaic_targets(photos, explainer.labels or ()))[::2]
    results = [play(explainer, target, "gradcam") for target in targets]
    assert len(results) == 100
    # chance is 25; docs/pointing-game.md has the measured rate
    assert sum(result.hit for result in results) >= 90
    assert np.mean([result.energy for result in results]) > 0.6
