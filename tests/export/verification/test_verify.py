"""Verification accepts what is right and refuses each thing that can be wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_gradcam.errors import (
    InvalidModelError,
    MissingDependencyError,
    NotExportedError,
    UsageError,
)
from onnx_gradcam.export.files.model_output import save_model
from onnx_gradcam.export.verification.report import Check, VerificationReport
from onnx_gradcam.export.verification.verify import check_export, verify_export
from tests.export.hand_made import (
    EXPLANATION,
    LAST,
    SOURCE,
    WRONG_GRADIENTS,
    export_by_hand,
    source_model,
    write,
)

EXPECTED = [
    "valid ONNX",
    "standard operators",
    "source file",
    "original nodes",
    "names and metadata",
    "loads",
    "outputs, optimisations off",
    "outputs, default level",
    "activations",
    "classes",
    "gradient",
    "images do not mix",
]


def verify(
    folder: Path,
    source: onnx.ModelProto | None = None,
    replace: tuple[str, str] | None = None,
    explanation: str = EXPLANATION,
    change: Callable[[onnx.ModelProto], None] | None = None,
    **changes: object,
) -> VerificationReport:
    source = source or source_model()
    exported, metadata = export_by_hand(source, explanation, replace, **changes)
    if change:
        change(exported)
    return verify_export(write(exported, folder / "exported.onnx"), source, metadata)


def failed(report: VerificationReport) -> list[str]:
    return [check.name for check in report.failures]


def named(report: VerificationReport, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


def test_a_right_export_passes_every_check(tmp_path: Path) -> None:
    report = verify(tmp_path)
    assert [check.name for check in report.checks] == EXPECTED
    assert report.passed, report.summary()
    assert report.warnings == ()
    assert named(report, "gradient").value < 1e-2
    assert "identical to the last bit" in named(report, "outputs, optimisations off").detail


def test_the_report_is_text_and_json(tmp_path: Path) -> None:
    report = verify(tmp_path, replace=WRONG_GRADIENTS["twice"])
    lines = report.summary().splitlines()
    assert len(lines) == len(EXPECTED)
    assert sum(line.startswith("FAILED") for line in lines) == 1
    restored = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert restored["passed"] is False
    assert [check["name"] for check in restored["checks"]] == EXPECTED


@pytest.mark.parametrize("wrong", WRONG_GRADIENTS)
def test_a_wrong_gradient_fails(tmp_path: Path, wrong: str) -> None:
    report = verify(tmp_path, replace=WRONG_GRADIENTS[wrong])
    assert "gradient" in failed(report), report.summary()
    assert not set(failed(report)) - {"gradient", "images do not mix", "classes"}


def test_a_gradient_of_the_wrong_shape_fails(tmp_path: Path) -> None:
    replace = (LAST, "cam_gradients = Flatten(add_gradient)")
    report = verify(tmp_path, replace=replace)
    assert set(failed(report)) & {"gradient", "valid ONNX"}


DEAD = SOURCE.replace("flat = Flatten(swish)", "none = Sub(swish, swish) flat = Flatten(none)")


def test_a_genuinely_zero_gradient_is_reported(tmp_path: Path) -> None:
    report = verify(tmp_path, source_model(DEAD), WRONG_GRADIENTS["zero"])
    check = named(report, "gradient")
    assert check.passed
    assert check.warning
    assert "zero for all inputs tried" in check.detail
    assert any("heat maps will be empty" in warning for warning in report.warnings)
    assert "warning" in report.summary()


def test_a_gradient_that_should_be_zero_fails(tmp_path: Path) -> None:
    assert failed(verify(tmp_path, source_model(DEAD))) == ["gradient"]


def test_changed_weights_fail(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        bias = next(t for t in model.graph.initializer if t.name == "bias")
        values = numpy_helper.to_array(bias).copy()
        values[0] = np.nextafter(values[0], np.inf)
        bias.CopyFrom(numpy_helper.from_array(values, "bias"))

    assert "outputs, optimisations off" in failed(verify(tmp_path, change=change))


def test_changed_and_foreign_original_nodes_fail(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].name = "renamed"

    report = verify(tmp_path, change=change)
    assert failed(report) == ["original nodes"]
    assert "1 changed or missing, 1 new" in named(report, "original nodes").detail


def test_operators_of_other_domains_among_the_added_ones_fail(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import.add(domain="com.microsoft", version=1)
        node = next(n for n in model.graph.node if n.name.endswith("add_bend"))
        node.op_type, node.domain = "SigmoidGrad", "com.microsoft"

    report = verify(tmp_path, change=change)
    assert {"standard operators", "runs on onnxruntime"} <= set(failed(report))
    assert "com.microsoft::SigmoidGrad" in named(report, "standard operators").detail


def test_an_operator_the_opset_does_not_have_fails(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.name.endswith("add_bend"))
        node.op_type = "MaxPoolGrad"

    report = verify(tmp_path, change=change)
    assert {"valid ONNX", "standard operators"} <= set(failed(report))
    assert "MaxPoolGrad" in named(report, "valid ONNX").detail


def test_outputs_in_another_order_fail(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        outputs = list(model.graph.output)
        del model.graph.output[:]
        model.graph.output.extend([*outputs[1:], outputs[0]])

    report = verify(tmp_path, change=change)
    assert "names and metadata" in failed(report)
    assert "the last outputs are not" in named(report, "names and metadata").detail


def test_metadata_that_does_not_fit_fails(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.metadata_props[0].value = "[]"

    assert failed(verify(tmp_path, change=change)) == ["names and metadata"]


def test_activations_of_another_tensor_fail(tmp_path: Path) -> None:
    replace = ("cam_activations = Identity(features)", "cam_activations = Identity(gate)")
    assert failed(verify(tmp_path, replace=replace)) == ["activations"]


@pytest.mark.parametrize("class_input", ["required", "fixed:2", "fixed:-1"])
def test_the_class_may_be_required_or_fixed(tmp_path: Path, class_input: str) -> None:
    explanation = EXPLANATION
    if class_input.startswith("fixed"):
        fixed = f"{{{class_input.partition(':')[2]}}}> {{"
        explanation = explanation.replace("{1}> {", "{1}, int64[1] add_fixed = " + fixed)
        explanation = explanation.replace("(cam_class", "(add_fixed").replace(
            "add_by_rank, cam_class)",
            "add_by_rank, add_fixed) add_n = Identity(add_by_rank)"
            " add_none = Sub(add_n, add_n) add_per_image = Add(add_classes, add_none)",
        )
        explanation = explanation.replace("Identity(add_classes)", "Identity(add_per_image)")
    report = verify(tmp_path, explanation=explanation, class_input=class_input)
    assert report.passed, report.summary()


@pytest.mark.parametrize(
    ("replace", "problem"),
    [
        (("Sub(add_negated, add_one)", "Identity(add_negated)"), "-1 explains"),
        (("add_rank = Sub(add_negated, add_one)", "add_rank = Sub(add_one, add_one)"), "-2"),
        (("Where(add_sign, add_by_rank, cam_class)", "Identity(add_by_rank)"), "[3, 4] explains"),
    ],
)
def test_wrong_class_semantics_fail(tmp_path: Path, replace: tuple[str, str], problem: str) -> None:
    report = verify(tmp_path, replace=replace)
    assert "classes" in failed(report)
    assert problem in named(report, "classes").detail


MIXING = SOURCE.replace(
    "gate = Sigmoid(features)",
    "mean = ReduceMean<axes=[0], keepdims=1>(features) centred = Sub(features, mean)"
    " gate = Sigmoid(centred)",
).replace("swish = Mul(features, gate)", "swish = Mul(features, gate)")


def test_images_that_mix_fail(tmp_path: Path) -> None:
    report = verify(tmp_path, source_model(MIXING))
    assert "images do not mix" in failed(report)


def test_channels_last_targets(tmp_path: Path) -> None:
    source = source_model(
        SOURCE.replace(
            "image, filters)", "image, filters) last = Transpose<perm=[0,2,3,1]>(features)"
        )
        .replace("Sigmoid(features)", "Sigmoid(last)")
        .replace("Mul(features, gate)", "Mul(last, gate)")
    )
    explanation = EXPLANATION.replace("float[N,8,5,5] features", "float[N,5,5,8] last")
    explanation = explanation.replace("(features", "(last").replace(
        "Identity(last)", "Transpose<perm=[0,3,1,2]>(last)"
    )
    explanation = explanation.replace(
        LAST, "cam_gradients = Transpose<perm=[0,3,1,2]>(add_gradient)"
    )
    right = {"explanation": explanation, "target": "last", "target_layout": "NHWC"}
    report = verify(tmp_path, source, **right)  # type: ignore[arg-type]
    assert report.passed, report.summary()
    transposed = explanation.replace(
        "perm=[0,3,1,2]>(add_gradient)", "perm=[0,3,2,1]>(add_gradient)"
    )
    report = verify(tmp_path, source, **(right | {"explanation": transposed}))  # type: ignore[arg-type]
    assert failed(report) == ["gradient"]


def test_paths_around_the_target_are_kept_fixed(tmp_path: Path) -> None:
    around = SOURCE.replace(
        "swish = Mul(features, gate)",
        "other = Conv<pads=[1,1,1,1]>(image, filters) own = Mul(features, gate)"
        " swish = Add(own, other)",
    )
    report = verify(tmp_path, source_model(around))
    assert report.passed, report.summary()


def test_max_pooling_over_the_zeros_of_a_relu_passes(tmp_path: Path) -> None:
    """There every gradient is a choice: central differences are taken where A is not zero."""
    text = """
