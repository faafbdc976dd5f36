from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from onnx_gradcam import load
from onnx_gradcam.cam import Need, heat_maps, method_names
from onnx_gradcam.errors import (
    ClassNotFoundError,
    OnnxGradCamError,
    UnsupportedModelError,
    UsageError,
)
from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.runtime import Explainer, Explanation
from onnx_gradcam.runtime.explanation import explain_maps
from tests.contract_models import LABELS, contract_model, images, weights

AREA = 20  # positions of A, 4 x 5
RECIPE = Preprocessing(resize=12, crop=(8, 10), scale=1 / 255, mean=(0.5,), std=(0.25,))


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return load(contract_model(labels=LABELS), device="cpu")


def expected_gradients(explanation: Explanation) -> np.ndarray[Any, Any]:
    rows = weights()["W"][explanation.classes] / AREA
    return np.broadcast_to(rows[:, :, None, None], explanation.gradients.shape)


@pytest.mark.parametrize(
    ("model", "tolerance"),
    [
        ({}, 1e-6),
        ({"kind": "float16"}, 1e-3),
        ({"class_input": "required"}, 1e-6),
        ({"softmax": True, "score_axes": True}, 1e-6),
        ({"image": "4, 3, 8, 10"}, 1e-6),
        ({"image": "1, 3, 8, 10"}, 1e-6),
        ({"channels_last": True, "image": "n, 8, 10, 3"}, 1e-6),
    ],
)
def test_explanations_of_each_kind_of_file(model: dict[str, Any], tolerance: float) -> None:
    explainer = load(contract_model(**model), device="cpu")
    x = images(6)
    found = explainer.explain(x)
    plain = load(contract_model(), device="cpu").explain(x)
    assert len(set(plain.classes.tolist())) == 3, "the images should differ in class"
    np.testing.assert_array_equal(found.classes, plain.classes)
    np.testing.assert_array_equal(found.scores.argmax(axis=1), found.classes)
    assert found.scores.shape == (6, 5)
    np.testing.assert_array_equal(explainer.predict(x), found.scores)
    np.testing.assert_allclose(found.gradients, expected_gradients(found), atol=tolerance)
    np.testing.assert_allclose(found.activations, plain.activations, atol=20 * tolerance)
    assert found.cams.shape == (6, 8, 10)
    arrays = (found.scores, found.cams, found.raw_maps, found.activations, found.gradients)
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_the_heat_map_is_that_of_the_formula(explainer: Explainer) -> None:
    found = explainer.explain(images(2), [3, 0])
    raw = np.einsum("nc,nchw->nhw", weights()["W"][[3, 0]] / AREA, found.activations)
    np.testing.assert_allclose(found.raw_maps, raw, atol=1e-6)
    np.testing.assert_allclose(found.cams, heat_maps(raw, (8, 10)), atol=1e-6)
    assert found.cams.max() > 0.99
    assert found.method == "gradcam"


@pytest.mark.parametrize("name", method_names({Need.GRADIENTS, Need.SEED}))
def test_methods_can_be_changed_without_running_the_model(explainer: Explainer, name: str) -> None:
    x = images(2)
    direct = explainer.explain(x, 3, name)
    changed = explainer.explain(x, 3).with_method(name)
    assert changed.method == name
    np.testing.assert_array_equal(changed.raw_maps, direct.raw_maps)
    np.testing.assert_array_equal(changed.cams, direct.cams)


def test_ranks_indices_and_labels(explainer: Explainer) -> None:
    x = images(3)
    order = np.argsort(-explainer.predict(x), axis=1)
    np.testing.assert_array_equal(explainer.explain(x, -2).classes, order[:, 1])
    assert explainer.explain(x, [4, "Boston bull", -5]).classes.tolist() == [4, 2, order[2, 4]]


def test_names_and_scores_of_the_explained_classes(explainer: Explainer) -> None:
    found = explainer.explain(images(2), [4, 2])
    assert found.class_names == ("kite, glede", "Boston bull")
    assert found.class_scores.tolist() == [found.scores[0, 4], found.scores[1, 2]]
    assert found.labels == explainer.labels == tuple(LABELS)
    assert len(found) == 2
    bare = load(contract_model(), device="cpu").explain(images(1), 4)
    assert bare.class_names == ("class 4",)


