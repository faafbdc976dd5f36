from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_gradcam import load
from onnx_gradcam.cam import Need, Painted, compute, heat_maps, method_names, registry
from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.runtime import Explainer
from onnx_gradcam.runtime.image_input import ImageInput
from onnx_gradcam.runtime.smoothing import VERSIONS, average, other_versions
from tests.contract_models import contract_model, images, weights

REFERENCES = np.load(Path(__file__).parents[1] / "cam" / "references.npz")


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return load(contract_model(), device="cpu")


@pytest.mark.parametrize("name", ["gradcam", "layercam"])
@pytest.mark.parametrize("image", ["n, 3, 8, 10", "2, 3, 8, 10"])
def test_aug_smooth_agrees_with_pytorch_grad_cam(name: str, image: str) -> None:
    explainer = load(contract_model(image=image), device="cpu")
    found = explainer.explain(images(3), [3, 0, 2], name, aug_smooth=True)
    reference = REFERENCES[f"smooth/{name}:aug/cam"]
    np.testing.assert_allclose(found.cams, reference, rtol=0, atol=2e-6)
    np.testing.assert_allclose(found.raw_maps, REFERENCES[f"smooth/{name}:aug/raw"], atol=1e-6)
    plain = explainer.explain(images(3), [3, 0, 2], name)
    assert np.abs(found.cams - plain.cams).max() > 0.05
    for array in ("scores", "activations", "gradients"):
        np.testing.assert_array_equal(getattr(found, array), getattr(plain, array))
    assert (found.aug_smooth, plain.aug_smooth) == (True, False)


@pytest.mark.parametrize("name", ["gradcam", "layercam"])
def test_both_smoothings_average_first_components(explainer: Explainer, name: str) -> None:
    found = explainer.explain(images(3), [3, 0, 2], name, aug_smooth=True, eigen_smooth=True)
    x = images(3)
    versions = [x, *other_versions(x, explainer.image_input)]
    maps = []
    for version, (mirror, _) in zip(versions, VERSIONS, strict=True):
        run = explainer.explain(version, [3, 0, 2], name, eigen_smooth=True)
        raw = compute(name, run.activations, run.gradients, eigen_smooth=True)
        cam = heat_maps(raw, (8, 10))
        maps.append(cam[..., ::-1] if mirror else cam)
    np.testing.assert_allclose(found.cams, np.mean(maps, axis=0), atol=1e-6)


def test_versions_are_those_of_the_class_of_the_image_itself(explainer: Explainer) -> None:
    x = images(40)
    best = explainer.explain(x).classes
    mirrored = explainer.explain(np.ascontiguousarray(x[..., ::-1])).classes
    assert (best != mirrored).any(), "or this shows nothing"
    found = explainer.explain(x, aug_smooth=True)
    np.testing.assert_array_equal(found.classes, best)
    np.testing.assert_array_equal(found.cams, explainer.explain(x, best, aug_smooth=True).cams)


def test_channels_last_photos_and_other_inputs_are_mirrored_alike(explainer: Explainer) -> None:
    expected = explainer.explain(images(2), 1, aug_smooth=True).cams
    last = load(contract_model(channels_last=True, image="n, 8, 10, 3"), device="cpu")
    found = last.explain(images(2), 1, aug_smooth=True).cams
    np.testing.assert_allclose(found, expected, atol=1e-6)
    gained = load(contract_model(extra_input=True), device="cpu")
    extra = {"gain": np.array([1.0])}
    found = gained.explain(images(2), 1, aug_smooth=True, extra_inputs=extra).cams
    np.testing.assert_allclose(found, expected, atol=1e-6)
    recipe = Preprocessing(scale=1 / 255, mean=(0.5,), std=(0.25,)).to_dict()
    photos = load(contract_model(preprocessing=recipe), device="cpu")
    photo = np.random.default_rng(5).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    prepared = ((photo.astype(np.float32) / 255 - 0.5) / 0.25).transpose(2, 0, 1)
    found = photos.explain_image(photo, [1, 2], aug_smooth=True)
    each = photos.explain_classes(prepared, [1, 2], aug_smooth=True)
    np.testing.assert_allclose(found.cams, each.cams, atol=1e-5)


