"""FullGrad: image and biases account for the whole score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from onnx_gradcam import check_export, export_model, load
from onnx_gradcam.cam import compute, method_names
from onnx_gradcam.contract import is_reserved
from onnx_gradcam.errors import NotExportedError, UnsupportedModelError, UsageError
from onnx_gradcam.runtime.session import open_session
from tests.cam.fullgrad_network import CLASSES, images, network
from tests.export.full_gradient_models import BENT, LINEAR
from tests.export.networks import NETWORKS
from tests.export.precisions import converted

REFERENCES = np.load(Path(__file__).parents[1] / "cam" / "fullgrad_references.npz")
LAYER = {"Conv": "a", "Add of a constant": "p", "Sub both ways": "p"}
"""The target layer of a network, where it has no ``c``."""

BUILDERS = ["reverse", pytest.param("onnxruntime-training", marks=pytest.mark.needs_builder)]


def outputs(file: Path, **feeds: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    session = open_session(file, "cpu")
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize("name", LINEAR)
def test_image_and_biases_account_for_the_score(tmp_path: Path, name: str) -> None:
    file, layer = tmp_path / "o.onnx", LAYER.get(name, "c")
    export_model(LINEAR[name].model(), file, layer=layer, full_gradient=True, verify=False)
    model = onnx.load(file)
    of_image = "onnx_gradcam/full_gradient/image/ReduceSum"
    model.graph.output.append(onnx.ValueInfoProto(name=of_image))
    onnx.save(model, file)
    image = np.random.default_rng(4).standard_normal((3, 3, 8, 8)).astype(np.float32)
    for explained in (0, 3):
        found = outputs(file, image=image, cam_class=np.array([explained]))
        y, size = found["logits"][:, explained], np.abs(found["logits"]).max()
        np.testing.assert_allclose(found["cam_accounted"], y, rtol=0, atol=2e-6 * size)
        assert np.abs(found[of_image] - y).max() > 0.02 * size, "the image alone does not"
        assert max(v.max() for k, v in found.items() if "biases" in k) > 0.5


@pytest.mark.parametrize(
    ("options", "feeds"),
    [
        ({"weights": True}, {"cam_weights": np.array([[1, 0, -2, 0, 0.5]], np.float32)}),
        ({"class_input": "fixed:-2"}, {}),
        ({"class_input": "required"}, {"cam_class": np.array([4])}),
    ],
)
def test_other_sums_of_scores(
    tmp_path: Path, options: dict[str, Any], feeds: dict[str, np.ndarray[Any, Any]]
) -> None:
    file = tmp_path / "o.onnx"
    report = export_model(LINEAR["residual"].model(), file, full_gradient=True, **options)
    assert report.verification is not None
    assert "full gradient" in {check.name for check in report.verification.checks}
    image = np.random.default_rng(4).standard_normal((2, 3, 8, 8)).astype(np.float32)
    found = outputs(file, image=image, **feeds)
    scores, weights = found["logits"], feeds.get("cam_weights")
    if weights is None:
        y = np.take_along_axis(scores, found["cam_classes"][:, None], axis=1)[:, 0]
    else:
        y = (scores * weights).sum(axis=1)
    np.testing.assert_allclose(found["cam_accounted"], y, atol=1e-5 * np.abs(scores).max())


@pytest.mark.parametrize("kind", ["softmax", "similarity"])
def test_what_is_no_sum_of_scores_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UsageError, match=f"do not account for the objective {kind}, which is no"):
        export_model(
            LINEAR["residual"].model(), tmp_path / "o.onnx", full_gradient=True, objective=kind
        )


def test_beside_a_cam_in_the_graph(tmp_path: Path) -> None:
    report = export_model(
        network(), tmp_path / "o.onnx", full_gradient=True, fuse_cam="gradcam", cam_size="input"
    )
    assert report.verification is not None
    found = load(tmp_path / "o.onnx", device="cpu").explain(images(), CLASSES, "fullgrad")
    np.testing.assert_allclose(found.cams, REFERENCES["cam"], rtol=0, atol=1e-5)
    options = {"full_gradient": True, "fuse_cam": "gradcam", "outputs": "cam"}
    with pytest.raises(UsageError, match="full_gradient goes with activations"):
        export_model(network(), tmp_path / "p.onnx", **options)


def test_several_classes_in_one_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the full gradient is of one class per image"):
        export_model(
            LINEAR["residual"].model(), tmp_path / "o.onnx", full_gradient=True, several=True
        )


@pytest.mark.parametrize("name", BENT)
def test_what_is_not_piecewise_linear_is_named(tmp_path: Path, name: str) -> None:
    body, described = BENT[name]
    with pytest.raises(UnsupportedModelError) as caught:
        export_model(
            body.model(), tmp_path / "o.onnx", layer=LAYER.get(name, "c"), full_gradient=True
        )
    assert str(caught.value) == (
        "FullGrad needs a network that is piecewise linear in the image, so that input and biases"
        f" account for the whole score; this one has {described}; leave the full gradient out"
    )


def test_all_that_is_not_linear_is_named_at_once(tmp_path: Path) -> None:
    model = NETWORKS["MobileNetV3"].model()
    with pytest.raises(UnsupportedModelError, match=r"HardSwish.*; .*HardSigmoid.*; .*Mul-17"):
        export_model(model, tmp_path / "o.onnx", full_gradient=True)


def test_an_image_of_integers_is_refused(tmp_path: Path) -> None:
    model = LINEAR["Conv"].model()
    image = model.graph.input[0]
    image.type.tensor_type.elem_type = TensorProto.UINT8
    cast = onnx.helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT)
    model.graph.node[0].input[0] = "x"
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([cast, *nodes])
    with pytest.raises(UnsupportedModelError, match=r"the image 'image' .* is no float tensor"):
        export_model(model, tmp_path / "o.onnx", full_gradient=True)


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("opset", [9, 18])
def test_maps_are_those_of_pytorch_grad_cam(tmp_path: Path, builder: str, opset: int) -> None:
    model = network()
    model.opset_import[0].version = opset
    report = export_model(model, tmp_path / "o.onnx", full_gradient=True, gradient_builder=builder)
    assert report.verification is not None
    (check,) = [c for c in report.verification.checks if c.name == "full gradient"]
    assert check.value is not None
    assert check.value < 1e-5
    found = load(tmp_path / "o.onnx", device="cpu").explain(images(), CLASSES, "fullgrad")
    np.testing.assert_allclose(found.scores, REFERENCES["scores"], rtol=1e-5)
    assert REFERENCES["raw"].max() > 5, "three channels of the image, and five biased layers"
    np.testing.assert_allclose(found.raw_maps, REFERENCES["raw"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.cams, REFERENCES["cam"], rtol=0, atol=1e-5)
    assert REFERENCES["cam"].std() > 0.1


def test_each_bias_shows_in_the_map(tmp_path: Path) -> None:
    base = network()
    for name in ("conv1_bias", "conv2_bias", "bn1_running_mean", "bn3_bias"):
        model = onnx.ModelProto()
        model.CopyFrom(base)
        for tensor in model.graph.initializer:
            if tensor.name == name:
                other = numpy_helper.to_array(tensor)[::-1].copy()
                tensor.CopyFrom(numpy_helper.from_array(other, name))
        export_model(model, tmp_path / name, full_gradient=True)
        found = load(tmp_path / name, device="cpu").explain(images(), CLASSES, "fullgrad")
        assert np.abs(found.cams - REFERENCES["cam"]).max() > 1e-2, name


def test_names_and_shapes_of_the_outputs(tmp_path: Path) -> None:
    file = tmp_path / "o.onnx"
    export_model(network(), file, layer=["auto", "r1"], full_gradient=True)
    shapes = {
        o.name: [d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim]
        for o in onnx.load(file).graph.output
    }
    assert list(shapes)[-3:] == ["cam_biases", "cam_biases_2", "cam_accounted"]
    assert shapes["cam_biases"] == ["N", 1, 10, 12]
    assert shapes["cam_biases_2"] == ["N", 1, 5, 6]
    assert shapes["cam_accounted"] == ["N"]
    assert all(is_reserved(name) for name in shapes if name.startswith("cam"))
    found = outputs(file, image=images())
    assert found["cam_biases_2"].shape == (2, 1, 5, 6)


@pytest.mark.parametrize("builder", BUILDERS)
def test_half_precision(tmp_path: Path, builder: str) -> None:
    half = converted(network(), TensorProto.FLOAT16)
    report = export_model(half, tmp_path / "o.onnx", full_gradient=True, gradient_builder=builder)
    assert report.verification is not None
    assert report.verification.passed
    x = images().astype(np.float16)
    found = load(tmp_path / "o.onnx", device="cpu").explain(x, CLASSES, "fullgrad")
    np.testing.assert_allclose(found.cams, REFERENCES["cam"], rtol=0, atol=2e-2)


def test_channels_last_images(tmp_path: Path) -> None:
    model = network()
    last = onnx.helper.make_tensor_value_info("last", TensorProto.FLOAT, ["N", 10, 12, 3])
    first = onnx.helper.make_node("Transpose", ["last"], ["image"], perm=[0, 3, 1, 2])
    nodes = list(model.graph.node)
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend([first, *nodes])
    model.graph.input.append(last)
    export_model(model, tmp_path / "o.onnx", full_gradient=True)
    x = np.ascontiguousarray(images().transpose(0, 2, 3, 1))
    found = load(tmp_path / "o.onnx", device="cpu").explain(x, CLASSES, "fullgrad")
    np.testing.assert_allclose(found.cams, REFERENCES["cam"], rtol=0, atol=1e-5)


def test_open_sizes(tmp_path: Path) -> None:
    model = network()
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"size{axis}"
    export_model(model, tmp_path / "o.onnx", full_gradient=True)
    explainer = load(tmp_path / "o.onnx", device="cpu")
    found = explainer.explain(images(), CLASSES, "fullgrad")
    np.testing.assert_allclose(found.cams, REFERENCES["cam"], rtol=0, atol=1e-5)


def test_a_wrong_bias_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "o.onnx"
    export_model(network(), file, full_gradient=True)
    assert check_export(file).passed
    model = onnx.load(file)
    (add,) = [
        node
        for node in model.graph.node
        if node.name.startswith("onnx_gradcam/full_gradient/n1/Add") and node.op_type == "Add"
        and "bn1_running_var" in node.input
    ]  # fmt: skip
    for tensor in model.graph.initializer:
        if tensor.name == add.input[1]:
            tensor.CopyFrom(numpy_helper.from_array(np.array(0.5, np.float32), tensor.name))
    onnx.save(model, file)
    report = check_export(file)
    assert {check.name for check in report.failures} == {"full gradient"}
    assert "image and biases account for the score to" in report.failures[0].detail


def test_the_method_needs_a_file_that_was_exported_for_it(tmp_path: Path) -> None:
    assert "fullgrad" in method_names()
    export_model(network(), tmp_path / "o.onnx", verify=False)
    explainer = load(tmp_path / "o.onnx", device="cpu")
    assert "fullgrad" not in explainer.methods
    with pytest.raises(UnsupportedModelError, match="'fullgrad' needs gradients of biases"):
        explainer.explain(images(), method="fullgrad")


def test_what_the_method_goes_with(tmp_path: Path) -> None:
    export_model(network(), tmp_path / "o.onnx", layer=["r3", "r1"], full_gradient=True)
    explainer = load(tmp_path / "o.onnx", device="cpu")
    assert "fullgrad" in explainer.methods
    found = explainer.explain(images(), CLASSES, "fullgrad")
    np.testing.assert_allclose(found.cams, REFERENCES["cam"], rtol=0, atol=1e-5)
    assert [layer.name for layer in found.layers] == ["r3"], "it is of no layer"
    changed = found.with_method("gradcam")
    direct = explainer.explain(images(), CLASSES, layers=["r3"])
    np.testing.assert_array_equal(changed.cams, direct.cams)
    np.testing.assert_array_equal(changed.with_method("fullgrad").cams, found.cams)
    of_both = explainer.explain(images(), CLASSES)
    again = of_both.with_method("fullgrad")
    np.testing.assert_array_equal(again.cams, found.cams)
    assert [layer.name for layer in again.layers] == ["r3"]
    with pytest.raises(UsageError, match="no sum over channels"):
        explainer.explain(images(), CLASSES, "fullgrad", eigen_smooth=True)
    smooth = explainer.explain(images(), CLASSES, "fullgrad", aug_smooth=True)
    assert 0.01 < np.abs(smooth.cams - found.cams).max() < 0.9
    none = explainer.explain(np.zeros((0, 3, 10, 12), np.float32), method="fullgrad")
    assert none.cams.shape == (0, 10, 12)


def test_maps_of_all_sizes_are_enlarged_to_that_of_the_first() -> None:
    first, second = np.zeros((1, 4), np.float32), np.array([[1, 3]], np.float32)
    found = compute("fullgrad", np.ones((1, 1, 2), np.float32), further=_biases(first, second))
    np.testing.assert_allclose(found, [[1, 1.5, 2.5, 3]])


def _biases(*maps: np.ndarray[Any, Any]) -> dict[Any, Any]:
    from onnx_gradcam.cam import Need

    return {Need.BIASES: list(maps)}


def test_a_file_that_lost_its_maps_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "o.onnx"
    export_model(network(), file, full_gradient=True, verify=False)
    model = onnx.load(file)
    del model.graph.output[-2]
    onnx.save(model, file)
    with pytest.raises(NotExportedError, match="has lost cam_biases_2 since its export"):
        load(file, device="cpu")