<ir_version: 8, opset_import: ["" : 17]>
pooled (float[N,3,8,8] image) => (float[N,6] logits)
<float[8,3,3,3] filters, float[128,6] weight, float[6] bias> {
  c = Conv<pads=[1,1,1,1]>(image, filters)
  features = Relu(c)
  pool = MaxPool<kernel_shape=[2,2], strides=[2,2]>(features)
  flat = Flatten(pool)
  logits = Gemm(flat, weight, bias)
}"""
    explanation = EXPLANATION.replace("float[N,8,5,5] gate", "float[N,8,4,4] pool")
    explanation = explanation.replace("[200,6]", "[128,6]").replace("[N,8,5,5]", "[N,8,8,8]")
    explanation = (
        explanation[: explanation.index("add_shape =")]
        + """add_shape = Shape(pool)
  add_upstream = Reshape(add_flat, add_shape)
  add_scales = Constant<value_floats=[1.0,1.0,2.0,2.0]>()
  add_large = Resize<mode="nearest">(pool, , add_scales)
  add_wide = Resize<mode="nearest">(add_upstream, , add_scales)
  add_is = Equal(features, add_large)
  add_slope = Cast<to=1>(add_is)
  add_gradient = Mul(add_wide, add_slope)
  cam_gradients = Identity(add_gradient)
}"""
    )
    report = verify(tmp_path, source_model(text), explanation=explanation, score_output="logits")
    assert report.passed, report.summary()
    assert "where A is not at its limits" in named(report, "gradient").detail
    wrong = explanation.replace("Mul(add_wide, add_slope)", "Mul(add_wide, features)")
    report = verify(tmp_path, source_model(text), explanation=wrong, score_output="logits")
    assert failed(report) == ["gradient"]


def test_half_precision(tmp_path: Path) -> None:
    source = source_model(SOURCE.replace("float[", "float16["))
    explanation = EXPLANATION.replace("float[", "float16[").replace("Cast<to=1>", "Cast<to=10>")
    explanation = explanation.replace("float add_unit =", "float add_one_f =")
    explanation = explanation.replace("add_rest", "add_unit = Cast<to=10>(add_one_f) add_rest", 1)
    report = verify(tmp_path, source, explanation=explanation)
    assert failed(report) == ["activations"], "the contract says float"
    for name in ("cam_activations", "cam_gradients"):
        explanation = explanation.replace(f"float16[N,8,5,5] {name}", f"float[N,8,5,5] {name}")
        explanation = explanation.replace(f"{name} = Identity", f"{name} = Cast<to=1>")
    report = verify(tmp_path, source, explanation=explanation)
    assert report.passed, report.summary()
    twice = "add_twice = Add(add_gradient, add_gradient) cam_gradients = Cast<to=1>(add_twice)"
    wrong = explanation.replace(LAST.replace("Identity", "Cast<to=1>"), twice)
    assert failed(verify(tmp_path, source, explanation=wrong)) == ["gradient"]


def test_open_sizes_are_guessed_or_given(tmp_path: Path) -> None:
    open_sizes = SOURCE.replace("[N,3,5,5] image", "[N,3,H,W] image")
    source = source_model(open_sizes)
    exported, metadata = export_by_hand(source)
    path = write(exported, tmp_path / "exported.onnx")
    report = verify_export(path, source, metadata)
    assert failed(report) == ["runs"]
    assert "no input sizes were found" in named(report, "runs").detail
    image = np.random.default_rng(0).normal(size=(2, 3, 5, 5)).astype(np.float32)
    assert verify_export(path, source, metadata, inputs={"image": image}).passed


def test_external_data(tmp_path: Path) -> None:
    source = source_model()
    exported, _ = export_by_hand(source)
    (tmp_path / "in").mkdir()
    save_model(source, tmp_path / "in" / "m.onnx", external=True)
    save_model(exported, tmp_path / "m.onnx", external=True)
    report = check_export(tmp_path / "m.onnx", tmp_path / "in" / "m.onnx")
    assert failed(report) == ["source file"], "the recorded SHA-256 is that of the embedded form"
    assert check_export(tmp_path / "m.onnx").passed


def test_check_export_reads_the_metadata_of_the_file(tmp_path: Path) -> None:
    source = source_model()
    exported, _ = export_by_hand(source)
    path = write(exported, tmp_path / "exported.onnx")
    assert check_export(path, write(source, tmp_path / "source.onnx")).passed
    alone = check_export(str(path))
    assert alone.passed
    assert {check.name for check in alone.checks} == set(EXPECTED) - {
        "source file",
        "original nodes",
        "outputs, optimisations off",
        "outputs, default level",
    }
    wrong, _ = export_by_hand(source, replace=WRONG_GRADIENTS["sign flipped"])
    assert failed(check_export(write(wrong, path))) == ["gradient"]


def test_check_export_against_another_model(tmp_path: Path) -> None:
    exported, _ = export_by_hand(source_model())
    path = write(exported, tmp_path / "exported.onnx")
    report = check_export(path, write(source_model(seed=1), tmp_path / "other.onnx"))
    assert {"source file", "outputs, optimisations off"} <= set(failed(report))


def test_files_that_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(NotExportedError, match="carries no explanation"):
        check_export(write(source_model(), tmp_path / "plain.onnx"))
    with pytest.raises(UsageError, match="no model file"):
        check_export(tmp_path / "absent.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(InvalidModelError, match="a text file"):
        check_export(tmp_path / "broken.onnx")


def test_without_onnxruntime_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"onnx-gradcam\[cpu\]"):
        verify(tmp_path)


def test_the_same_report_every_time(tmp_path: Path) -> None:
    assert verify(tmp_path).to_dict() == verify(tmp_path).to_dict()