def test_a_fixed_class() -> None:
    explainer = load(contract_model(class_input="fixed:2"), device="cpu")
    assert explainer.explain(images(3)).classes.tolist() == [2, 2, 2]
    assert explainer.predict(images(3)).shape == (3, 5)
    with pytest.raises(UsageError, match="class 2 only"):
        explainer.explain(images(3), 1)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8])
def test_a_fixed_batch_is_split_and_padded(explainer: Explainer, count: int) -> None:
    fixed = load(contract_model(image="4, 3, 8, 10"), device="cpu")
    x, classes = images(count), [i % 5 for i in range(count)]
    found, expected = fixed.explain(x, classes), explainer.explain(x, classes)
    assert found.classes.tolist() == classes
    np.testing.assert_allclose(found.cams, expected.cams, atol=1e-5)
    np.testing.assert_allclose(fixed.predict(x), expected.scores, atol=1e-5)


@pytest.mark.parametrize("image", ["n, 3, 8, 10", "4, 3, 8, 10"])
def test_no_images_give_empty_results(image: str) -> None:
    explainer = load(contract_model(image=image), device="cpu")
    found = explainer.explain(images(0))
    assert found.scores.shape == (0, 5)
    assert found.cams.shape == (0, 8, 10)
    assert found.activations.shape == found.gradients.shape
    assert found.activations.shape[:2] == (0, 4)
    assert explainer.predict(images(0)).shape == (0, 5)
    assert len(explainer.explain(images(0), [])) == 0


def test_one_image_without_batch_axis(explainer: Explainer) -> None:
    x = images(1)
    alone = explainer.explain(x[0])
    np.testing.assert_array_equal(alone.cams, explainer.explain(x).cams)
    assert explainer.predict(x[0]).shape == (1, 5)


def test_channels_last_models_take_both_layouts() -> None:
    explainer = load(contract_model(channels_last=True, image="n, 8, 10, 3"), device="cpu")
    x = images(2)
    own = explainer.explain(np.moveaxis(x, 1, -1))
    np.testing.assert_array_equal(own.cams, explainer.explain(x).cams)
    single = explainer.explain(np.moveaxis(x, 1, -1)[0])
    np.testing.assert_array_equal(single.cams, own.cams[:1])


@pytest.mark.parametrize("size", [(9, 7), (3, 3), (33, 16)])
def test_any_size_where_the_model_takes_it(size: tuple[int, int]) -> None:
    explainer = load(contract_model(image="n, 3, rows, columns"), device="cpu")
    assert explainer.explain(images(2, 3, *size)).cams.shape == (2, *size)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (images(1, 3, 8, 11), "shape (1, 3, 8, 11) does not fit the model's 'image' (N, 3, 8, 10)"),
        (images(1, 8, 10, 3), "does not fit"),
        (images(1, 4, 8, 10), "does not fit"),
        (images(1, 1, 3, 8, 10), "does not fit"),
        (np.float32(1), "does not fit"),
        (images(1).astype(np.uint8), "dtype uint8"),
        (images(1).astype(np.int64), "dtype int64"),
        (images(1).astype(str), "dtype <U"),
    ],
)
def test_images_that_do_not_fit(explainer: Explainer, x: Any, message: str) -> None:
    for call in (explainer.predict, explainer.explain):
        with pytest.raises(UsageError, match=re.escape(message)):
            call(x)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_an_image_is_an_error(explainer: Explainer, value: float) -> None:
    x = images(3)
    x[1, 0, 0, 0] = value
    with pytest.raises(UsageError, match="first in image 1"):
        explainer.explain(x)
    half = load(contract_model(kind="float16"), device="cpu")
    with pytest.raises(UsageError, match=r"as float16.*image 2"):
        half.explain(np.stack([images(1)[0]] * 2 + [np.full((3, 8, 10), 1e6, np.float32)]))


def test_doubles_are_narrowed(explainer: Explainer) -> None:
    x = images(2)
    found = explainer.explain(x.astype(np.float64))
    np.testing.assert_array_equal(found.cams, explainer.explain(x).cams)


def test_other_inputs() -> None:
    explainer = load(contract_model(extra_input=True), device="cpu")
    x = images(3)
    with pytest.raises(UsageError, match=r"needs input 'gain'.*extra_inputs"):
        explainer.explain(x)
    with pytest.raises(UsageError, match="did you mean 'gain'"):
        explainer.explain(x, extra_inputs={"gain": [1.0], "gains": [1.0]})
    found = explainer.explain(x, extra_inputs={"gain": [2.0]})
    expected = load(contract_model(), device="cpu").explain(2 * x)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert explainer.predict(x, extra_inputs={"gain": [1]}).shape == (3, 5)


