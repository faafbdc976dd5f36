from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, helper, numpy_helper

from onnx_gradcam.contract import ADDED_OUTPUTS, CLASS_INPUT, PREFIX, ExportMetadata
from onnx_gradcam.errors import ClassNotFoundError, UnsupportedModelError, UsageError
from onnx_gradcam.export.attach import ClassInput, refuse_exported
from onnx_gradcam.export.builders.environment import builder_status
from onnx_gradcam.export.pipeline import export_model
from tests.export.networks import NETWORKS, network

NET = NETWORKS["EfficientNet"]


def exported(tmp_path: Path, model: ModelProto | None = None, **options: object) -> ModelProto:
    """Return an export with the built-in builder that was not verified."""
    output = tmp_path / "exported.onnx"
    settings = {"gradient_builder": "reverse", "verify": False, "force": True, **options}
    export_model(model or NET.model(), output, **settings)  # type: ignore[arg-type]
    return onnx.load(output)


def run(model: ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # an optional input is a warning
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 3, 8, 8)).astype(np.float32)


def names(values: object) -> list[str]:
    return [v.name for v in values]  # type: ignore[attr-defined]


# -- the class input ---------------------------------------------------------------------------


def test_class_inputs() -> None:
    assert ClassInput.parse("optional") == ClassInput("optional")
    assert ClassInput.parse("required") == ClassInput("required")
    assert ClassInput.parse("fixed:7") == ClassInput("fixed:7", 7)
    assert ClassInput.parse("fixed:-1") == ClassInput("fixed:-1", -1)


@pytest.mark.parametrize("text", ["", "fixed", "fixed:", "fixed:cat", "none", "optional "])
def test_other_class_inputs_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is none of optional, required, fixed:K"):
        ClassInput.parse(text)


def test_an_optional_class_has_a_default(tmp_path: Path) -> None:
    model = exported(tmp_path)
    assert names(model.graph.input) == ["image", CLASS_INPUT]
    default = next(t for t in model.graph.initializer if t.name == CLASS_INPUT)
    assert numpy_helper.to_array(default).tolist() == [-1]
    result = run(model, {"image": images()})
    assert result["cam_classes"].tolist() == result["logits"].argmax(axis=1).tolist()


def test_a_required_class_has_none(tmp_path: Path) -> None:
    model = exported(tmp_path, class_input="required")
    assert names(model.graph.input) == ["image", CLASS_INPUT]
    assert CLASS_INPUT not in names(model.graph.initializer)
    result = run(model, {"image": images(2), CLASS_INPUT: np.array([4, -1])})
    assert result["cam_classes"].tolist() == [4, int(result["logits"][1].argmax())]


def test_a_fixed_class_is_no_input(tmp_path: Path) -> None:
    model = exported(tmp_path, class_input="fixed:3")
    assert names(model.graph.input) == ["image"]
    fixed = run(model, {"image": images()})
    assert fixed["cam_classes"].tolist() == [3, 3, 3]
    free = run(exported(tmp_path), {"image": images(), CLASS_INPUT: np.array([3])})
    np.testing.assert_array_equal(fixed["cam_gradients"], free["cam_gradients"])


def test_a_fixed_rank_is_the_class_of_each_image(tmp_path: Path) -> None:
    result = run(exported(tmp_path, class_input="fixed:-2"), {"image": images()})
    assert result["cam_classes"].tolist() == np.argsort(-result["logits"], axis=1)[:, 1].tolist()


@pytest.mark.parametrize("text", ["fixed:5", "fixed:-6"])
def test_a_fixed_class_must_exist(tmp_path: Path, text: str) -> None:
    with pytest.raises(ClassNotFoundError, match=r"class -?\d is out of range: 0 to 4"):
        exported(tmp_path, class_input=text)


def test_the_class_decides_the_gradient_image_by_image(tmp_path: Path) -> None:
    model, x = exported(tmp_path), images(2)
    both = run(model, {"image": x, CLASS_INPUT: np.array([1, 4])})
    for row, chosen in enumerate([1, 4]):
        alone = run(model, {"image": x[row : row + 1], CLASS_INPUT: np.array([chosen])})
        for name in ("cam_gradients", "cam_activations"):
            np.testing.assert_allclose(both[name][row], alone[name][0], rtol=1e-5, atol=1e-7)
    again = run(model, {"image": x, CLASS_INPUT: np.array([4])})
    assert again["cam_classes"].tolist() == [4, 4]
    np.testing.assert_array_equal(again["cam_gradients"][1], both["cam_gradients"][1])
    assert np.abs(again["cam_gradients"][0] - both["cam_gradients"][0]).max() > 1e-3


# -- what is added, and what stays -------------------------------------------------------------


def test_the_original_graph_stays_as_it_was(tmp_path: Path) -> None:
    before, after = NET.model(), exported(tmp_path)
    count = len(before.graph.node)
    assert list(after.graph.node[:count]) == list(before.graph.node)
    assert list(after.graph.initializer[: len(before.graph.initializer)]) == list(
        before.graph.initializer
    )
    assert after.graph.input[0] == before.graph.input[0]
    assert names(after.graph.output) == ["logits", *ADDED_OUTPUTS]
    assert after.graph.output[0] == before.graph.output[0]
    assert after.opset_import == before.opset_import
    assert after.ir_version == before.ir_version


