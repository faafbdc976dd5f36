"""Models of unusual shapes and structure are exported and proven; what cannot work is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_gradcam import check_export, export_model, inspect_model, load
from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.export.report import ExportReport
from tests.export.unusual_models import CUSTOM, UNUSUAL, WITHOUT_HEAT_MAP, Unusual


def export(model: Unusual, folder: Path, **options: object) -> ExportReport:
    onnx.save(model.model(), folder / "m.onnx")
    return export_model(
        folder / "m.onnx",
        folder / "m.cam.onnx",
        gradient_builder="reverse",
        **{**model.options, **options},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", UNUSUAL)
def test_export_and_explain(name: str, tmp_path: Path) -> None:
    """From the file to the heat maps, which follow from what the file returns."""
    model = UNUSUAL[name]
    report = export(model, tmp_path)
    assert report.target == model.target
    assert report.verification is not None
    assert report.verification.passed
    assert check_export(tmp_path / "m.cam.onnx", against=tmp_path / "m.onnx").passed

    images, extra = model.feeds()
    explainer = load(tmp_path / "m.cam.onnx", device="cpu")
    found = explainer.explain(images, extra_inputs=extra)
    assert found.cams.shape == (len(images), *model.size)
    assert found.scores.shape == (len(images), 5)
    np.testing.assert_array_equal(found.classes, found.scores.argmax(axis=1))
    axes = tuple(range(2, found.gradients.ndim))
    weights = found.gradients.mean(axis=axes, keepdims=True)
    expected = (weights * found.activations).sum(axis=1)
    np.testing.assert_allclose(found.raw_maps, expected, rtol=1e-5, atol=1e-6)
    assert (np.abs(found.gradients).reshape(len(images), -1).max(axis=1) > 0).all()

    none = explainer.explain(images[:0], extra_inputs={n: v[:0] for n, v in rows(extra, images)})
    assert none.cams.shape[0] == 0
    assert none.scores.shape == (0, 5)


def rows(extra: dict[str, np.ndarray], images: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return the inputs, those shared by all images with an axis to cut."""
    return [
        (n, v if v.shape[:1] == (len(images),) else np.array(v)[None]) for n, v in extra.items()
    ]


@pytest.mark.parametrize("name", UNUSUAL)
def test_inspect(name: str, tmp_path: Path) -> None:
    model = UNUSUAL[name]
    options = {k: v for k, v in model.options.items() if k in {"score", "image_input"}}
    report = inspect_model(model.model(), **options)
    assert report.recommended is not None
    assert report.candidates[report.recommended].tensor == model.target
    assert report.summary()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a perceptron", "no spatial feature map: nothing to draw a heat map from"),
        ("a score without the image", "'logits' does not depend on 'image'"),
        ("indices in place of scores", "the model has no float output"),
        ("an image without a batch axis", "(3, 8, 8) has no batch axis; export the model with one"),
        ("frames in the batch", "no spatial feature map"),
        ("a map in place of scores", "more than a class axis: it is no classification score"),
        ("a table in place of an image", "no spatial feature map"),
    ],
)
def test_no_heat_map(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=re.escape(reason)) as caught:
        export(WITHOUT_HEAT_MAP[name], tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m.cam.onnx").exists()
    assert reason.split(":")[0] in inspect_model(WITHOUT_HEAT_MAP[name].model()).reason


def test_all_cases_without_a_heat_map_are_tested() -> None:
    assert len(WITHOUT_HEAT_MAP) == 7


def test_two_heads_need_a_choice(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="'logits', 'makes'; use --score NAME"):
        export(UNUSUAL["two heads"], tmp_path, score=None)
    assert export(UNUSUAL["two heads"], tmp_path, score="makes").num_classes == 7


def test_which_input_is_the_image(tmp_path: Path) -> None:
    model = UNUSUAL["two images of two sizes"]
    with pytest.raises(UsageError, match=r"no input 'depth'.*'other', 'image'"):
        export(model, tmp_path, image_input="depth")
    report = export(model, tmp_path, image_input="other", layer="a")
    assert report.target == "a"
    images, extra = model.feeds()
    explainer = load(tmp_path / "m.cam.onnx", device="cpu")
    assert explainer.explain(extra["other"], extra_inputs={"image": images}).cams.shape == (3, 4, 4)


def test_a_layer_of_another_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="'a' does not depend on the image 'image'"):
        export(UNUSUAL["two images of two sizes"], tmp_path, layer="a")


def test_a_custom_operator_upstream_is_no_obstacle_but_to_the_proof(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"custom:Mystery.*--no-verify"):
        export(CUSTOM, tmp_path)
    report = export(CUSTOM, tmp_path, verify=False)
    assert report.target == "A"
    assert report.target_shape[1] == 4, "the rank and the channels follow from the weights"
    written = onnx.load(tmp_path / "m.cam.onnx")
    assert written.graph.output[0].name == "logits"


def test_stale_shapes_are_set_right_with_a_warning(tmp_path: Path) -> None:
    report = export(UNUSUAL["stale shapes"], tmp_path)
    assert [w for w in report.warnings if "'logits' is declared as (N, 5)" in w]
    output = onnx.load(tmp_path / "m.cam.onnx").graph.output[0]
    assert output.type.tensor_type.shape.dim[0].dim_param == "N"


def test_a_proof_with_given_inputs(tmp_path: Path) -> None:
    """Indices that random values do not hit: only given ones run."""
    model = Unusual(
        """row = Gather(table, which) c = Conv<pads=[1,1,1,1]>(image, w1)
        s = Add(c, row) A = Relu(s) """
        + "pooled = GlobalAveragePool(A) flat = Flatten(pooled)"
        " logits = Gemm<transB=1>(flat, w9, b9)",
        inputs="float[N, 3, 8, 8] image, int64[K] which",
        weights={"w1": (4, 3, 3, 3), "w9": (5, 4), "b9": (5,), "table": (2, 4, 1, 1)},
    )
    given = {"which": np.array([-1])}
    report = export(model, tmp_path, inputs=given)
    assert report.verification is not None
    assert report.verification.passed
    impossible = {"which": np.array([7])}
    report_of = check_export(tmp_path / "m.cam.onnx", inputs=impossible)
    assert not report_of.passed
    assert "--input NAME=FILE.npy" in report_of.failures[0].detail
