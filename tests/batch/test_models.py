"""Batches of models of every kind: fixed batches, half precision, other objectives, tiny maps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_gradcam import export_model
from onnx_gradcam.batch import BatchOptions
from onnx_gradcam.batch.rows import restored_map
from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.runtime import load
from tests.batch.examples import RECIPE, batch, rows, write_images, write_model
from tests.contract_models import LABELS, contract_model
from tests.export.objective_models import objective_model

OPTIONS = BatchOptions(shard_size=5, top_k=2)
EXACT = ("path", "rank", "class", "peak_x", "peak_y", "area", "rle", "box_x", "box_y")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 7)


def exported(folder: Path, body: str, **options: Any) -> Path:
    onnx.save(objective_model(body), folder / "model.onnx")
    path = folder / "model.cam.onnx"
    recipe = Preprocessing(resize=(8, 10), scale=1 / 255)
    given = {"preprocess": recipe, "gradient_builder": "reverse", "verify": False}
    export_model(folder / "model.onnx", path, **given, **options)
    return path


@pytest.mark.parametrize(
    ("shape", "together"),
    [
        ("4, 3, 8, 10", None), ("4, 3, 8, 10", 4), ("4, 3, 8, 10", 3), ("1, 3, 8, 10", 3),
        ("n, 3, 8, 10", 16),
    ],
)  # fmt: skip
def test_batches_of_any_size_say_the_same(
    images: Path, tmp_path: Path, shape: str, together: int | None
) -> None:
    for name, image, size in (("open", "n, 3, 8, 10", None), ("other", shape, together)):
        (tmp_path / name).mkdir()
        model = write_model(tmp_path / name, image=image)
        summary = batch(model, images, tmp_path / name / "out", replace(OPTIONS, batch=size))
        assert (summary.images, summary.errors, summary.rows) == (7, 0, 14)
    expected, found = rows(tmp_path / "open" / "out"), rows(tmp_path / "other" / "out")
    for before, after in zip(expected, found, strict=True):
        assert {name: after[name] for name in EXACT} == {name: before[name] for name in EXACT}
        assert after["score"] == pytest.approx(before["score"], abs=1e-5)


def test_an_image_that_fails_leaves_the_others_of_its_run(images: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 7)
    (folder / "0002.png").write_bytes(b"no image")
    model = write_model(tmp_path, image="4, 3, 8, 10")
    assert batch(model, folder, tmp_path / "out", OPTIONS).errors == 1
    assert [row["image"] for row in rows(tmp_path / "out")] == [
        0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6,
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "tolerance"), [("float16", 0.01)])
def test_other_precisions(images: Path, tmp_path: Path, kind: str, tolerance: float) -> None:
    found = {}
    for one in ("float", kind):
        (tmp_path / one).mkdir()
        batch(write_model(tmp_path / one, kind=one), images, tmp_path / one / "out", OPTIONS)
        found[one] = rows(tmp_path / one / "out")
    for before, after in zip(found["float"], found[kind], strict=True):
        assert after["score"] == pytest.approx(before["score"], abs=tolerance)
        raw, same = restored_map(before), restored_map(after)
        assert raw is not None
        assert same is not None
        np.testing.assert_allclose(same, raw, atol=2 * tolerance * np.abs(raw).max())


def test_without_labels(images: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.cam.onnx"
    model.write_bytes(contract_model(preprocessing=RECIPE.to_dict()))
    batch(model, images, tmp_path / "out", OPTIONS)
    assert all(row["class_name"] == f"class {row['class']}" for row in rows(tmp_path / "out"))


def test_boxes_of_a_detector(images: Path, tmp_path: Path) -> None:
    options = {"objective": "detection", "class_channels": "4:", "labels": LABELS}
    options["labels"] = tuple(f"thing {n}" for n in range(5))
    model = exported(tmp_path, "detector", **options)
    batch(model, images, tmp_path / "out", OPTIONS, coco=True)
    found = rows(tmp_path / "out")
    expected = load(model, device="cpu").explain_image(images / "0003.png", [-1, -2])
    assert expected.boxes is not None
    own = [row for row in found if row["image"] == 3]
    assert [row["box"] for row in own] == expected.boxes.tolist()
    np.testing.assert_allclose([r["score"] for r in own], expected.class_scores, rtol=1e-6)
    assert {row["class_name"] for row in found} <= {f"thing {n}" for n in range(5)}
    coco = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert {c["name"] for c in coco["categories"]} == {r["class_name"] for r in found if r["rle"]}


def test_a_segmenter(images: Path, tmp_path: Path) -> None:
    model = exported(tmp_path, "segmenter", objective="segmentation")
    batch(model, images, tmp_path / "out", OPTIONS)
    found = [row for row in rows(tmp_path / "out") if row["image"] == 3]
    expected = load(model, device="cpu").explain_image(images / "0003.png", [-1, -2])
    assert expected.y is not None
    np.testing.assert_allclose([row["score"] for row in found], expected.y, rtol=1e-6)
    assert [row["class"] for row in found] == expected.classes.tolist()
    assert all(row["box"] is None for row in found)


def test_what_a_batch_cannot_be_given(images: Path, tmp_path: Path) -> None:
    model = exported(tmp_path, "embedder", objective="similarity")
    with pytest.raises(UsageError, match="needs an embedding to compare with, which a batch"):
        batch(model, images, tmp_path / "out")
    gain = write_model(tmp_path, extra_input=True)
    with pytest.raises(UsageError, match="needs input 'gain', which a batch cannot give; use"):
        batch(gain, images, tmp_path / "out")
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(contract_model())
    with pytest.raises(UsageError, match="no preprocessing"):
        batch(bare, images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_methods_that_a_file_cannot_serve(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="rollout"):
        batch(write_model(tmp_path), images, tmp_path / "out", replace(OPTIONS, method="rollout"))


@pytest.mark.parametrize(
    ("method", "how"),
    [
        ("eigencam", {}),
        ("rise", {"settings": {"masks": 40}}),
        ("ablationcam", {}),
        ("gradcam", {"aug_smooth": True, "eigen_smooth": True}),
    ],
)
def test_methods(images: Path, tmp_path: Path, method: str, how: dict[str, Any]) -> None:
    model = write_model(tmp_path)
    batch(model, images, tmp_path / "out", replace(OPTIONS, method=method, how=how))
    explainer = load(model, device="cpu")
    expected = explainer.explain_image(images / "0004.png", [-1, -2], method, **how)
    for row in (row for row in rows(tmp_path / "out") if row["image"] == 4):
        raw = restored_map(row)
        assert raw is not None
        wanted = expected.raw_maps[row["rank"]]
        np.testing.assert_allclose(raw, wanted, atol=np.abs(wanted).max() / 1000)


def test_maps_of_a_single_element(images: Path, tmp_path: Path) -> None:
    recipe = Preprocessing(resize=(2, 2), scale=1 / 255)
    model = tmp_path / "model.cam.onnx"
    model.write_bytes(contract_model(image="n, 3, 2, 2", preprocessing=recipe.to_dict()))
    batch(model, images, tmp_path / "out", replace(OPTIONS, top_k=5, overlays="jpg"))
    found = rows(tmp_path / "out")
    assert {(row["map_height"], row["map_width"]) for row in found} == {(1, 1)}
    for row in found:
        assert row["border_peak"] is row["entropy"] is None
        assert row["error"] is None
        assert (row["rle"] is None) is (row["area"] == 0)
