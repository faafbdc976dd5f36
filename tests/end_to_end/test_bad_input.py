"""Every bad input: the right exit code, one line on stderr, no traceback, nothing half-written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest

from tests.end_to_end.conftest import Run, with_full_disk, without_write_privilege
from tests.end_to_end.small_model import small_model

NO_CUDA = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


@pytest.fixture(autouse=True)
def _no_draft_is_left(work: Path) -> Iterator[None]:
    """Look for hidden files that an interrupted write would leave."""
    yield
    assert [name for name in files(work) if Path(name).name.startswith(".")] == []


def broken_models() -> dict[str, bytes]:
    whole = small_model().SerializeToString()
    return {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "corrupt": whole[:40] + b"\xff" * 40 + whole[80:],
        "text": b"this is no model\n" * 20,
        "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "zip": b"PK\x03\x04" + bytes(100),
    }


@pytest.mark.parametrize("kind", broken_models())
@pytest.mark.parametrize("command", ["inspect", "export", "check", "explain"])
def test_a_file_that_is_no_model(work: Path, run: Run, command: str, kind: str) -> None:
    (work / "bad.onnx").write_bytes(broken_models()[kind])
    before = files(work)
    rest = {"export": ["-o", "out.onnx"], "explain": ["photo.png", "-o", "maps"]}
    message = run(command, "bad.onnx", *rest.get(command, [])).error(3)
    assert "bad.onnx" in message
    assert files(work) == before


@pytest.mark.parametrize("command", ["inspect", "export", "check", "explain"])
def test_a_model_file_that_is_not_there(work: Path, run: Run, command: str) -> None:
    before = files(work)
    rest = {"export": ["-o", "out.onnx"], "explain": ["photo.png", "-o", "maps"]}
    assert "gone.onnx" in run(command, "gone.onnx", *rest.get(command, [])).error(2)
    assert files(work) == before


def save_external(model: onnx.ModelProto, path: Path) -> Path:
    data = path.with_name(path.name + ".weights")
    onnx.save(model, path, save_as_external_data=True, location=data.name, size_threshold=0)
    return data


@pytest.mark.parametrize("command", ["inspect", "export"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_external_data_that_is_missing(work: Path, run: Run, command: str, damage: str) -> None:
    data = save_external(small_model(), work / "split.onnx")
    data.unlink() if damage == "missing" else data.write_bytes(data.read_bytes()[:100])
    before = files(work)
    message = run(command, "split.onnx", *(["-o", "out.onnx"] if command == "export" else []))
    assert data.name in message.error(3)
    assert files(work) == before


def test_external_data_that_is_missing_when_explaining(work: Path, run: Run) -> None:
    data = save_external(onnx.load("small.cam.onnx"), work / "split.cam.onnx")
    data.unlink()
    before = files(work)
    message = run("explain", "split.cam.onnx", "photo.png", "-o", "maps").error(3)
    assert "external data" in message
    assert files(work) == before


@pytest.mark.parametrize(
    ("option", "name", "near"),
    [("--layer", "secnd_map", "'second_map'"), ("--score", "logit", "'logits'")],
)
def test_a_wrong_name_offers_the_nearest(
    work: Path, run: Run, option: str, name: str, near: str
) -> None:
    before = files(work)
    message = run("export", "small.onnx", "-o", "out.onnx", option, name).error(2)
    assert repr(name) in message
    assert near in message
    assert files(work) == before


def test_a_layer_index_out_of_range(work: Path, run: Run) -> None:
    before = files(work)
    assert "99" in run("export", "small.onnx", "-o", "out.onnx", "--layer", "99").error(2)
    assert files(work) == before


def test_a_layer_that_the_score_does_not_depend_on(work: Path, run: Run) -> None:
    model = small_model()
    model.graph.node.append(onnx.helper.make_node("Sqrt", ["second_map"], ["aside"]))
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("aside", onnx.TensorProto.FLOAT, ["n", 8, 8, 8])
    )
    onnx.save(model, "branched.onnx")
    before = files(work)
    line = run("export", "branched.onnx", "-o", "out.onnx", "--layer", "aside", "--score", "logits")
    assert line.code in {2, 3}
    assert "aside" in line.error(line.code)
    assert "depend" in line.err
    assert files(work) == before


@pytest.mark.parametrize("value", ["imagenett", "photo.png", "broken.json", "unknown.json"])
def test_preprocessing_that_does_not_exist(work: Path, run: Run, value: str) -> None:
    (work / "broken.json").write_text('{"scale": ')
    (work / "unknown.json").write_text('{"scael": 1}')
    before = files(work)
    assert run("export", "small.onnx", "-o", "out.onnx", "--preprocess", value).error(2)
    assert files(work) == before


@pytest.mark.parametrize("content", [None, "red\ngreen\n"])
def test_labels_that_are_missing_or_too_few(work: Path, run: Run, content: str | None) -> None:
    if content:
        (work / "names.txt").write_text(content)
    before = files(work)
    message = run("export", "small.onnx", "-o", "out.onnx", "--labels", "names.txt").error(2)
    assert "labels" in message
    assert files(work) == before


def test_a_file_that_was_not_exported(work: Path, run: Run) -> None:
    message = run("explain", "small.onnx", "photo.png", "-o", "maps").error(3)
    assert "onnx-gradcam export" in message
    assert "onnx-gradcam export" in run("check", "small.onnx").error(3)


def test_an_exported_file_is_not_exported_again(work: Path, run: Run) -> None:
    before = files(work)
    assert run("export", "small.cam.onnx", "-o", "out.onnx").error(3)
    assert files(work) == before


IMAGES = {"text.png": b"no image", "empty.png": b"", "cut.png": b"\x89PNG\r\n\x1a\n\x00\x00"}


@pytest.mark.parametrize("name", [*IMAGES, "gone.png", "folder"])
def test_an_image_that_is_no_image(work: Path, run: Run, name: str) -> None:
    (work / "folder").mkdir()
    if name in IMAGES:
        (work / name).write_bytes(IMAGES[name])
    message = run("explain", "small.cam.onnx", name, "-o", "maps").error(2)
    assert name in message
    assert list((work / "maps").iterdir()) == []


def test_one_bad_image_of_several_does_not_stop_the_others(work: Path, run: Run) -> None:
    (work / "bad.png").write_bytes(b"no image")
    (work / "last.png").write_bytes((work / "photo.png").read_bytes())
    done = run(
        "explain", "small.cam.onnx", "photo.png", "bad.png", "gone.png", "last.png", "-o", "maps",
        "--class", "red",
    )  # fmt: skip
    assert done.code == 6
    bad, gone = done.err.splitlines()
    assert bad.startswith("error: ")
    assert "bad.png" in bad
    assert "gone.png" in gone
    assert set(files(work / "maps")) == {
        "photo.cam.png", "photo.cam-0.npy", "last.cam.png", "last.cam-0.npy",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "fragment"),
    [("4", "out of range"), ("-5", "out of range"), ("gren", "'green'"), ("7.5", "7.5")],
)
def test_a_class_that_does_not_exist(work: Path, run: Run, value: str, fragment: str) -> None:
    message = run("explain", "small.cam.onnx", "photo.png", "-o", "maps", "--class", value)
    assert fragment in message.error(2)
    assert list((work / "maps").iterdir()) == []


def test_more_highest_scores_than_classes(work: Path, run: Run) -> None:
    message = run("explain", "small.cam.onnx", "photo.png", "-o", "maps", "--top-k", "5").error(2)
    assert "4 classes" in message
    assert not (work / "maps").exists()


@pytest.mark.parametrize(("option", "value"), [("--method", "gradcm"), ("--device", "gpu")])
def test_a_method_or_device_that_does_not_exist(
    work: Path, run: Run, option: str, value: str
) -> None:
    message = run("explain", "small.cam.onnx", "photo.png", "-o", "maps", option, value).error(2)
    assert value in message


@pytest.mark.skipif(not NO_CUDA, reason="this onnxruntime has CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_that_is_absent_is_no_silent_cpu_run(work: Path, run: Run, device: str) -> None:
    message = run("explain", "small.cam.onnx", "photo.png", "-o", "maps", "--device", device)
    assert "CUDAExecutionProvider" in message.error(5)
    assert not (work / "maps").exists()


def test_an_output_that_exists(work: Path, run: Run) -> None:
    (work / "out.onnx").write_bytes(b"precious")
    before = files(work)
    assert "--force" in run("export", "small.onnx", "-o", "out.onnx").error(2)
    assert files(work) == before


def test_the_input_is_never_the_output(work: Path, run: Run) -> None:
    before = files(work)
    assert run("export", "small.onnx", "-o", "./small.onnx", "--force").error(2)
    assert files(work) == before


@pytest.mark.parametrize("name", ["photo.cam.png", "photo.cam-1.npy"])
def test_a_heat_map_that_exists(work: Path, run: Run, name: str) -> None:
    (work / "maps").mkdir()
    (work / "maps" / name).write_bytes(b"precious")
    before = files(work)
    arguments = ["explain", "small.cam.onnx", "photo.png", "-o", "maps", "--class", "green"]
    assert "--force" in run(*arguments).error(2)
    assert files(work) == before
    assert run(*arguments, "--force").code == 0
    assert files(work)[f"maps/{name}"] != b"precious"


@pytest.mark.parametrize("output", ["gone/out.onnx", "photo.png/out.onnx", "folder"])
def test_an_output_folder_that_is_missing(work: Path, run: Run, output: str) -> None:
    (work / "folder").mkdir()
    before = files(work)
    assert run("export", "small.onnx", "-o", output).error(2)
    assert files(work) == before


def test_a_file_where_the_folder_of_heat_maps_should_be(work: Path, run: Run) -> None:
    before = files(work)
    assert "photo.png" in run("explain", "small.cam.onnx", "photo.png", "-o", "photo.png").error(2)
    assert files(work) == before


def arguments_to_write_in(command: str, folder: str) -> list[str]:
    return {
        "export": ["export", "small.onnx", "-o", f"{folder}/out.onnx"],
        "explain": ["explain", "small.cam.onnx", "photo.png", "-o", folder],
    }[command]


@pytest.mark.parametrize("command", ["export", "explain"])
def test_an_output_folder_that_is_read_only(work: Path, start: Run, command: str) -> None:
    folder = work / "locked"
    folder.mkdir(mode=0o555)
    done = start(*arguments_to_write_in(command, "locked"), before=without_write_privilege)
    if done.code == 0 and os.geteuid() == 0:
        pytest.skip("root keeps its privilege to write anywhere here")
    assert "locked" in done.error(2)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", ["export", "explain"])
def test_a_full_disk(work: Path, start: Run, command: str) -> None:
    folder = work / "full"
    folder.mkdir()
    done = start(*arguments_to_write_in(command, "full"), before=with_full_disk)
    assert "cannot write" in done.error(1)
    assert "File too large" in done.err
    assert not [path for path in folder.iterdir() if path.stat().st_size > 4096]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def old_builder(work: Path) -> Path:
    """A folder that holds an onnxruntime-training of another version."""
    folder = work / "old"
    information = folder / "onnxruntime_training_cpu-1.18.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: onnxruntime-training-cpu\nVersion: 1.18.0\n"
    )
    return folder


BUILD = ["export", "small.onnx", "-o", "out.onnx", "--gradient-builder", "onnxruntime-training"]


def test_a_builder_that_is_missing(work: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_GRADCAM_BUILDER", str(work / "none"))
    before = files(work)
    assert "onnx-gradcam setup-builder" in run(*BUILD).error(5)
    assert files(work) == before


def test_a_builder_of_the_wrong_version(
    work: Path, run: Run, old_builder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_GRADCAM_BUILDER", str(old_builder))
    before = files(work)
    message = run(*BUILD).error(5)
    assert "1.18.0" in message
    assert "setup-builder" in message
    assert files(work) == before


def test_a_missing_builder_is_no_error_with_auto(
    work: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_GRADCAM_BUILDER", str(work / "none"))
    done = run("export", "small.onnx", "-o", "out.onnx", "--no-verify")
    assert done.code == 0, done.err
    assert "reverse" in done.out


def test_a_wheel_that_is_none(work: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_GRADCAM_BUILDER", str(work / "none"))
    before = files(work)
    assert "photo.png" in run("setup-builder", "--wheel", "photo.png").error(5)
    assert "none.whl" in run("setup-builder", "--wheel", "none.whl").error(5)
    assert "nopython" in run("setup-builder", "--python", "nopython").error(5)
    assert files(work) == before


def test_a_check_against_another_model_fails(work: Path, run: Run) -> None:
    model = small_model()
    bias = next(t for t in model.graph.initializer if t.name == "head_bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.ones(4, np.float32), "head_bias"))
    onnx.save(model, "other.onnx")
    assert "small.cam.onnx" in run("check", "small.cam.onnx", "--against", "other.onnx").error(4)
