"""Objectives on the command line: weights, masks, boxes, embeddings, several labels."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from tests.end_to_end.conftest import Run
from tests.export.objective_models import objective_model

PREPROCESS = json.dumps({"resize": [8, 10], "scale": 1 / 255})


def export(work: Path, run: Run, body: str, *options: str) -> None:
    onnx.save(objective_model(body), work / "model.onnx")
    (work / "prepare.json").write_text(PREPROCESS)
    (work / "names.txt").write_text("ant\nbee\ncat\ndog\nelk\n")
    found = run(
        "export", "model.onnx", "-o", "model.cam.onnx", "--preprocess", "prepare.json", "--force",
        "--gradient-builder", "reverse", *options,
    )  # fmt: skip
    assert found.code == 0, found.err


def raw_map(work: Path, key: str) -> np.ndarray:
    loaded: np.ndarray = np.load(work / "maps" / f"photo.cam-{key}.npy")
    assert np.ptp(loaded) > 0
    return loaded


def test_what_tells_two_classes_apart(work: Path, run: Run) -> None:
    export(work, run, "classifier", "--weights", "--labels", "names.txt")
    asked = ("explain", "model.cam.onnx", "photo.png", "-o", "maps")
    assert run(*asked, "--class", "cat", "--class", "dog").code == 0
    both = run(*asked, "--weight", "cat=1", "--weight", "dog=-1", "--force")
    assert both.code == 0, both.err
    assert "weighted classes" in both.out
    difference = raw_map(work, "2") - raw_map(work, "3")
    np.testing.assert_allclose(raw_map(work, "weighted-0"), difference, atol=1e-6)
    assert run(*asked, "--weight", "cat").error(2) == "--weight 'cat' is not CLASS=NUMBER"


def test_every_label_above_a_score(work: Path, run: Run) -> None:
    export(work, run, "classifier", "--several")
    asked = ("explain", "model.cam.onnx", "photo.png", "-o", "maps", "--force")
    everything = run(*asked, "--above", "0")
    assert everything.code == 0, everything.err
    assert len(list((work / "maps").glob("*.npy"))) == 5
    some = run(*asked, "--above", "0.9999")
    assert len(some.out.splitlines()) == 2  # none is above: the highest one


def test_a_mask_from_a_picture(work: Path, run: Run) -> None:
    export(work, run, "segmenter", "--objective", "segmentation")
    mask = np.zeros((8, 10), np.uint8)
    mask[:4] = 255
    cv2.imwrite("mask.png", mask)
    np.save("mask.npy", mask / np.float32(255))
    asked = ("explain", "model.cam.onnx", "photo.png", "-o", "maps", "--class", "2", "--force")
    found = []
    for name in ("mask.png", "mask.npy"):
        outcome = run(*asked, "--mask", name)
        assert outcome.code == 0, outcome.err
        found.append(raw_map(work, "2"))
    np.testing.assert_array_equal(*found)
    (work / "text.png").write_text("no picture")
    assert "--mask: text.png" in run(*asked, "--mask", "text.png").error(2)


def test_boxes(work: Path, run: Run) -> None:
    export(work, run, "detector", "--objective", "detection", "--class-channels", "4:")
    asked = ("explain", "model.cam.onnx", "photo.png", "-o", "maps")
    asked = (*asked, "--method", "hirescam")  # Grad-CAM's weights are the same for all inner boxes
    found = run(*asked, "--class", "1", "--box", "7", "--box", "3")
    assert found.code == 0, found.err
    assert "class 1, box 7" in found.out
    assert not np.array_equal(raw_map(work, "1-box-7"), raw_map(work, "1-box-3"))
    assert "box 99 is out of range: 0 to 19" in run(*asked, "--box", "99", "--force").error(2)


def test_embeddings(work: Path, run: Run) -> None:
    export(work, run, "embedder", "--objective", "similarity")
    np.save("embedding.npy", np.eye(5)[:2])
    asked = ("explain", "model.cam.onnx", "photo.png", "-o", "maps")
    found = run(*asked, "--embedding", "embedding.npy")
    assert found.code == 0, found.err
    assert not np.array_equal(raw_map(work, "embedding-0"), raw_map(work, "embedding-1"))
    assert "give one: embedding=array" in run(*asked, "--force").error(2)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--objective", "binary"], 3, "holds 5 scores: the objective binary takes one"),
        (["--class-channels", "4:"], 2, "goes with --objective detection"),
    ],
)
def test_what_cannot_be_exported(
    work: Path, run: Run, options: list[str], code: int, message: str
) -> None:
    onnx.save(objective_model("classifier"), work / "model.onnx")
    assert message in run("export", "model.onnx", "-o", "x.onnx", *options).error(code)
    assert not (work / "x.onnx").exists()


def test_settings_of_a_method(work: Path, run: Run) -> None:
    export(work, run, "classifier")
    asked = ("explain", "model.cam.onnx", "photo.png", "-o", "maps", "--method", "occlusion")
    found = run(*asked, "--set", "window=2,3", "--set", "stride=1,1")
    assert found.code == 0, found.err
    assert "--set 'window' is not NAME=NUMBER" in run(*asked, "--set", "window").error(2)
    assert "has no setting 'masks'" in run(*asked, "--set", "masks=3", "--force").error(2)
