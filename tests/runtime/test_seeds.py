"""What the loader makes of classes, weights, masks, boxes and embeddings."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from onnx_gradcam import Explainer, load
from onnx_gradcam.cam import Need, compute, finer_weights
from onnx_gradcam.errors import ClassNotFoundError, UnsupportedModelError, UsageError
from onnx_gradcam.export.pipeline import export_model
from tests.export.objective_models import objective_model

IMAGES = np.random.default_rng(5).normal(size=(2, 3, 8, 10)).astype(np.float32)
OPTIONS: dict[str, dict[str, Any]] = {
    "classifier": {"weights": True, "labels": ["ant", "bee", "cat", "dog", "elk"]},
    "single logit": {"objective": "binary", "labels": ["no", "yes"]},
    "segmenter": {"objective": "segmentation"},
    "segmenter of labels": {"objective": "segmentation"},
    "detector": {"objective": "detection", "class_channels": "4:"},
    "embedder": {"objective": "similarity"},
}


@cache
def explainer(body: str, several: bool = False, class_input: str = "optional") -> Explainer:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.onnx"
        export_model(
            objective_model(body), path, several=several, class_input=class_input,
            gradient_builder="reverse", verify=False, **OPTIONS[body],
        )  # fmt: skip
        return load(path.read_bytes(), device="cpu")


def test_a_contrast_is_the_difference_of_two_classes() -> None:
    both = explainer("classifier").explain(IMAGES, weights={"cat": 1, "dog": -1})
    cat, dog = (explainer("classifier").explain(IMAGES, name) for name in ("cat", "dog"))
    np.testing.assert_allclose(both.gradients, cat.gradients - dog.gradients, atol=1e-6)
    np.testing.assert_allclose(both.raw_maps, cat.raw_maps - dog.raw_maps, atol=1e-6)
    assert both.classes.tolist() == [-1, -1]
    assert both.class_names == ("weighted classes", "weighted classes")
    logits = np.log(both.scores)  # the model ends in a softmax
    np.testing.assert_allclose(both.class_scores, logits[:, 2] - logits[:, 3], atol=1e-5)
    array = explainer("classifier").explain(IMAGES, weights=[0, 0, 1, -1, 0])
    np.testing.assert_array_equal(array.gradients, both.gradients)


def test_each_image_may_have_weights_of_its_own() -> None:
    rows = np.array([[1, 2, 0, 0, 0], [0, 0, 0, -1, 1]], np.float32)
    both = explainer("classifier").explain(IMAGES, weights=rows)
    for index, row in enumerate(rows):
        alone = explainer("classifier").explain(IMAGES[index], weights=row)
        np.testing.assert_allclose(both.gradients[index], alone.gradients[0], atol=1e-6)


@pytest.mark.parametrize("several", [False, True])
def test_several_maps_of_each_image(several: bool) -> None:
    classes = np.array([[0, 3, -1], [4, -2, 1]])
    found = explainer("classifier", several).explain(IMAGES, classes, "hirescam")
    assert found.gradients.shape[0] == found.activations.shape[0] == 6
    for row, (image, wanted) in enumerate(zip([0, 0, 0, 1, 1, 1], classes.ravel(), strict=True)):
        alone = explainer("classifier").explain(IMAGES[image], int(wanted), "hirescam")
        assert found.classes[row] == alone.classes[0]
        np.testing.assert_allclose(found.scores[row], alone.scores[0], atol=1e-6)
        np.testing.assert_allclose(found.raw_maps[row], alone.raw_maps[0], atol=1e-6)
        expected = compute("hirescam", found.activations[row][None], found.gradients[row][None])
        np.testing.assert_array_equal(found.raw_maps[row], expected[0])


@pytest.mark.parametrize("several", [False, True])
def test_several_of_one_image(several: bool) -> None:
    loaded = explainer("classifier", several)
    found = loaded.explain_classes(IMAGES[:1], ["bee", -1, 4])
    assert found.classes[[0, 2]].tolist() == [1, 4]
    weights = loaded.explain_classes(IMAGES[:1], weights=np.eye(5)[[1, 4]])
    np.testing.assert_allclose(weights.gradients, found.gradients[[0, 2]], atol=1e-6)
    assert len(loaded.explain_classes(IMAGES[:1], [])) == 0
    smooth = loaded.explain_classes(IMAGES[:1], ["bee", -1], aug_smooth=True)
    assert smooth.classes.tolist() == found.classes[:2].tolist()


def test_a_session_runs_once_for_several_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = explainer("classifier", several=True)
    batches = []
    run = type(loaded._runner).run

    def counting(self: Any, outputs: Any, batch: Any, *rest: Any) -> Any:
        batches.append(len(batch))
        return run(self, outputs, batch, *rest)

    monkeypatch.setattr(type(loaded._runner), "run", counting)
    loaded.explain_classes(IMAGES[:1], [0, 1, 2])
    assert batches == [1]


@pytest.mark.parametrize("several", [False, True])
def test_finercam_is_gradcam_of_the_weights_that_set_a_class_apart(
    several: bool, tmp_path: Path
) -> None:
    path = tmp_path / "x.onnx"
    export_model(
        objective_model("classifier"), path, several=several, verify=False, **OPTIONS["classifier"]
    )
    loaded = load(path, device="cpu")
    found = loaded.explain(IMAGES, [2, 0], "finercam")
    weights = finer_weights(np.log(found.scores), np.array([2, 0]))
    assert np.abs(weights).max() > 0.5
    by_hand = loaded.explain(IMAGES, weights=weights)
    size = np.abs(by_hand.raw_maps).max()
    np.testing.assert_allclose(found.raw_maps / size, by_hand.raw_maps / size, atol=1e-5)
    plain = loaded.explain(IMAGES, [2, 0])
    assert np.abs(found.raw_maps - plain.raw_maps).max() > 0.1 * size
    assert found.classes.tolist() == [2, 0]
    both = loaded.explain_classes(IMAGES[:1], [2, 0], "finercam")
    np.testing.assert_allclose(both.raw_maps[0], found.raw_maps[0], atol=1e-5 * size)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("finercam", "needs weighted classes.* export the model again with --weights"),
        ("shapleycam", "needs second derivatives.* export the model again with --second-order"),
    ],
)
def test_methods_that_need_more_of_the_file(method: str, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        explainer("segmenter").explain(IMAGES, method=method)


def test_shapleycam_of_a_file_with_second_derivatives(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    export_model(objective_model("logits"), path, objective="softmax", second_order=True)
    loaded = load(path, device="cpu")
    found = loaded.explain(IMAGES, method="shapleycam")
    curvature = found.further[Need.CURVATURE]
    alpha = (found.gradients - curvature / 2).mean(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(found.raw_maps, (alpha * found.activations).sum(axis=1), atol=1e-6)
    plain = found.with_method("gradcam")
    assert np.abs(plain.raw_maps - found.raw_maps).max() > 0.01 * np.abs(plain.raw_maps).max()
    np.testing.assert_array_equal(plain.with_method("shapleycam").raw_maps, found.raw_maps)


def test_both_sides_of_a_logit() -> None:
    yes = explainer("single logit").explain(IMAGES, "yes")
    no = explainer("single logit").explain(IMAGES, "no")
    np.testing.assert_allclose(yes.gradients, -no.gradients)
    np.testing.assert_allclose(yes.scores.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(yes.class_scores, -no.class_scores)
    likelier = explainer("single logit").explain(IMAGES)
    assert likelier.classes.tolist() == yes.scores.argmax(axis=1).tolist()


@pytest.mark.parametrize("body", ["segmenter", "segmenter of labels"])
def test_scores_of_a_segmenter_are_shares_of_the_places(body: str) -> None:
    found = explainer(body).explain(IMAGES)
    np.testing.assert_allclose(found.scores.sum(axis=1), 1, atol=1e-6)
    assert found.classes.tolist() == found.scores.argmax(axis=1).tolist()
    assert len(np.unique(found.scores)) > 2


def test_a_mask_for_all_images_or_for_each() -> None:
    loaded = explainer("segmenter")
    masks = np.zeros((2, 8, 10), np.float32)
    masks[0, :4], masks[1, :, 5:] = 1, 1
    both = loaded.explain(IMAGES, 2, mask=masks)
    for index in range(2):
        alone = loaded.explain(IMAGES[index], 2, mask=masks[index])
        np.testing.assert_allclose(both.gradients[index], alone.gradients[0], atol=1e-5)
    assert not np.allclose(both.gradients, loaded.explain(IMAGES, 2).gradients)


def test_boxes_by_index_and_rank() -> None:
    loaded = explainer("detector")
    best = loaded.explain(IMAGES, 3)
    named = loaded.explain(IMAGES, 3, box=best.boxes)
    np.testing.assert_array_equal(named.gradients, best.gradients)
    assert best.class_names[0] == f"class 3, box {best.boxes[0]}"  # type: ignore[index]
    several = loaded.explain_classes(IMAGES[:1], 3, box=[-1, -2, 5])
    assert several.boxes is not None
    assert several.boxes[0] == best.boxes[0]  # type: ignore[index]
    assert several.boxes[2] == 5
    np.testing.assert_allclose(
        best.scores.argmax(axis=1), loaded.explain(IMAGES).classes
    )  # the class of the best box


def test_the_embedding_of_the_image_itself_is_as_similar_as_can_be() -> None:
    loaded = explainer("embedder")
    own = loaded.predict(IMAGES)
    found = loaded.explain(IMAGES, embedding=own)
    np.testing.assert_allclose(found.class_scores, 1, atol=1e-6)
    assert np.abs(found.gradients).max() < 1e-5  # and no change makes it more similar
    assert found.class_names == ("embedding", "embedding")
    other = loaded.explain(IMAGES, embedding=[1, 0, 0, 0, 0])
    np.testing.assert_allclose(other.class_scores, own[:, 0] / np.linalg.norm(own, axis=1))


@pytest.mark.parametrize("body", list(OPTIONS))
def test_files_with_required_inputs_predict_and_explain(body: str) -> None:
    loaded = explainer(body, class_input="required")
    given = {"embedding": np.ones(5)} if body == "embedder" else {}
    reference = explainer(body)
    np.testing.assert_allclose(loaded.predict(IMAGES), reference.predict(IMAGES), atol=1e-6)
    found, expected = (e.explain(IMAGES, **given) for e in (loaded, reference))
    np.testing.assert_allclose(found.gradients, expected.gradients, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "options", "error", "message"),
    [
        ("classifier", {"mask": np.ones((8, 10))}, UnsupportedModelError, "takes no mask: its obj"),
        ("classifier", {"box": 1}, UnsupportedModelError, "with --objective detection"),
        ("single logit", {"weights": [1, 2]}, UnsupportedModelError, "again with --weights"),
        ("embedder", {"classes": 1, "embedding": np.ones(5)}, UnsupportedModelError, "compares wi"),
        ("embedder", {}, UsageError, "give one: embedding=array"),
        ("embedder", {"embedding": np.ones(4)}, UsageError, r"of shape \(4,\): the model has 5"),
        ("embedder", {"embedding": np.zeros(5)}, UsageError, "has no direction"),
        ("classifier", {"weights": {"cat": 1}, "classes": 1}, UsageError, "not both"),
        ("classifier", {"weights": {-1: 1}}, UsageError, "not with ranks"),
        ("classifier", {"weights": {"cow": 1}}, ClassNotFoundError, "no class is called 'cow'"),
        ("classifier", {"weights": np.zeros(5)}, UsageError, "weight no class"),
        ("classifier", {"weights": np.ones((3, 5))}, UsageError, "3 of weights for 2 images"),
        ("classifier", {"weights": [1, 2, 3, 4, np.nan]}, UsageError, "NaN or infinite"),
        ("classifier", {"weights": "cat"}, UsageError, "no array of numbers"),
        ("segmenter", {"mask": np.ones((3, 8, 10))}, UsageError, r"mask of shape \(3, 8, 10\)"),
        ("segmenter", {"mask": np.zeros((8, 10))}, UsageError, "masks nothing"),
        ("segmenter", {"mask": np.ones((4, 5))}, UsageError, "size of the score map, 8 x 10"),
        ("segmenter", {"aug_smooth": True}, UsageError, "masks and boxes do not follow"),
        ("detector", {"box": 1.5}, UsageError, "a box is an index"),
        ("detector", {"box": [1, 2, 3]}, UsageError, "3 of box for 2 images"),
    ],
)
def test_what_does_not_fit(
    body: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        explainer(body).explain(IMAGES, **options)


def test_a_box_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="box 20 is out of range: 0 to 19"):
        explainer("detector").explain(IMAGES, box=20)


def test_a_regression_is_explained_as_it_is_and_turned_around(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    model = objective_model("single logit")
    del model.graph.node[-1]  # the sigmoid: what is left is a number of any size
    model.graph.output[0].name = model.graph.node[-1].output[0]
    export_model(model, path, weights=True, gradient_builder="reverse")
    loaded = load(path, device="cpu")
    more, less = loaded.explain(IMAGES), loaded.explain(IMAGES, weights=[-1])
    np.testing.assert_allclose(less.gradients, -more.gradients)
    np.testing.assert_allclose(more.class_scores, loaded.predict(IMAGES)[:, 0], rtol=1e-5)
    np.testing.assert_allclose(less.class_scores, -more.class_scores, rtol=1e-5)
    assert np.ptp(more.raw_maps) > 0