def test_a_failing_run_is_one_line() -> None:
    explainer = load(contract_model(extra_input=True), device="cpu")
    with pytest.raises(OnnxGradCamError, match=r"cannot run on .*gain \(2, 2\)") as caught:
        explainer.explain(images(1), extra_inputs={"gain": np.ones((2, 2))})
    assert "\n" not in str(caught.value)


def test_wrong_class_and_method(explainer: Explainer) -> None:
    with pytest.raises(ClassNotFoundError):
        explainer.explain(images(1), 5)
    with pytest.raises(UsageError, match="no CAM method 'gradcan'"):
        explainer.explain(images(1), method="gradcan")


def test_scores_that_are_not_one_per_class() -> None:
    explainer = load(contract_model(num_classes=7), device="cpu")
    with pytest.raises(UnsupportedModelError, match="not one score for each of 7"):
        explainer.predict(images(1))


def test_activations_of_other_axes_than_the_image() -> None:
    with pytest.raises(UnsupportedModelError, match="--layer"):
        explain_maps("gradcam", np.zeros((1, 2, 9)), np.zeros((1, 2, 9)), (8, 10))


def test_threads_may_share_one(explainer: Explainer) -> None:
    batches = [images(2, seed=seed) for seed in range(16)]
    alone = [explainer.explain(x).cams for x in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda x: explainer.explain(x).cams, batches))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def photo(height: int = 40, width: int = 60) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_several_classes_of_a_photo() -> None:
    recipe = RECIPE.to_dict()
    explainer = load(contract_model(preprocessing=recipe, labels=LABELS), device="cpu")
    found = explainer.explain_image(photo(), [-1, "Boston bull", 0], "hirescam")
    assert found.classes.tolist()[1:] == [2, 0]
    assert found.cams.shape == (3, 8, 10)
    np.testing.assert_array_equal(found.scores[0], found.scores[1])
    assert found.method == "hirescam"
    assert found.photo is not None
    assert found.photo.shape == (40, 60, 3)
    assert found.photo_cams().shape == (3, 40, 60)
    np.testing.assert_array_equal(explainer.explain_image(photo()).cams.shape, (1, 8, 10))
    assert explainer.explain_image(photo(), []).cams.shape == (0, 8, 10)


def test_a_photo_and_its_array_give_the_same() -> None:
    explainer = load(contract_model(preprocessing=RECIPE.to_dict()), device="cpu")
    assert explainer.preprocessing == RECIPE
    cropped = photo()[::4, ::6][1:9]
    identity = Preprocessing(scale=1 / 255, mean=(0.5,), std=(0.25,)).to_dict()
    plain = load(contract_model(preprocessing=identity), device="cpu")
    x = ((cropped.astype(np.float32) / 255 - 0.5) / 0.25).transpose(2, 0, 1)
    found = plain.explain_image(np.ascontiguousarray(cropped), 1)
    np.testing.assert_allclose(found.cams, plain.explain(x, 1).cams, atol=1e-5)


def test_photos_of_a_channels_last_model() -> None:
    recipe = RECIPE.to_dict()
    last = contract_model(channels_last=True, image="n, 8, 10, 3", preprocessing=recipe)
    first = contract_model(preprocessing=recipe)
    found, expected = (load(m, device="cpu").explain_image(photo(), 1) for m in (last, first))
    np.testing.assert_allclose(found.cams, expected.cams, atol=1e-5)


def test_no_preprocessing_no_photos(explainer: Explainer) -> None:
    with pytest.raises(UsageError, match="--preprocess"):
        explainer.explain_image(photo())
    with pytest.raises(UsageError, match="explain_image"):
        explainer.explain(images(1)).photo_cams()


def test_a_photo_that_the_recipe_does_not_bring_to_size() -> None:
    recipe = Preprocessing(scale=1 / 255).to_dict()
    explainer = load(contract_model(preprocessing=recipe), device="cpu")
    with pytest.raises(UsageError, match=re.escape("(3, 40, 60) does not fit")):
        explainer.explain_image(photo())


def test_an_option_of_another_name_is_refused(explainer: Explainer) -> None:
    with pytest.raises(TypeError, match=r"no option 'eigen_smoth'; did you mean 'eigen_smooth'"):
        explainer.explain(images(1), eigen_smoth=True)  # type: ignore[call-arg]
