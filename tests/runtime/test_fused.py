"""Files that hold the CAM alone: the same pictures as with A and G, notes, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_gradcam import Preprocessing, export_model, load
from onnx_gradcam.contract import ExportMetadata
from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.photo_files import explain_photos
from onnx_gradcam.render import explanation_panel
from onnx_gradcam.runtime import Explainer
from onnx_gradcam.runtime.fused import NOT_FINITE, NOTHING_POSITIVE, ZERO, FusedCam
from tests.end_to_end.small_model import CLASSES, small_model

IMAGES = np.random.default_rng(5).standard_normal((3, 3, 16, 16)).astype(np.float32)
PHOTO = np.random.default_rng(6).integers(0, 256, (24, 32, 3), np.uint8)
FORMS = {
    "as it is": {},
    "of the image's size": {"cam_size": "input"},
    "stretched": {"cam_normalise": True},
    "stretched, of the image's size": {"cam_size": "input", "cam_normalise": True},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Explainer]:
    """The same model with A and G, and with the CAM alone in each form; by LayerCAM as well."""
    folder = tmp_path_factory.mktemp("fused")
    options: dict[str, dict[str, Any]] = {"all": {}, "with a cam": {"fuse_cam": "hirescam"}}
    options |= {
        f"{method} {form}": {"fuse_cam": method, "outputs": "cam", **changes}
        for method in ("gradcam", "layercam")
        for form, changes in FORMS.items()
    }
    explainers = {}
    for name, chosen in options.items():
        export_model(
            small_model(),
            folder / f"{len(explainers)}.onnx",
            gradient_builder="reverse",
            preprocess=Preprocessing(resize=(16, 16), scale=1 / 255),
            labels=CLASSES,
            layer="first_map" if "layercam" in name else "auto",
            verify=False,
            **chosen,
        )
        explainers[name] = load(folder / f"{len(explainers)}.onnx", device="cpu")
    export_model(
        small_model(), folder / "first.onnx", layer="first_map", gradient_builder="reverse",
        verify=False,
    )  # fmt: skip
    explainers["first"] = load(folder / "first.onnx", device="cpu")
    return explainers


def positive_scales(raw: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    flat = np.maximum(raw, 0).reshape(len(raw), -1)
    return np.stack([flat.min(axis=1), flat.max(axis=1)], axis=1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["gradcam", "layercam"])
def test_the_picture_is_that_of_a_and_g(
    files: dict[str, Explainer], method: str, form: str
) -> None:
    whole = files["first" if method == "layercam" else "all"].explain(IMAGES, [2, 0, 3], method)
    found = files[f"{method} {form}"].explain(IMAGES, [2, 0, 3])
    assert found.method == method
    assert (found.cams.max(axis=(1, 2)) > 0.99).all()
    np.testing.assert_allclose(found.cams, whole.cams, atol=1e-5)
    np.testing.assert_array_equal(found.classes, whole.classes)
    np.testing.assert_array_equal(found.scores, whole.scores)
    assert found.notes == whole.notes
    assert found.activations is None
    assert found.gradients is None
    if "size" not in form:
        raw = np.maximum(whole.raw_maps, 0)
        np.testing.assert_allclose(found.raw_maps, raw, rtol=1e-5, atol=1e-6 * raw.max())
    else:
        assert found.raw_maps.shape == (3, 16, 16)
    if "stretched" in form:
        np.testing.assert_allclose(found.scales, whole.scales, rtol=1e-5)


@pytest.mark.parametrize("form", ["as it is", "stretched, of the image's size"])
def test_other_ways_to_ask(files: dict[str, Explainer], form: str, tmp_path: Path) -> None:
    whole, fused = files["all"], files[f"gradcam {form}"]
    assert whole.predict(IMAGES).tolist() == fused.predict(IMAGES).tolist()
    pictures = []
    for explainer in (whole, fused):
        photo = explainer.explain_image(PHOTO, ["red", -1])
        array = explainer.explain_classes(IMAGES[0], [1, 2])
        smooth = explainer.explain(IMAGES[:1], aug_smooth=True)
        pictures.append((photo.cams, array.cams, smooth.cams, photo.photo_cams()))
        assert explanation_panel(photo).std() > 10
    for one, other in zip(*pictures, strict=True):
        assert one.max() > 0.5
        np.testing.assert_allclose(other, one, atol=1e-5)
    np.save(tmp_path / "x.npy", IMAGES[0])
    (done,) = explain_photos(fused, [tmp_path / "x.npy"], tmp_path / "out", top_k=1)
    np.testing.assert_allclose(
        np.load(done.classes[0].raw_map), fused.explain(IMAGES[:1]).raw_maps[0], rtol=1e-6
    )
    assert fused.explain(IMAGES[:0]).cams.shape[0] == 0


def test_a_file_with_a_and_g_serves_every_method(files: dict[str, Explainer]) -> None:
    whole, beside = files["all"], files["with a cam"]
    assert beside.methods == whole.methods
    assert beside.default_method == whole.default_method == "gradcam"
    for method in ("gradcam", "eigencam"):
        found = beside.explain(IMAGES, method=method)
        np.testing.assert_array_equal(found.cams, whole.explain(IMAGES, method=method).cams)


def test_other_methods_are_refused_with_the_way_out(files: dict[str, Explainer]) -> None:
    explainer = files["layercam as it is"]
    assert explainer.methods == ("layercam",)
    assert explainer.default_method == "layercam"
    with pytest.raises(UnsupportedModelError, match=r"'gradcam'.*layercam alone.*--outputs all"):
        explainer.explain(IMAGES, method="gradcam")
    with pytest.raises(UnsupportedModelError, match=r"eigen_smooth.*--outputs all"):
        explainer.explain(IMAGES, eigen_smooth=True)
    with pytest.raises(UsageError, match="did you mean 'layercam'"):
        explainer.explain(IMAGES, method="layercan")
    with pytest.raises(UnsupportedModelError, match=r"'gradcam' needs activ.*--outputs all"):
        explainer.explain(IMAGES).with_method("gradcam")


def test_notes_of_a_map_as_it_is() -> None:
    cam = np.zeros((3, 1, 2, 2), np.float32)
    cam[1] = 5
    cam[2, 0, 0, 1] = 7
    painted = FusedCam("gradcam", normalised=False).paint({"cam": cam}, (4, 4))
    assert painted.notes == (ZERO, "the raw map is 5 everywhere, to rounding", "")
    assert painted.cams.reshape(3, -1).max(axis=1).tolist() == pytest.approx([0, 0, 1], abs=1e-6)
    np.testing.assert_array_equal(painted.raw, cam[:, 0])


def test_notes_of_a_stretched_map_come_from_its_scale() -> None:
    cam = np.zeros((4, 1, 2, 2), np.float32)
    cam[3, 0, 0, 1] = 1
    scales = np.array([[np.nan, np.nan], [0, 0], [5, 5], [1, 3]], np.float32)[:, None]
    painted = FusedCam("gradcam", normalised=True).paint({"cam": cam, "cam_scales": scales}, (2, 2))
    constant = "the raw map is 5 everywhere, to rounding"
    assert painted.notes == (NOT_FINITE, NOTHING_POSITIVE, constant, "")
    assert painted.cams.reshape(4, -1).max(axis=1).tolist() == [0, 0, 0, 1]
    assert np.isnan(painted.raw[0]).all()
    assert painted.raw[2:].tolist() == [[[5, 5], [5, 5]], [[1, 3], [1, 1]]]


@pytest.mark.parametrize("normalise", [False, True])
def test_images_that_show_nothing(tmp_path: Path, normalise: bool) -> None:
    """A head of negative weights: evidence against every class, but where A is zero."""
    model = small_model()
    for tensor in model.graph.initializer:
        if tensor.name == "head_weight":
            values = -np.abs(onnx.numpy_helper.to_array(tensor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    options = {"fuse_cam": "gradcam", "outputs": "cam", "cam_normalise": normalise}
    report = export_model(model, tmp_path / "m.onnx", gradient_builder="reverse", **options)
    assert report.verification is not None
    assert any("no map that was tried shows anything" in w for w in report.warnings)
    found = load(tmp_path / "m.onnx", device="cpu").explain(IMAGES)
    assert not found.cams.any()
    assert set(found.notes) == {NOTHING_POSITIVE if normalise else ZERO}


def test_metadata_says_what_is_fused(files: dict[str, Explainer]) -> None:
    meta = files["layercam stretched, of the image's size"].metadata
    assert meta.fused == {"method": "layercam", "size": "input", "normalised": True}
    assert meta.outputs == ["cam", "cam_scales", "cam_classes"]
    again = ExportMetadata.from_props(replace(meta).to_props())
    assert again == meta
    assert files["all"].metadata.fused is None


@pytest.mark.parametrize("normalise", [False, True])
def test_several_classes_in_one_run(tmp_path: Path, normalise: bool) -> None:
    model, options = small_model(), {"gradient_builder": "reverse", "several": True}
    export_model(model, tmp_path / "all.onnx", verify=False, **options)
    fused = {"fuse_cam": "hirescam", "cam_normalise": normalise, "cam_size": "input"}
    report = export_model(model, tmp_path / "cam.onnx", outputs="cam", **fused, **options)
    assert report.verification is not None
    assert report.verification.passed
    whole, alone = (load(tmp_path / f"{name}.onnx", device="cpu") for name in ("all", "cam"))
    wanted = whole.explain_classes(IMAGES[0], [2, 0, 3], "hirescam")
    found = alone.explain_classes(IMAGES[0], [2, 0, 3])
    assert found.classes.tolist() == [2, 0, 3]
    assert np.abs(wanted.cams[0] - wanted.cams[1]).max() > 0.1
    np.testing.assert_allclose(found.cams, wanted.cams, atol=1e-5)
    np.testing.assert_array_equal(found.scores, wanted.scores)
    each = whole.explain(IMAGES, [1, 2, 0], "hirescam")
    np.testing.assert_allclose(alone.explain(IMAGES, [1, 2, 0]).cams, each.cams, atol=1e-5)


@pytest.mark.parametrize("objective", ["softmax", "class"])
def test_other_objectives(tmp_path: Path, objective: str) -> None:
    options = {"gradient_builder": "reverse", "objective": objective, "weights": True}
    export_model(small_model(), tmp_path / "all.onnx", verify=False, **options)
    export_model(small_model(), tmp_path / "cam.onnx", fuse_cam="gradcam", outputs="cam", **options)
    whole, alone = (load(tmp_path / f"{name}.onnx", device="cpu") for name in ("all", "cam"))
    asked = {"weights": {0: 1.0, 2: -1.0}} if objective == "class" else {}
    wanted, found = (e.explain(IMAGES, **asked) for e in (whole, alone))
    assert wanted.cams.max() > 0.9
    np.testing.assert_allclose(found.cams, wanted.cams, atol=1e-5)
    np.testing.assert_array_equal(found.class_scores, wanted.class_scores)
