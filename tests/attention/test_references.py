"""Rollout and LeGrad of exported transformers against PyTorch: tools/attention_oracle.py."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_gradcam.export.pipeline import export_model
from onnx_gradcam.runtime import Explainer, load

REFERENCES = Path(__file__).with_name("references.npz")
TOLERANCE = 1e-5


@cache
def references() -> dict[str, NDArray]:
    with np.load(REFERENCES) as arrays:
        return dict(arrays)


CASES = sorted({key.partition("/")[0] for key in references()})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Explainer]:
    """Return the loaded files of all cases."""
    folder = tmp_path_factory.mktemp("attention")
    explainers = {}
    for case in CASES:
        path = folder / f"{case}.onnx"
        model = references()[f"{case}/model"].tobytes()
        report = export_model(model, path, attention="both", gradient_builder="reverse")
        assert report.warnings == ()
        explainers[case] = load(path)
    return explainers


def relative(value: NDArray, reference: NDArray) -> float:
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def test_there_are_all_kinds_by_both_exporters() -> None:
    assert len(CASES) == 12
    assert {case.partition("_")[0] for case in CASES} == {
        *("class", "distilled", "mean", "pooled", "post"),
    }
    assert REFERENCES.stat().st_size < 300_000


@pytest.mark.parametrize("method", ["rollout", "legrad"])
@pytest.mark.parametrize("case", CASES)
def test_maps_are_those_of_pytorch(exported: dict[str, Explainer], case: str, method: str) -> None:
    image, classes, expected = (
        references()[f"{case}/{name}"] for name in ("image", "classes", method)
    )
    assert expected.std() > 0.15 * expected.mean() > 0
    found = exported[case].explain(image, list(classes), method)
    assert found.raw_maps.shape == (2, 3, 4)
    assert relative(found.raw_maps, expected) < TOLERANCE
    assert found.notes == ("", "")
    assert found.cams.max(axis=(1, 2)) == pytest.approx([1, 1], abs=1e-5)


def test_only_legrad_depends_on_the_class(exported: dict[str, Explainer]) -> None:
    image = references()["class_dynamo/image"]
    one, other = (
        exported["class_dynamo"].explain(image, c, "rollout").with_method(method).raw_maps
        for c, method in ((0, "legrad"), (1, "legrad"))
    )
    assert relative(one, other) > 0.1
    flows = [exported["class_dynamo"].explain(image, c, "rollout").raw_maps for c in (0, 1)]
    np.testing.assert_array_equal(*flows)


def test_smoothing_averages_versions_of_the_image(exported: dict[str, Explainer]) -> None:
    image = references()["mean_legacy/image"]
    explainer = exported["mean_legacy"]
    plain = explainer.explain(image, 1, "legrad")
    smooth = explainer.explain(image, 1, "legrad", aug_smooth=True)
    mirrored = explainer.explain(image[..., ::-1], 1, "legrad")
    several = [explainer.explain(image * f, 1, "legrad").raw_maps for f in (1, 0.9, 1.1)]
    several += [
        explainer.explain(image[..., ::-1] * f, 1, "legrad").raw_maps[..., ::-1]
        for f in (1, 0.9, 1.1)
    ]
    np.testing.assert_allclose(smooth.raw_maps, np.mean(several, axis=0), rtol=1e-4)
    assert relative(mirrored.raw_maps[..., ::-1], plain.raw_maps) > 0.05
