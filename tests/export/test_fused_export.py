"""Exports with the CAM in the graph: what they add and how they are proven."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_gradcam import check_export, export_model
from onnx_gradcam.cam import compute, heat_maps, resize_linear
from onnx_gradcam.contract import ExportMetadata
from onnx_gradcam.errors import UnsupportedModelError, VerificationError
from onnx_gradcam.export.fuse.methods import FUSABLE, Site
from onnx_gradcam.export.verification.report import Check, VerificationReport
from tests.export.networks import NETWORKS
from tests.export.precisions import HALF, converted
from tests.export.test_pipeline import model_of, run

IMAGES = np.random.default_rng(1).standard_normal((3, 3, 9, 9)).astype(np.float32)


def export(model: onnx.ModelProto, path: Path, **options: Any) -> VerificationReport:
    report = export_model(model, path, force=True, **{"gradient_builder": "reverse"} | options)
    assert report.verification is not None
    return report.verification


def named(report: VerificationReport, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


def added_operators(path: Path, model: onnx.ModelProto) -> list[str]:
    nodes = list(onnx.load(path).graph.node)
    assert nodes[: len(model.graph.node)] == list(model.graph.node)
    return [node.op_type for node in nodes[len(model.graph.node) :]]


def metadata(path: Path) -> ExportMetadata:
    props = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    return ExportMetadata.from_props(props)


@pytest.mark.parametrize("method", FUSABLE)
def test_beside_a_and_g(tmp_path: Path, method: str) -> None:
    path = tmp_path / "out.onnx"
    verified = export(model_of(), path, fuse_cam=method, cam_size="input", cam_normalise=True)
    assert "equal" in named(verified, "cam").detail
    assert named(verified, "cam").value < 1e-5
    found = run(path, IMAGES, cam_class=np.array([1, 3, 0]))
    maps = ["cam_activations", "cam_gradients", "cam", "cam_scales", "cam_classes"]
    assert list(found) == ["scores", *maps]
    assert metadata(path).outputs == maps
    assert metadata(path).fused == {"method": method, "size": "input", "normalised": True}
    raw = compute(method, found["cam_activations"], found["cam_gradients"])
    assert found["cam"].shape == (3, 1, 9, 9)
    np.testing.assert_allclose(found["cam"][:, 0], heat_maps(raw, (9, 9)), atol=3e-6)
    assert found["cam"].max() > 0.99


@pytest.mark.parametrize("opset", [7, 11, 18])
@pytest.mark.parametrize("layer", ["auto", "b"])
def test_in_place_of_a_and_g(tmp_path: Path, opset: int, layer: str) -> None:
    model, path = model_of(opset=opset), tmp_path / "cam.onnx"
    report = export_model(
        model, path, layer=layer, gradient_builder="reverse", fuse_cam="gradcam", outputs="cam"
    )
    assert report.verification is not None
    assert [check.name for check in report.verification.checks][-4:] == [
        "classes",
        "gradient",
        "images do not mix",
        "cam",
    ]
    assert "central differences" in named(report.verification, "gradient").detail
    assert "no activations and gradients" in report.summary()
    export(model, tmp_path / "all.onnx", layer=layer)
    every = run(tmp_path / "all.onnx", IMAGES, cam_class=np.array([-2]))
    found = run(path, IMAGES, cam_class=np.array([-2]))
    assert list(found) == ["scores", "cam", "cam_classes"]
    assert found["cam"].dtype == np.float32
    raw = compute("gradcam", every["cam_activations"], every["cam_gradients"])
    np.testing.assert_allclose(found["cam"][:, 0], np.maximum(raw, 0), rtol=1e-5, atol=1e-7)
    assert found["cam"].max() > 1e-3
    np.testing.assert_array_equal(found["cam_classes"], every["cam_classes"])
    np.testing.assert_array_equal(found["scores"], every["scores"])
    assert metadata(path).outputs == ["cam", "cam_classes"]
    for against in (None, model):
        if against is not None:
            onnx.save(model, tmp_path / "m.onnx")
        later = check_export(path, against=None if against is None else tmp_path / "m.onnx")
        assert named(later, "gradient").passed
        assert named(later, "cam").passed


def test_a_gradient_that_is_the_same_everywhere_is_not_spread(tmp_path: Path) -> None:
    for builder in ("reverse", "onnxruntime-training"):
        model, path = NETWORKS["ResNet"].model(), tmp_path / builder
        if builder != "reverse" and not _has_builder():
            continue
        options = {"gradient_builder": builder, "fuse_cam": "gradcam"}
        verified = export(model, path, outputs="cam", **options)
        assert verified.passed
        assert not _spreads(path)
        operators = added_operators(path, model)
        assert "Expand" not in operators
        assert "ReduceMean" not in operators
        export(model, path, **options)
        assert _spreads(path)


def _spreads(path: Path) -> bool:
    return any("gradient/spread" in node.name for node in onnx.load(path).graph.node)


def _has_builder() -> bool:
    from onnx_gradcam.export.builders.environment import builder_status

    return builder_status().available


@pytest.mark.parametrize("name", ["channels last", "1-D", "3-D", "SqueezeNet", "ConvNeXt"])
def test_layouts_and_axes(tmp_path: Path, name: str) -> None:
    model, path = NETWORKS[name].model(), tmp_path / "out.onnx"
    shape = [d.dim_value or 2 for d in model.graph.input[0].type.tensor_type.shape.dim]
    image = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    size = tuple(shape[1:-1] if name == "channels last" else shape[2:])
    for method in ("gradcam", "gradcam++"):
        options = {"fuse_cam": method, "cam_size": "input"}
        assert named(export(model, path, **options), "cam").passed
        session = onnx.load(path).graph
        declared = next(output for output in session.output if output.name == "cam")
        dims = [d.dim_param or d.dim_value for d in declared.type.tensor_type.shape.dim]
        assert dims == ["N", 1, *size]
        found = _run(path, model.graph.input[0].name, image)
        raw = compute(method, found["cam_activations"], found["cam_gradients"])
        wanted = resize_linear(np.maximum(raw, 0), size)
        assert wanted.max() > 1e-3
        np.testing.assert_allclose(found["cam"][:, 0], wanted, rtol=1e-4, atol=1e-6)


def _run(path: Path, name: str, image: np.ndarray[Any, Any]) -> dict[str, Any]:
    import onnxruntime as ort

    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {name: image}), strict=True))


@pytest.mark.parametrize("outputs", ["all", "cam"])
def test_half_precision_gives_a_float32_map(tmp_path: Path, outputs: str) -> None:
    single, path = NETWORKS["ResNet"].model(), tmp_path / "out.onnx"
    export(single, tmp_path / "single.onnx", fuse_cam="gradcam", cam_size="input")
    model = converted(single, HALF)
    verified = export(model, path, fuse_cam="gradcam", cam_size="input", outputs=outputs)
    assert named(verified, "cam").passed
    image = np.random.default_rng(2).standard_normal((2, 3, 8, 8)).astype(np.float32)
    wanted = _run(tmp_path / "single.onnx", "image", image)["cam"]
    found = _run(path, "image", image.astype(np.float16))["cam"]
    assert found.dtype == np.float32
    assert wanted.max() > 0.02
    np.testing.assert_allclose(found, wanted, atol=1e-2 * wanted.max())


def test_external_data(tmp_path: Path) -> None:
    onnx.save(
        model_of(),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.bin",
        size_threshold=0,
    )
    path = tmp_path / "cam.onnx"
    report = export_model(
        tmp_path / "m.onnx", path, gradient_builder="reverse", fuse_cam="gradcam", outputs="cam"
    )
    assert report.verification is not None
    assert report.verification.passed
    assert check_export(path, against=tmp_path / "m.onnx").passed


def test_deterministic_to_the_byte(tmp_path: Path) -> None:
    for name in ("one", "two"):
        export(model_of(), tmp_path / name, fuse_cam="gradcam++", cam_size="20x20", outputs="cam")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


# -- wrong ones --------------------------------------------------------------------------------


def _larger(site: Site) -> str:
    return site.emit.mul(FUSABLE["gradcam"](site), 1.001)


def _of_absolute_gradients(site: Site) -> str:
    emit = site.emit
    return site.weighted_sum(emit.reduce_mean(emit.unary("Abs", site.gradients), site.space))


def _turned(site: Site) -> str:
    return site.emit.neg(FUSABLE["gradcam"](site))


WRONG: dict[str, Callable[[Site], str]] = {
    "a thousandth too large": _larger,
    "absolute gradients": _of_absolute_gradients,
    "negated": _turned,
    "another method": FUSABLE["hirescam"],
}


@pytest.mark.parametrize("outputs", ["all", "cam"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_formula_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, outputs: str
) -> None:
    right = FUSABLE["gradcam"]
    formula = WRONG[wrong]

    def swapped(site: Site) -> str:
        monkeypatch.setitem(FUSABLE, "gradcam", right)
        name = formula(site)
        monkeypatch.setitem(FUSABLE, "gradcam", swapped)
        return name

    monkeypatch.setitem(FUSABLE, "gradcam", swapped)
    path = tmp_path / "out.onnx"
    with pytest.raises(
        VerificationError, match=r"cam: (differs from gradcam of NumPy|is not zero)"
    ):
        export(model_of(), path, layer="b", fuse_cam="gradcam", outputs=outputs)
    assert not path.exists()


@pytest.mark.parametrize(
    ("outputs", "operator"), [("all", "ReduceMax"), ("cam", "ReduceMax"), ("cam", "MatMul")]
)
def test_a_wrong_stretch_size_or_scale_is_found(
    tmp_path: Path, outputs: str, operator: str
) -> None:
    path = tmp_path / "out.onnx"
    options = {"layer": "b", "cam_size": "input", "cam_normalise": True, "outputs": outputs}
    export(model_of(), path, fuse_cam="gradcam", **options)
    model = onnx.load(path)
    if operator == "ReduceMax":
        for node in model.graph.node:
            if node.name.startswith("onnx_gradcam/fused/") and node.op_type == operator:
                node.op_type = "ReduceMean"
                break
    else:
        for tensor in model.graph.initializer:
            if tensor.name.startswith("onnx_gradcam/constants/interpolation"):
                values = onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values[:, ::-1], tensor.name))
                break
    onnx.save(model, tmp_path / "wrong.onnx")
    report = check_export(tmp_path / "wrong.onnx")
    assert [check.name for check in report.failures] == ["cam"]
    assert "differs from gradcam of NumPy" in named(report, "cam").detail


def test_cam_is_refused_where_the_head_is_no_pooling(tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"'cam' needs a head of global average pooling"
    ):
        export(model_of(), tmp_path / "out.onnx", layer="b", fuse_cam="cam")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_has_a_tensor_of_that_name(tmp_path: Path) -> None:
    model = model_of()
    for node in model.graph.node:
        node.input[:] = ["cam" if name == "f" else name for name in node.input]
        node.output[:] = ["cam" if name == "f" else name for name in node.output]
    assert export(model, tmp_path / "plain.onnx").passed
    with pytest.raises(UnsupportedModelError, match="uses the name 'cam'"):
        export(model, tmp_path / "out.onnx", fuse_cam="gradcam")
