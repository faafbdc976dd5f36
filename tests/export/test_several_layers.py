"""Several target layers in one file: nested, side by side, and by-passing each other."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_gradcam import check_export, export_model, load
from onnx_gradcam.contract import ExportMetadata, LayerMetadata, layer_output
from onnx_gradcam.errors import (
    LayerNotFoundError,
    NotExportedError,
    UnsupportedModelError,
    UsageError,
)
from onnx_gradcam.export.verification.verify import verify_export
from onnx_gradcam.runtime.session import open_session
from tests.export.networks import NETWORKS
from tests.export.precisions import HALF, converted

BUILDERS = [
    "reverse",
    pytest.param("onnxruntime-training", marks=pytest.mark.needs_builder),
]

LAYERS = {
    "VGG": ["relu5", "conv1", "pool1"],
    "ResNet": ["relu3", "relu1", "conv2", "conv3"],  # conv2 and conv3 are by-passed
    "DenseNet": ["conv2", "dense", "conv1"],  # conv2 depends on conv1, dense on both
    "SqueezeNet": ["left", "right", "fire"],  # left and right stand side by side
    "MobileNetV3": ["act5", "depthwise", "act1"],
    "ConvNeXt": ["block", "wide", "stem"],  # of two layouts
    "channels last": ["act", "conv1"],
    "Inception": ["right", "left", "relu1"],
    "1-D": ["relu1", "conv1"],
    "3-D": ["relu1", "conv1"],
}


def outputs(file: Path, image: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    session = open_session(file, "cpu")
    names = [node.name for node in session.get_outputs()]
    (given,) = [node.name for node in session.get_inputs()]
    return dict(zip(names, session.run(names, {given: image}), strict=True))


def image_of(network: str) -> np.ndarray[Any, Any]:
    (value,) = [
        i for i in NETWORKS[network].model().graph.input if i.name in {"image", "sound", "volume"}
    ]
    sizes = [d.dim_value or 2 for d in value.type.tensor_type.shape.dim]
    return np.random.default_rng(5).standard_normal(sizes).astype(np.float32)


@cache
def alone(name: str, layer: str) -> dict[str, np.ndarray[Any, Any]]:
    """Return what the file of a single layer gives, for `image_of` the network."""
    with TemporaryDirectory() as folder:
        file, model = Path(folder, "o.onnx"), NETWORKS[name].model()
        export_model(model, file, layer=layer, gradient_builder="reverse", verify=False)
        return outputs(file, image_of(name))


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_is_as_in_a_file_of_its_own(tmp_path: Path, name: str, builder: str) -> None:
    model, layers = NETWORKS[name].model(), LAYERS[name]
    report = export_model(model, tmp_path / "all.onnx", layer=layers, gradient_builder=builder)
    assert report.verification is not None
    assert report.verification.passed
    checked = {check.name for check in report.verification.checks}
    assert {f"gradient, layer {number}" for number in range(1, len(layers) + 1)} <= checked
    found = outputs(tmp_path / "all.onnx", image_of(name))
    for number, layer in enumerate(layers):
        for output in ("cam_activations", "cam_gradients"):
            one, size = alone(name, layer)[output], np.abs(alone(name, layer)[output]).max()
            assert size > 0
            many = found[layer_output(output, number)]
            np.testing.assert_allclose(many, one, rtol=0, atol=1e-6 * size)


def test_names_and_order_of_what_is_added(tmp_path: Path) -> None:
    file = tmp_path / "out.onnx"
    report = export_model(NETWORKS["ResNet"].model(), file, layer=["relu3", "conv2"])
    names = [output.name for output in onnx.load(file).graph.output]
    assert names == [
        "logits",
        "cam_activations",
        "cam_gradients",
        "cam_classes",
        "cam_activations_2",
        "cam_gradients_2",
    ]
    meta = load(file, device="cpu").metadata
    assert meta.outputs == names[1:]
    assert [(layer.target, layer.target_layout) for layer in meta.layers] == [
        ("relu3", "NCHW"),
        ("conv2", "NCHW"),
    ]
    (further,) = report.further_layers
    assert (further.target, further.target_shape) == ("conv2", ("N", 6, 4, 4))
    assert report.to_dict()["further_layers"] == [
        {
            "target": "conv2",
            "target_reason": "asked for by name 'conv2'",
            "target_shape": ["N", 6, 4, 4],
        }
    ]
    json.dumps(report.to_dict())
    assert "layer 2   conv2 (N, 6, 4, 4): asked for by name 'conv2'" in report.summary()


def test_one_layer_in_a_sequence_gives_the_file_of_that_layer(tmp_path: Path) -> None:
    model = NETWORKS["VGG"].model()
    for name, layer in {"a": "auto", "b": ["auto"]}.items():
        export_model(model, tmp_path / name, layer=layer, verify=False)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    props = {p.key for p in onnx.load(tmp_path / "a").metadata_props}
    assert "onnx_gradcam.further_layers" not in props, "files of one layer stay as they were"


def test_the_backward_walk_is_shared(tmp_path: Path) -> None:
    model = NETWORKS["VGG"].model()
    nodes = {
        len(layers): export_model(
            model, tmp_path / "o.onnx", layer=layers, verify=False, force=True
        ).nodes_added
        for layers in (["conv1"], ["conv1", "relu1", "conv5", "pool5"])
    }
    assert nodes[4] == nodes[1] + 6, "two more outputs for each further layer, nothing else"


@pytest.mark.parametrize("builder", BUILDERS)
def test_half_precision(tmp_path: Path, builder: str) -> None:
    whole, layers = NETWORKS["ResNet"].model(), ["relu3", "relu1", "conv2"]
    half = converted(whole, HALF)
    for name, model in {"half.onnx": half, "whole.onnx": whole}.items():
        report = export_model(model, tmp_path / name, layer=layers, gradient_builder=builder)
        assert report.verification is not None
        assert report.verification.passed
    image = image_of("ResNet")
    found = outputs(tmp_path / "half.onnx", image.astype(np.float16))
    expected = outputs(tmp_path / "whole.onnx", image)
    for number in range(3):
        for output in ("cam_activations", "cam_gradients"):
            name = layer_output(output, number)
            size = np.abs(expected[name]).max()
            assert found[name].dtype == np.float32
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=5e-3 * size)


def test_a_layer_twice_is_refused(tmp_path: Path) -> None:
    model = NETWORKS["VGG"].model()
    with pytest.raises(UsageError, match="'relu5' is asked for twice, as 'auto' and 'relu5'"):
        export_model(model, tmp_path / "o.onnx", layer=["auto", "relu5"])
    with pytest.raises(UsageError, match="no target layer is asked for"):
        export_model(model, tmp_path / "o.onnx", layer=[])
    with pytest.raises(LayerNotFoundError, match="no layer 'relu55'; did you mean 'relu5'"):
        export_model(model, tmp_path / "o.onnx", layer=["auto", "relu55"])


def test_the_cam_in_the_graph_is_of_one_layer(tmp_path: Path) -> None:
    model = NETWORKS["VGG"].model()
    with pytest.raises(UsageError, match="the CAM in the graph is of one target layer, not of 2"):
        export_model(model, tmp_path / "o.onnx", layer=["relu5", "relu1"], fuse_cam="gradcam")


def test_what_has_no_gradient_is_named_with_the_layers_it_is_between(tmp_path: Path) -> None:
    text = NETWORKS["Inception"].body.replace(
        "left_relu = Relu(left)", "left_relu = Bernoulli(left)"
    )
    model = replace(NETWORKS["Inception"], body=text).model()
    with pytest.raises(UnsupportedModelError) as caught:
        export_model(model, tmp_path / "o.onnx", layer=["right", "left", "mixed"])
    assert str(caught.value).startswith("no gradient formula for ai.onnx::Bernoulli-17")
    assert "between 'right', 'left' and 'logits'" in str(caught.value), "mixed depends on them"


def _with_outputs_swapped(file: Path, first: str, second: str) -> None:
    model = onnx.load(file)
    names = {first: second, second: first}
    for node in model.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
    onnx.save(model, file)


def test_a_wrong_gradient_of_a_further_layer_is_noticed(tmp_path: Path) -> None:
    model, file = NETWORKS["ResNet"].model(), tmp_path / "out.onnx"
    export_model(model, file, layer=["relu3", "bn1", "conv1"])
    assert check_export(file).passed
    _with_outputs_swapped(file, "cam_gradients_2", "cam_gradients_3")
    report = check_export(file)
    failed = {check.name for check in report.failures}
    assert failed == {"gradient, layer 2", "gradient, layer 3"}


def test_a_wrong_activation_of_a_further_layer_is_noticed(tmp_path: Path) -> None:
    model, file = NETWORKS["Inception"].model(), tmp_path / "out.onnx"
    export_model(model, file, layer=["mixed", "relu1", "conv1"])
    _with_outputs_swapped(file, "cam_activations_2", "cam_activations_3")
    failed = {check.name for check in check_export(file).failures}
    assert {"activations, layer 2", "activations, layer 3"} <= failed


def test_a_layer_that_the_score_hardly_depends_on_is_named(tmp_path: Path) -> None:
    network = NETWORKS["SqueezeNet"]
    model = network.model()
    for tensor in model.graph.initializer:
        if tensor.name == "w5":  # the classifier does not look at the left part of fire
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[:, :3] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, "w5"))
    with pytest.raises(UnsupportedModelError, match="at layer 'left' is zero for all inputs"):
        export_model(model, tmp_path / "o.onnx", layer=["fire", "right", "left"])
    assert not (tmp_path / "o.onnx").exists()


def test_metadata_of_several_layers_can_be_read_back() -> None:
    tokens = LayerMetadata("t", "NTC", [2, 3], [1], 7)
    meta = ExportMetadata(
        "1", "reverse", "1", "image", "A", "NCHW", "y", "y", 1, 5, "optional", "0",
        further_layers=[tokens, LayerMetadata("b", "NHWC")],
    )  # fmt: skip
    read = ExportMetadata.from_props(meta.to_props())
    assert read == meta
    assert [layer.target for layer in read.layers] == ["A", "t", "b"]
    assert read.layers[1] == tokens


@pytest.mark.parametrize(
    "value", ["3", '"conv"', '["conv"]', "[{}]", '[{"target": 3, "target_layout": "NCHW"}]',
              '[{"target": "a", "target_layout": "NCHW", "color": 1}]', "{", "null"],
)  # fmt: skip
def test_damaged_metadata_of_a_further_layer_are_refused(value: str) -> None:
    meta = ExportMetadata(
        "1", "reverse", "1", "image", "A", "NCHW", "y", "y", 1, 5, "optional", "0"
    )
    props = meta.to_props() | {"onnx_gradcam.further_layers": value}
    with pytest.raises(NotExportedError, match="damaged onnx_gradcam metadata"):
        ExportMetadata.from_props(props)


def test_a_file_that_has_lost_a_further_layer_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "out.onnx"
    export_model(NETWORKS["VGG"].model(), file, layer=["auto", "relu1"])
    model = onnx.load(file)
    del model.graph.output[-1]
    onnx.save(model, file)
    with pytest.raises(NotExportedError, match="has lost cam_gradients_2 since its export"):
        load(file, device="cpu")
    props = {p.key: p.value for p in model.metadata_props}
    del model.metadata_props[:]
    outputs = json.dumps([o.name for o in model.graph.output][1:])
    helper.set_model_props(model, props | {"onnx_gradcam.outputs": outputs})
    onnx.save(model, file)
    with pytest.raises(NotExportedError, match="has lost cam_gradients_2 since its export"):
        load(file, device="cpu")


def test_verification_of_several_layers_runs_the_file_once_an_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx_gradcam.export.verification import attempts

    calls: list[str] = []

    def counted(name: str) -> Any:
        plain = getattr(attempts, name)

        def function(*arguments: Any) -> Any:
            calls.append(name)
            return plain(*arguments)

        return function

    for name in ("run", "ask"):
        monkeypatch.setattr(attempts, name, counted(name))
    model, counts = NETWORKS["VGG"].model(), []
    for layers in (["relu5"], ["relu5", "relu1", "conv1"]):
        file = tmp_path / f"{len(layers)}.onnx"
        export_model(model, file, layer=layers, verify=False)
        calls.clear()
        assert verify_export(file, model, load(file, device="cpu").metadata).passed
        counts.append(len(calls))
    assert counts == [2, 2], "the model, and what the file claims"


def test_several_classes_in_one_run_at_several_layers(tmp_path: Path) -> None:
    file, layers = tmp_path / "o.onnx", ["relu3", "conv2"]
    model = NETWORKS["ResNet"].model()
    report = export_model(model, file, layer=layers, several=True)
    assert report.verification is not None
    assert {"several classes", "gradient, layer 2"} <= {c.name for c in report.verification.checks}
    export_model(model, tmp_path / "one.onnx", layer=layers, verify=False)
    image, asked = image_of("ResNet")[:1], [4, 0, 2]
    together = load(file, device="cpu").explain_classes(image, asked, "hirescam")
    apart = load(tmp_path / "one.onnx", device="cpu").explain_classes(image, asked, "hirescam")
    assert together.classes.tolist() == asked
    for one, other in zip(together.layers, apart.layers, strict=True):
        assert np.abs(other.gradients).max() > 1e-3
        np.testing.assert_allclose(one.gradients, other.gradients, rtol=0, atol=1e-7)
    np.testing.assert_allclose(together.cams, apart.cams, rtol=0, atol=1e-5)


def test_second_derivatives_are_those_of_the_first_layer(tmp_path: Path) -> None:
    model = NETWORKS["EfficientNet"].model()
    files = {"both": ["conv1", "silu"], "one": "conv1"}
    for name, layer in files.items():
        export_model(model, tmp_path / name, layer=layer, second_order=True)
    image = image_of("EfficientNet")
    both, one = (outputs(tmp_path / name, image)["cam_curvature"] for name in files)
    assert np.abs(one).max() > 1e-4
    np.testing.assert_allclose(both, one, rtol=0, atol=1e-6)
    explainer = load(tmp_path / "both", device="cpu")
    found = explainer.explain(image, method="shapleycam", layers=0)
    weights = (found.gradients - both / 2).mean(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(found.raw_maps, (weights * found.activations).sum(1), atol=1e-6)
    gradcam = explainer.explain(image, layers=0)
    np.testing.assert_array_equal(gradcam.with_method("shapleycam").cams, found.cams)
    with pytest.raises(UsageError, match="goes with the first target layer"):
        explainer.explain(image, method="shapleycam")
    for layers in (1, None):
        with pytest.raises(UnsupportedModelError, match="needs second derivatives"):
            explainer.explain(image, layers=layers).with_method("shapleycam")
