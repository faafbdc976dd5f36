"""Sounds, volumes and prepared images on the command line, from the model to the files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from onnx_gradcam import load
from tests.end_to_end.conftest import Run
from tests.export.unusual_models import UNUSUAL, Unusual


def exported(run: Run, model: Unusual, folder: Path) -> Path:
    onnx.save(model.model(), folder / "m.onnx")
    path = folder / "m.cam.onnx"
    assert run("export", folder / "m.onnx", "-o", path, "--gradient-builder", "reverse").code == 0
    return path


@pytest.mark.parametrize("name", ["sound", "sound without a channel axis", "a volume"])
def test_arrays_are_explained(name: str, run: Run, tmp_path: Path) -> None:
    model = UNUSUAL[name]
    path = exported(run, model, tmp_path)
    images, _ = model.feeds()
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "one.npy", images[0])
    out = tmp_path / "out"
    done = run("explain", path, tmp_path / "x.npy", tmp_path / "one.npy", "-o", out, "--top-k", "2")
    assert done.code == 0, done.err
    assert f"x.npy [1] -> {out / 'x.1.cam.png'}" in done.out
    found = load(path, device="cpu").explain(images)
    for row, index in enumerate(found.classes):
        raw = np.load(out / f"x.{row}.cam-{index}.npy")
        np.testing.assert_allclose(raw, found.raw_maps[row], rtol=1e-5, atol=1e-6)
        assert len(list(out.glob(f"x.{row}.cam-*.npy"))) == 2
        picture = cv2.imread(str(out / f"x.{row}.cam.png"))
        assert picture is not None
        assert np.ptp(picture.reshape(-1, 3), axis=0).min() > 100, "the picture is not empty"
    np.testing.assert_array_equal(
        np.load(out / f"one.cam-{found.classes[0]}.npy"),
        np.load(out / f"x.0.cam-{found.classes[0]}.npy"),
    )


def test_another_input_comes_from_a_file(run: Run, tmp_path: Path) -> None:
    model = UNUSUAL["a vector beside the image"]
    path = exported(run, model, tmp_path)
    images, extra = model.feeds()
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "facts.npy", 50 * extra["facts"])
    explain = ("explain", path, tmp_path / "x.npy", "-o", tmp_path / "out")
    assert "also needs input 'facts'" in run(*explain).error(2)
    assert "is not NAME=FILE.npy" in run(*explain, "--input", "facts").error(2)
    assert "did you mean 'facts'" in run(*explain, "--input", f"fact={tmp_path / 'x.npy'}").error(2)
    missing = run(*explain, "--input", f"facts={tmp_path / 'no.npy'}").error(2)
    assert "cannot read array" in missing
    assert not list((tmp_path / "out").glob("*"))
    done = run(*explain, "--input", f"facts={tmp_path / 'facts.npy'}")
    assert done.code == 0, done.err
    found = load(path, device="cpu").explain(images, extra_inputs={"facts": 50 * extra["facts"]})
    for row, index in enumerate(found.classes):
        assert (tmp_path / "out" / f"x.{row}.cam-{index}.npy").exists()


def test_what_is_no_array_or_does_not_fit(run: Run, tmp_path: Path) -> None:
    path = exported(run, UNUSUAL["sound"], tmp_path)
    (tmp_path / "no.npy").write_bytes(b"RIFF")
    np.save(tmp_path / "wrong.npy", np.zeros((3, 2, 33), np.float32))
    np.savez(tmp_path / "several.npz", a=np.zeros(3))
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    explain = ("explain", path, "-o", tmp_path / "out")
    assert "no array in NumPy's format" in run(*explain, tmp_path / "no.npy").error(2)
    assert "holds several arrays" in run(*explain, tmp_path / "several.npy").error(2)
    unfit = run(*explain, tmp_path / "wrong.npy").error(2)
    assert "wrong.npy: input of shape (3, 2, 33) does not fit" in unfit


def test_a_photo_of_a_sound_is_refused(run: Run, tmp_path: Path) -> None:
    model = UNUSUAL["sound"]
    onnx.save(model.model(), tmp_path / "m.onnx")
    options = ("--gradient-builder", "reverse", "--preprocess", "unit")
    path = tmp_path / "m.cam.onnx"
    assert run("export", tmp_path / "m.onnx", "-o", path, *options).code == 0
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((8, 8, 3), np.uint8))
    message = run("explain", path, tmp_path / "photo.png", "-o", tmp_path / "out").error(2)
    assert "takes no photos but 'sound' (N, 1, 33)" in message


def test_a_choice_of_the_image_and_given_inputs(run: Run, tmp_path: Path) -> None:
    model = UNUSUAL["two images of two sizes"]
    onnx.save(model.model(), tmp_path / "m.onnx")
    images, extra = model.feeds()
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "other.npy", extra["other"])
    inspected = run("inspect", tmp_path / "m.onnx", "--image-input", "image")
    assert inspected.code == 0
    asked = ("export", tmp_path / "m.onnx", "-o", tmp_path / "m.cam.onnx")
    assert "no input 'depth'" in run(*asked, "--image-input", "depth").error(2)
    given = (f"image={tmp_path / 'x.npy'}", f"other={tmp_path / 'other.npy'}")
    options = ("--image-input", "image", "--gradient-builder", "reverse", "--input", given[0])
    done = run(*asked, *options, "--input", given[1])
    assert done.code == 0, done.err
    checked = run("check", tmp_path / "m.cam.onnx", "--input", given[0], "--input", given[1])
    assert checked.code == 0, checked.err