def test_integers_are_rounded_and_clipped() -> None:
    pixels = np.array([[[[0, 5, 250]]]], np.uint8)
    declared = ImageInput("x", (None, 1, 1, 3), np.dtype(np.uint8), channels_last=False)
    versions = [version.ravel().tolist() for version in other_versions(pixels, declared)]
    dark, light = [0, 4, 225], [0, 6, 255]  # 4.5 rounds to even, 5.5 likewise
    assert versions == [dark, light, [250, 5, 0], dark[::-1], light[::-1]]
    half = np.full((1, 1, 1, 2), 65000, np.float16)
    declared = ImageInput("x", (None, 1, 1, 2), np.dtype(np.float16), channels_last=False)
    assert all(np.isfinite(version).all() for version in other_versions(half, declared))


def test_sounds_are_not_mirrored() -> None:
    declared = ImageInput("x", (None, 1, 400), np.dtype(np.float32), channels_last=False)
    explainer = load(contract_model(), device="cpu")
    explainer.image_input = declared
    with pytest.raises(UsageError, match=r"mirrors pictures.*'x' \(N, 1, 400\)"):
        explainer.explain(np.zeros((1, 1, 400), np.float32), aug_smooth=True)


def test_notes_on_averages() -> None:
    map_ = np.ones((2, 1, 1), np.float32)
    empty, full = Painted(map_, map_, ("flat", "flat")), Painted(map_, map_, ("flat", ""))
    found = average([full, full, empty, full, full, empty])
    assert found.notes == ("flat", "2 of the 6 maps averaged are empty: flat")
    assert average([full] * 6).notes == ("flat", "")


def test_eigen_smooth_and_seed_are_kept(explainer: Explainer) -> None:
    x = images(2)
    smooth = explainer.explain(x, 3, "hirescam", eigen_smooth=True)
    assert (smooth.eigen_smooth, smooth.seed) == (True, 0)
    plain = explainer.explain(x, 3)
    changed = plain.with_method("hirescam", eigen_smooth=True)
    np.testing.assert_array_equal(changed.cams, smooth.cams)
    assert np.abs(smooth.cams - plain.with_method("hirescam").cams).max() > 0.05
    random = explainer.explain(x, 3, "randomcam", seed=7)
    np.testing.assert_array_equal(random.cams, plain.with_method("randomcam", seed=7).cams)
    assert np.abs(random.cams - plain.with_method("randomcam").cams).max() > 0.05
    averaged = explainer.explain(x, 3, aug_smooth=True).with_method("gradcam")
    assert not averaged.aug_smooth
    np.testing.assert_array_equal(averaged.cams, plain.cams)


def test_the_mean_of_cam_is_the_score_without_its_bias(explainer: Explainer) -> None:
    found = explainer.explain(images(3), [3, 0, 2], "cam")
    means = found.raw_maps.mean(axis=(1, 2)) + weights()["b"][found.classes]
    np.testing.assert_allclose(means, found.class_scores, atol=1e-5)


def test_notes_and_scales(explainer: Explainer) -> None:
    x = images(3)
    x[1] = 0  # and so is A
    found = explainer.explain(x, 3)
    assert found.notes == ("", "the raw map is 0 everywhere, to rounding", "")
    assert found.cams.any(axis=(1, 2)).tolist() == [True, False, True]
    positive = np.maximum(found.raw_maps, 0)
    low, high = found.scales[:, :1, None], found.scales[:, 1:, None]
    stretched = heat_maps(positive, (4, 5))
    np.testing.assert_allclose(low + stretched * (high - low), positive, atol=1e-5)
    assert found.scales[1].tolist() == [0, 0]
    assert explainer.explain(images(0)).scales.shape == (0, 2)
    assert explainer.explain(images(0)).notes == ()


def test_nan_in_the_network_is_reported() -> None:
    half = load(contract_model(kind="float16"), device="cpu")
    x = images(2)
    x[1] = 60000  # what the model takes, and what its convolution overflows on
    found = half.explain(x, 3)
    assert found.notes[0] == ""
    assert found.notes[1] == "the activations hold NaN or infinite values"
    assert not found.cams[1].any()


def test_the_methods_that_a_file_can_serve(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = {Need.HEAD_RUNS, Need.MODEL_RUNS}
    assert explainer.methods == method_names({Need.GRADIENTS, Need.SEED} | again)
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))

    def curved(activations: Any, curvature: Any) -> Any:
        return (activations * curvature).sum(axis=1)

    registry.register("curved", title="", paper="", needs=(Need.CURVATURE,))(curved)
    assert "curved" not in explainer.methods
    with pytest.raises(UnsupportedModelError, match="'curved' needs second derivatives"):
        explainer.explain(images(1), method="curved")
    with pytest.raises(UsageError, match="'fem' is no sum over channels"):
        explainer.explain(images(1), method="fem", eigen_smooth=True)
