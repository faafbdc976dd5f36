"""H A, the second derivative of y times A: against differences of the gradient itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_gradcam.contract import CURVATURE_OUTPUT
from onnx_gradcam.errors import UnsupportedModelError, UsageError, VerificationError
from onnx_gradcam.export import curvature
from onnx_gradcam.export.pipeline import export_model
from onnx_gradcam.export.verification.second_differences import second_difference_error
from tests.export.objective_models import objective_model
from tests.export.objective_seeds import IMAGES, MASK
from tests.export.spatial.transformers import CLASS_TOKEN

CASES: dict[str, dict[str, Any]] = {
    "softmax": {"body": "logits", "objective": "softmax"},
    "behind an activation": {
        "body": "segmenter", "objective": "segmentation", "layer": "A", "class_input": "fixed:2",
    },
    "similarity": {"body": "embedder", "objective": "similarity"},
}  # fmt: skip


SEEDS = {
    "behind an activation": {"cam_mask": MASK[None]},  # a region would change with A
    "similarity": {"cam_embedding": np.eye(5, dtype=np.float32)[:2]},
}


def exported(path: Path, body: str, **options: Any) -> onnx.ModelProto:
    export_model(objective_model(body), path, second_order=True, force=True, **options)
    return onnx.load(path)


def head(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Return the exported file cut open at A: from A, as an input, to the gradient."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    target = next(n.output[0] for n in copy.graph.node if n.op_type in {"Softplus"})
    nodes = [node for node in copy.graph.node if target not in node.output]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    copy.graph.input.append(onnx.helper.make_tensor_value_info(target, 1, [None] * 4))
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    return onnxruntime.InferenceSession(
        copy.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("builder", ["reverse", "auto"])
@pytest.mark.parametrize("case", list(CASES))
def test_it_is_how_the_gradient_changes_along_the_activations(
    tmp_path: Path, case: str, builder: str
) -> None:
    model = exported(tmp_path / "x.onnx", gradient_builder=builder, **CASES[case])
    session = head(model)
    seeds = SEEDS.get(case, {})
    plain = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = ["cam_activations", "cam_gradients", CURVATURE_OUTPUT]
    a, _, claimed = plain.run(names, {"image": IMAGES, **seeds})
    assert np.linalg.norm(claimed) > 1e-4
    feeds = {"image": IMAGES, **seeds}
    step = 3e-3
    up, down = (
        session.run(["cam_gradients"], {**feeds, "A": (a * (1 + s)).astype(np.float32)})[0]
        for s in (step, -step)
    )
    measured = (up.astype(np.float64) - down) / (2 * step)
    size = np.abs(measured).max()
    np.testing.assert_allclose(claimed / size, measured / size, atol=2e-3)


def test_class_tokens_are_no_part_of_the_map(tmp_path: Path) -> None:
    report = export_model(
        CLASS_TOKEN.model(), tmp_path / "x.onnx", second_order=True, gradient_builder="reverse"
    )
    assert report.verification is not None
    (check,) = (c for c in report.verification.checks if c.name == "second derivatives")
    assert check.value is not None
    assert check.value < 1e-3
    assert "differ by" in check.detail  # measured, not lost in rounding


def test_a_linear_head_has_none(tmp_path: Path) -> None:
    model = exported(tmp_path / "x.onnx", "logits")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found, a = session.run([CURVATURE_OUTPUT, "cam_activations"], {"image": IMAGES})
    assert found.shape == a.shape
    assert not found.any()


def test_a_wrong_one_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = curvature.build_reverse

    def wrong(graph: Any, tail: Any, emit: Any, seed: str) -> str:
        return str(emit.mul(built(graph, tail, emit, seed), 1.5))

    monkeypatch.setattr(curvature, "build_reverse", wrong)
    with pytest.raises(VerificationError, match="second derivatives: second differences in flo"):
        exported(tmp_path / "x.onnx", "segmenter", objective="segmentation", layer="A")


def test_second_differences_tell_right_from_wrong_and_zero() -> None:
    a = np.random.default_rng(1).normal(size=(2, 3, 4, 4))

    def y(perturbation: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray(((a + perturbation) ** 3).sum(axis=(1, 2, 3)))[:, None]

    right, gradients = 6 * a * a, 3 * a * a
    assert second_difference_error(y, a, right, gradients) < 1e-5
    assert second_difference_error(y, a, 1.1 * right, gradients) > 0.05
    assert second_difference_error(y, a, 0 * right, gradients) > 0.5


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave out --several"):
        exported(tmp_path / "x.onnx", "logits", several=True)
    half = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        half (float16[N, 3, 4, 4] image) => (float16[N, 3] y) {
          A = Tanh (image)
          pooled = GlobalAveragePool (A)
          y = Flatten (pooled)
        }"""
    )
    with pytest.raises(UnsupportedModelError, match="in half precision are not covered"):
        export_model(half, tmp_path / "x.onnx", second_order=True)
