"""Explanations of files with several target layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from onnx_gradcam import export_model, load
from onnx_gradcam.cam import Need, fuse, heat_maps, paint, registry
from onnx_gradcam.cli.main import main
from onnx_gradcam.errors import UsageError
from onnx_gradcam.runtime import Explainer
from onnx_gradcam.runtime.how import How
from onnx_gradcam.runtime.smoothing import average, other_versions
from tests.export.networks import NETWORKS

LAYERS = ["relu3", "conv2", "relu1"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("layers") / "resnet.cam.onnx"
    export_model(NETWORKS["ResNet"].model(), path, layer=LAYERS, verify=False)
    return path


@pytest.fixture(scope="module")
def explainer(file: Path) -> Explainer:
    return load(file, device="cpu")


def images(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).standard_normal((count, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("fusion", ["mean", "max"])
def test_the_heat_map_is_fused_of_all_layers(explainer: Explainer, fusion: str) -> None:
    found = explainer.explain(images(3), [0, 1, 2], "layercam", fuse_layers=fusion)
    assert [layer.name for layer in found.layers] == LAYERS
    each = [paint("layercam", o.activations, o.gradients, (8, 8)) for o in found.layers]
    np.testing.assert_array_equal(found.cams, fuse(each, (8, 8), fusion).cams)
    for layer, one in zip(found.layers, each, strict=True):
        np.testing.assert_array_equal(layer.raw_maps, one.raw)
        assert layer.notes == one.notes
        assert np.abs(found.cams - one.cams).max() > 0.1
    assert found.activations is found.layers[0].activations
    assert found.gradients is found.layers[0].gradients
    assert found.raw_maps is found.layers[0].raw_maps
    assert found.fuse_layers == fusion


def test_each_layer_has_its_own_activations_and_gradients(
    explainer: Explainer, tmp_path: Path
) -> None:
    found = explainer.explain(images(2), 3)
    for name, layer in zip(LAYERS, found.layers, strict=True):
        export_model(NETWORKS["ResNet"].model(), tmp_path / name, layer=name, verify=False)
        alone = load(tmp_path / name, device="cpu").explain(images(2), 3)
        np.testing.assert_allclose(layer.activations, alone.activations, atol=1e-6)
        assert np.abs(alone.gradients).max() > 1e-3
        np.testing.assert_allclose(layer.gradients, alone.gradients, atol=1e-8)
        (own,) = alone.layers
        assert (own.name, own.raw_maps is alone.raw_maps) == (name, True)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("conv2", ["conv2"]),
        (2, ["relu1"]),
        (-1, ["relu1"]),
        (["relu1", 0], ["relu1", "relu3"]),
        (["1"], ["conv2"]),
    ],
)
def test_some_of_the_layers(explainer: Explainer, asked: Any, names: list[str]) -> None:
    found = explainer.explain(images(2), 1, layers=asked)
    assert [layer.name for layer in found.layers] == names
    every = {layer.name: layer for layer in explainer.explain(images(2), 1).layers}
    np.testing.assert_array_equal(found.raw_maps, every[names[0]].raw_maps)
    if len(names) == 1:
        np.testing.assert_array_equal(found.cams, heat_maps(found.raw_maps, (8, 8)))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "conv",
            "the file has no target layer 'conv'; did you mean 'conv2'? (it has 0: relu3, 1: conv2,"
            " 2: relu1); export the model with --layer to add one",
        ),
        (
            3,
            "the file has no target layer 3 (it has 0: relu3, 1: conv2, 2: relu1); export the model"
            " with --layer to add one",
        ),
        (["conv2", 1], "layer 'conv2' is asked for twice"),
        ([], "no target layer is asked for; leave layers out to take all of the file"),
    ],
)
def test_layers_that_the_file_has_not(explainer: Explainer, asked: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        explainer.explain(images(1), layers=asked)
    assert str(caught.value) == message


def test_another_fusion_is_refused(explainer: Explainer) -> None:
    with pytest.raises(UsageError, match="layers are fused by mean or max, not by 'sum'"):
        explainer.explain(images(1), fuse_layers="sum")


@pytest.mark.parametrize("fusion", ["mean", "max"])
def test_another_method_is_fused_of_all_layers_too(explainer: Explainer, fusion: str) -> None:
    found = explainer.explain(images(2), 2, fuse_layers=fusion).with_method("hirescam")
    direct = explainer.explain(images(2), 2, "hirescam", fuse_layers=fusion)
    np.testing.assert_array_equal(found.cams, direct.cams)
    np.testing.assert_array_equal(found.raw_maps, direct.raw_maps)
    for one, other in zip(found.layers, direct.layers, strict=True):
        np.testing.assert_array_equal(one.raw_maps, other.raw_maps)
        assert one.notes == other.notes


def test_aug_smooth_averages_fused_maps(explainer: Explainer) -> None:
    x = images(2)
    found = explainer.explain(x, 2, aug_smooth=True)
    runs = [explainer.explain(v, 2) for v in (x, *other_versions(x, explainer.image_input))]
    fused = average([_painted(run) for run in runs])
    np.testing.assert_allclose(found.cams, fused.cams, atol=1e-6)
    for number, layer in enumerate(found.layers):
        expected = average([_painted(run, number) for run in runs])
        np.testing.assert_allclose(layer.raw_maps, expected.raw, atol=1e-6)


def _painted(run: Any, layer: int = 0) -> Any:
    from onnx_gradcam.cam import Painted

    return Painted(run.layers[layer].raw_maps, run.cams, run.notes)


def test_methods_that_run_the_head_take_one_layer(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explainer, "_offered", frozenset(Need))
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    options = {"title": "t", "paper": "p", "needs": (Need.HEAD_RUNS, Need.GRADIENTS)}
    registry.register("headcam", **options)(lambda activations, **_: activations[:, 0])
    with pytest.raises(UsageError) as caught:
        explainer.explain(images(1), method="headcam")
    assert str(caught.value) == (
        "CAM method 'headcam' needs head runs and goes with the first target layer of the file"
        " alone; choose that with layers=0 (--layer 0)"
    )
    with pytest.raises(UsageError, match="goes with the first target layer"):
        explainer.explain(images(1), method="headcam", layers=1)
    How("headcam", False, False, 0, (0,)).checked(explainer.image_input, frozenset(Need))


def test_no_images(explainer: Explainer) -> None:
    found = explainer.explain(np.zeros((0, 3, 8, 8), np.float32))
    assert found.cams.shape == (0, 8, 8)
    assert [len(layer.raw_maps) for layer in found.layers] == [0, 0, 0]


def test_the_command_line_takes_layers_and_their_fusion(file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images(1))

    def maps(*options: str) -> np.ndarray[Any, Any]:
        arguments = ["explain", str(file), str(tmp_path / "x.npy"), "-o", str(tmp_path / "maps")]
        done = CliRunner().invoke(main, [*arguments, "--class", "2", "--force", *options])
        assert done.exit_code == 0, done.stderr
        return np.asarray(np.load(tmp_path / "maps" / "x.cam-2.npy"))

    explainer = load(file, device="cpu")
    pictures = []
    for options, layer in (([], 0), (["--layer", "relu1", "--layer", "0"], 2)):
        expected = explainer.explain(images(1), 2).layers[layer].raw_maps[0]
        np.testing.assert_array_equal(maps(*options), expected)
        pictures.append((tmp_path / "maps" / "x.cam.png").read_bytes())
    maps("--fuse-layers", "max")
    pictures.append((tmp_path / "maps" / "x.cam.png").read_bytes())
    assert len(set(pictures)) == 3
    refused = CliRunner().invoke(
        main, ["explain", str(file), "x.npy", "-o", "d", "--fuse-layers", "sum"]
    )
    assert refused.exit_code == 2