def test_added_names_carry_the_prefix(tmp_path: Path) -> None:
    before, after = NET.model(), exported(tmp_path)
    for node in after.graph.node[len(before.graph.node) :]:
        assert node.name.startswith(PREFIX)
        assert all(o.startswith(PREFIX) or o in ADDED_OUTPUTS for o in node.output)
    for tensor in after.graph.initializer[len(before.graph.initializer) :]:
        assert tensor.name.startswith(PREFIX) or tensor.name == CLASS_INPUT
    assert len(names(after.graph.node)) == len(set(names(after.graph.node)) | {""}) + 4


def test_nothing_is_added_that_no_output_needs(tmp_path: Path) -> None:
    model = exported(tmp_path, class_input="fixed:0")
    read = {n for node in model.graph.node for n in node.input} | set(names(model.graph.output))
    made = {o for node in model.graph.node for o in node.output if o.startswith(PREFIX)}
    unread = {name for name in made if name not in read}
    assert all("TopK" in name for name in unread)  # of which one output is used
    assert {t.name for t in model.graph.initializer} <= read


def test_outputs_have_types_and_shapes(tmp_path: Path) -> None:
    outputs = {o.name: o.type.tensor_type for o in exported(tmp_path).graph.output}

    def shape(name: str) -> list[str | int]:
        return [d.dim_param or d.dim_value for d in outputs[name].shape.dim]

    assert shape("cam_activations") == shape("cam_gradients") == ["N", 4, 4, 4]
    assert shape("cam_classes") == ["N"]
    types = [outputs[name].elem_type for name in ADDED_OUTPUTS]
    assert types == [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64]


def test_channels_last_maps_come_out_channels_first(tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((2, 8, 8, 3)).astype(np.float32)
    model = exported(tmp_path, NETWORKS["channels last"].model())
    model.graph.output.append(helper.make_tensor_value_info("act", onnx.TensorProto.FLOAT, None))
    result = run(model, {"image": x})
    np.testing.assert_array_equal(result["cam_activations"], result["act"].transpose(0, 3, 1, 2))
    assert result["cam_gradients"].shape == (2, 4, 4, 4)


def test_metadata_joins_what_is_there(tmp_path: Path) -> None:
    model = NET.model()
    helper.set_model_props(model, {"author": "someone"})
    props = {p.key: p.value for p in exported(tmp_path, model).metadata_props}
    assert props["author"] == "someone"
    metadata = ExportMetadata.from_props(props)
    assert (metadata.target, metadata.target_layout) == ("silu", "NCHW")
    assert (metadata.score_tensor, metadata.class_axis, metadata.num_classes) == ("logits", 1, 5)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        export_model(NET.model(), tmp_path / name, gradient_builder="reverse", verify=False)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


# -- IR version 3, in which every weight is an input -----------------------------------------------


def old_model() -> ModelProto:
    return network(NET.body, NET.weights, opset=8, ir_version=3)


def test_ir_3_is_raised_for_an_optional_class(tmp_path: Path) -> None:
    output = tmp_path / "exported.onnx"
    report = export_model(old_model(), output, gradient_builder="reverse", verify=False)
    assert "IR version raised from 3 to 4" in report.warnings[0]
    model = onnx.load(output)
    assert model.ir_version == 4
    assert names(model.graph.input) == ["image", CLASS_INPUT]
    assert run(model, {"image": images(1)})["cam_gradients"].any()


@pytest.mark.parametrize("class_input", ["required", "fixed:2"])
def test_ir_3_is_kept_otherwise(tmp_path: Path, class_input: str) -> None:
    model = exported(tmp_path, old_model(), class_input=class_input)
    assert model.ir_version == 3
    assert len(model.graph.initializer) == len(NET.weights)
    onnx.checker.check_model(model, full_check=True)
    feeds = {"image": images(1)}
    if class_input == "required":
        feeds[CLASS_INPUT] = np.array([2])
    wanted = run(exported(tmp_path), {"image": images(1), CLASS_INPUT: np.array([2])})
    result = run(model, feeds)
    np.testing.assert_allclose(result["cam_gradients"], wanted["cam_gradients"], rtol=1e-5)


# -- refusals ----------------------------------------------------------------------------------


def test_an_exported_model_is_not_exported_again(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="carries an explanation already"):
        exported(tmp_path, exported(tmp_path))


@pytest.mark.parametrize("name", ["cam_activations", "cam_class", "onnx_gradcam/seed"])
def test_names_that_are_ours_are_refused(name: str) -> None:
    model = NET.model()
    model.graph.node[0].name = name
    with pytest.raises(UnsupportedModelError, match=f"uses the name '{name}', which the explanat"):
        refuse_exported(model)


# -- all networks, both builders ---------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "builder", ["reverse", pytest.param("onnxruntime-training", marks=pytest.mark.needs_builder)]
)
def test_every_network_is_exported_and_verified(tmp_path: Path, name: str, builder: str) -> None:
    if builder == "onnxruntime-training" and not builder_status().available:
        pytest.skip(f"{builder_status().problem}; {builder_status().fix}")
    report = export_model(
        NETWORKS[name].model(), tmp_path / "exported.onnx", gradient_builder=builder
    )
    assert report.target == NETWORKS[name].target
    assert report.verification is not None
    assert report.verification.passed
