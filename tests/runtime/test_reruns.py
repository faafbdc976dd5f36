"""What a loaded file runs again: parts of it, and which methods it serves with them."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from onnx_gradcam import load
from onnx_gradcam.cam import Need, method_names
from onnx_gradcam.cam.components import Maps
from onnx_gradcam.errors import ModelError, UnsupportedModelError, UsageError
from onnx_gradcam.runtime import Explainer
from onnx_gradcam.runtime.reruns import Reruns, explained_score
from onnx_gradcam.runtime.smoothing import VERSIONS, other_versions
from tests.contract_models import contract_model, images, weights

AREA = 20  # positions of A, 4 x 5
CLASSES = np.array([3, 0, 2])
KINDS: list[dict[str, Any]] = [
    {},
    {"kind": "float16"},
    {"class_input": "required"},
    {"class_input": "fixed:3"},
    {"class_input": "fixed:3", "ir": 3},
    {"softmax": True, "score_axes": True},
    {"image": "4, 3, 8, 10"},
    {"image": "1, 3, 8, 10"},
    {"channels_last": True, "image": "n, 8, 10, 3"},
    {"extra_input": True},
]


def reruns(explainer: Explainer) -> Reruns:
    assert explainer._reruns is not None
    return explainer._reruns


def by_hand(a: Maps, classes: NDArray[Any]) -> dict[str, Maps]:
    """Return the raw maps of the contract model, whose head is linear."""
    w, b = weights()["W"][classes][..., None, None], weights()["b"][classes]
    mean = a.mean(axis=(2, 3), keepdims=True)
    score = (mean * w).sum(axis=(1, 2, 3)) + b
    places = (a * w).sum(axis=1) / AREA
    padded = np.pad(places, [(0, 0), (1, 1), (1, 1)])
    rows = 0.25 * padded[:, :-2] + 0.5 * padded[:, 1:-1] + 0.25 * padded[:, 2:]
    around = 0.25 * rows[..., :-2] + 0.5 * rows[..., 1:-1] + 0.25 * rows[..., 2:]
    return {
        "ablationcam": (mean * w * a).sum(axis=1) / score[:, None, None],
        "reciprocam": places + b[:, None, None],
        "vitreciprocam": around + b[:, None, None],
    }


@pytest.mark.parametrize("model", KINDS, ids=str)
def test_head_methods_of_each_kind_of_file(model: dict[str, Any]) -> None:
    explainer = load(contract_model(**model), device="cpu")
    fixed = model.get("class_input", "").startswith("fixed")
    classes = np.array([3, 3, 3]) if fixed else CLASSES
    extra = {"gain": np.array([1.0])} if "extra_input" in model else None
    x = images(3)
    plain = explainer.explain(x, classes, extra_inputs=extra)
    tolerance = 2e-3 if model.get("kind") == "float16" else 1e-5
    for name, expected in by_hand(plain.activations, classes).items():
        found = explainer.explain(x, classes, name, extra_inputs=extra)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found.raw_maps, expected, rtol=0, atol=tolerance * scale)
        assert found.cams.max() > 0.9
        np.testing.assert_array_equal(found.scores, plain.scores)
    assert explainer.explain(images(0), [], "ablationcam", extra_inputs=extra).cams.size == 0


def test_the_best_class_and_several_classes_of_one_image() -> None:
    explainer = load(contract_model(), device="cpu")
    best = explainer.explain(images(3), method="reciprocam")
    expected = by_hand(best.activations, best.classes)["reciprocam"]
    np.testing.assert_allclose(best.raw_maps, expected, atol=1e-5)
    each = explainer.explain_classes(images(1), [4, 1], "ablationcam")
    expected = by_hand(each.activations, np.array([4, 1]))["ablationcam"]
    np.testing.assert_allclose(each.raw_maps, expected, atol=1e-4)
    low, high = best.scales.T
    np.testing.assert_allclose(low, best.raw_maps.min(axis=(1, 2)))
    np.testing.assert_allclose(high, best.raw_maps.max(axis=(1, 2)))


@pytest.mark.parametrize("name", ["ablationcam", "reciprocam"])
def test_each_version_of_aug_smooth_has_runs_of_its_own(name: str) -> None:
    explainer = load(contract_model(), device="cpu")
    x = images(2)
    found = explainer.explain(x, [1, 4], name, aug_smooth=True)
    versions = [x, *other_versions(x, explainer.image_input)]
    each = [explainer.explain(version, [1, 4], name) for version in versions]
    pairs = [(one, mirror) for one, (mirror, _) in zip(each, VERSIONS, strict=True)]
    raw = np.mean([e.raw_maps[..., ::-1] if m else e.raw_maps for e, m in pairs], axis=0)
    np.testing.assert_allclose(found.raw_maps, raw, atol=1e-5)
    cams = np.mean([e.cams[..., ::-1] if m else e.cams for e, m in pairs], axis=0)
    np.testing.assert_allclose(found.cams, cams, atol=1e-5)
    assert np.abs(found.cams - each[0].cams).max() > 0.05


def test_eigen_smooth_of_ablation() -> None:
    explainer = load(contract_model(), device="cpu")
    smooth = explainer.explain(images(2), 1, "ablationcam", eigen_smooth=True)
    assert np.abs(smooth.cams - explainer.explain(images(2), 1, "ablationcam").cams).max() > 0.01
    with pytest.raises(UsageError, match="'reciprocam' is no sum over channels"):
        explainer.explain(images(2), 1, "reciprocam", eigen_smooth=True)


@pytest.mark.parametrize("model", KINDS, ids=str)
def test_scores_alone_run_no_gradient(model: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(contract_model(**model))
    explainer = load(path, device="cpu")
    extra = {"gain": np.array([1.0])} if "extra_input" in model else None
    x = images(3)
    expected = explainer.explain(x, 3, extra_inputs=extra).scores
    explainer._runner = None  # type: ignore[assignment]  # the whole file is not asked
    found = explainer.predict(x, extra_inputs=extra)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    meta = explainer.metadata
    session = reruns(explainer)._parts.giving([meta.score_output, meta.score_tensor])
    assert {node.name for node in session.get_inputs()} == {"image"} | set(extra or {})
    assert [node.name for node in session.get_outputs()] == [meta.score_output, "logits2"]
    assert session is reruns(explainer)._parts.giving([meta.score_output, meta.score_tensor])


def test_parts_run_where_the_whole_runs_and_with_its_options() -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    explainer = load(contract_model(), providers=["CPUExecutionProvider"], session_options=options)
    session = reruns(explainer)._parts.giving(["logits"])
    assert session.get_providers() == list(explainer.providers)
    own = session.get_session_options()
    assert own.intra_op_num_threads == 1
    assert own.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_an_optimised_copy_is_that_of_the_whole(tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    explainer = load(contract_model(), device="cpu", session_options=options)
    before = (tmp_path / "optimised.onnx").read_bytes()
    explainer.explain(images(1), 1, "ablationcam")
    explainer.predict(images(1))
    assert (tmp_path / "optimised.onnx").read_bytes() == before


def test_external_data_are_found_by_the_parts(tmp_path: Path) -> None:
    model = onnx.load_from_string(contract_model())
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=64)
    explainer = load(path, device="cpu")
    assert (tmp_path / "weights").stat().st_size > 400
    found = explainer.explain(images(3), CLASSES, "reciprocam")
    expected = by_hand(found.activations, CLASSES)["reciprocam"]
    np.testing.assert_allclose(found.raw_maps, expected, atol=1e-5)
    np.testing.assert_array_equal(explainer.predict(images(3)), found.scores)


def test_a_file_that_changes_or_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(contract_model())
    expected = load(path, device="cpu").predict(images(2))
    for happens, message in (
        (lambda: os.utime(path, (1, 1)), "has changed since it was loaded; load it"),
        (lambda: path.write_bytes(b""), "cannot be read again, for a part of it"),
        (path.unlink, "cannot be read again, for a part of it"),
    ):
        path.write_bytes(contract_model())
        explainer = load(path, device="cpu")
        happens()
        with pytest.raises(UnsupportedModelError, match=f"{re.escape(str(path))} {message}"):
            explainer.explain(images(2), 1, "ablationcam")
        np.testing.assert_array_equal(explainer.predict(images(2)), expected)  # by the whole
        with pytest.raises(ModelError, match=message):
            reruns(explainer)._parts.giving(["logits", "logits2"])


def test_a_file_in_the_format_of_onnxruntime(tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(contract_model(), options, providers=["CPUExecutionProvider"])
    explainer = load(tmp_path / "model.ort", device="cpu")
    assert explainer.predict(images(2)).shape == (2, 5)
    for source in (tmp_path / "model.ort", (tmp_path / "model.ort").read_bytes()):
        with pytest.raises(UnsupportedModelError, match="is in onnxruntime's own format"):
            load(source, device="cpu").explain(images(2), 1, "reciprocam")


def test_a_bare_session_serves_what_runs_nothing_again() -> None:
    session = ort.InferenceSession(contract_model(), providers=["CPUExecutionProvider"])
    explainer = Explainer(session)
    assert explainer.methods == method_names({Need.GRADIENTS, Need.SEED})
    with pytest.raises(UnsupportedModelError, match=r"'ablationcam' needs head runs.*onnx_gradcam"):
        explainer.explain(images(1), method="ablationcam")
    np.testing.assert_array_equal(
        explainer.predict(images(2)), load(contract_model(), device="cpu").predict(images(2))
    )
    assert load(contract_model(), device="cpu").methods == method_names(
        {Need.GRADIENTS, Need.SEED, Need.HEAD_RUNS, Need.MODEL_RUNS}
    )


def test_an_explanation_runs_nothing() -> None:
    found = load(contract_model(), device="cpu").explain(images(1), 1)
    with pytest.raises(UsageError, match=r"'reciprocam' needs head runs.*explain\(x, method="):
        found.with_method("reciprocam")
    again = load(contract_model(), device="cpu").explain(images(1), 1, "reciprocam")
    np.testing.assert_array_equal(again.with_method("gradcam").cams, found.cams)


def test_one_head_for_many_threads() -> None:
    explainer = load(contract_model(), device="cpu")
    x = images(8)
    expected = load(contract_model(), device="cpu").explain(x, 1, "ablationcam").raw_maps

    def one(index: int) -> Maps:
        return explainer.explain(x[index : index + 1], 1, "ablationcam").raw_maps[0]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(8)))
    np.testing.assert_allclose(np.stack(found), expected, atol=1e-5)


def test_which_number_is_explained() -> None:
    scores = np.arange(6).reshape(2, 3)
    assert explained_score(scores, np.array([2, 0])).tolist() == [2, 3]
    assert explained_score(scores[:, :, None, None], np.array([1, 1])).tolist() == [1, 4]


@pytest.mark.parametrize("model", KINDS, ids=str)
def test_runs_of_the_whole_model(model: dict[str, Any]) -> None:
    explainer = load(contract_model(**model), device="cpu")
    extra = {"gain": np.array([1.0])} if "extra_input" in model else {}
    batch = explainer.image_input.fit(images(3))
    fixed = model.get("class_input", "").startswith("fixed")
    classes = np.array([3, 3, 3]) if fixed else CLASSES
    plain = explainer.explain(images(3), classes, extra_inputs=extra)
    seeds = {} if fixed else {"cam_class": classes}
    found = explainer._run(batch, seeds, extra, 1)
    runs = explainer._further(batch, seeds, found, extra, 1)[Need.MODEL_RUNS]
    tolerance = 1e-2 if model.get("kind") == "float16" else 1e-5
    np.testing.assert_allclose(runs.images, images(3), atol=tolerance)
    mean = plain.activations.mean(axis=(2, 3))
    np.testing.assert_allclose(
        runs.scores, mean @ weights()["W"].T + weights()["b"], atol=10 * tolerance
    )
    rows = np.array([2, 0, 2] * 12)  # more than run at once
    factors = np.linspace(0.5, 1, 36, dtype=np.float32).reshape(-1, 1, 1, 1)
    changed = runs.images[rows] * factors
    np.testing.assert_allclose(
        runs(changed, rows),
        factors[:, 0, 0] * (runs.scores[rows] - weights()["b"]) + weights()["b"],
        atol=10 * tolerance,
    )  # the network is homogeneous, up to the bias
    a, g = runs.explain(changed, rows)
    np.testing.assert_allclose(a, factors * plain.activations[rows], atol=10 * tolerance)
    np.testing.assert_allclose(g, plain.gradients[rows], atol=tolerance)
    np.testing.assert_array_equal(runs.classes, classes)
    assert runs(changed[:0], rows[:0]).shape == (0, 5)


def test_images_of_which_nothing_can_be_proven_do_not_count_as_proof() -> None:
    explainer = load(contract_model(kind="float16"), device="cpu")
    overflowing = np.full((1, 3, 8, 10), 60000, np.float32)
    found = explainer.explain(overflowing, 1, "reciprocam")
    assert found.notes == ("the activations hold NaN or infinite values",)
    assert not found.cams.any()
    head = reruns(explainer).head
    assert not head._known
    assert explainer.explain(images(1), 1, "reciprocam").notes == ("",)
    assert len(head._known) == 1


def test_settings_of_a_method() -> None:
    explainer = load(contract_model(), device="cpu")
    few, many = (
        explainer.explain(images(1), 1, "rise", settings={"masks": count}) for count in (3, 40)
    )
    assert not np.array_equal(few.raw_maps, many.raw_maps)
    assert few.settings == {"masks": 3}
    with pytest.raises(UsageError, match="has no setting 'masks'"):
        explainer.explain(images(1), 1, "gradcam", settings={"masks": 3})
    patch = explainer.explain(images(1), 1, "occlusion", settings={"window": [3, 5]})
    assert np.ptp(patch.raw_maps) > 0
