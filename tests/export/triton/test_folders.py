"""Model folders are written whole or not at all, and what cannot be served is refused."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_gradcam import export_model, load
from onnx_gradcam.errors import (
    NotExportedError,
    OutputError,
    UnsupportedModelError,
    UsageError,
    WriteError,
)
from onnx_gradcam.export.triton.repository import write_triton
from tests.end_to_end.small_model import small_model
from tests.export.triton.backend_rules import load_problems
from tests.export.triton.examples import config_of, exported, files


def test_a_folder_that_exists_is_replaced_with_force_alone(tmp_path: Path) -> None:
    first, second = exported(tmp_path), exported(tmp_path, "b.onnx", class_input="required")
    folder = write_triton(first, tmp_path / "models", name="m").folder
    before = files(folder)
    with pytest.raises(OutputError, match=r"models/m exists; replace it with --force"):
        write_triton(second, tmp_path / "models", name="m")
    assert files(folder) == before
    write_triton(second, tmp_path / "models", name="m", force=True)
    assert config_of(folder).max_batch_size == 8
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["m"]


@pytest.mark.parametrize(
    ("other", "said"),
    [("2/model.onnx", "holds '2', which no export wrote"), (None, "has no config.pbtxt")],
)
def test_what_no_export_wrote_is_never_replaced(
    other: str | None, said: str, tmp_path: Path
) -> None:
    path = exported(tmp_path)
    folder = tmp_path / "models" / "m"
    if other is None:
        (folder / "precious").mkdir(parents=True)
    else:
        write_triton(path, tmp_path / "models", name="m")
        (folder / other).parent.mkdir()
        (folder / other).write_bytes(b"mine")
    before = files(folder)
    with pytest.raises(OutputError, match=f"{said}, and so is not replaced; remove it yourself"):
        write_triton(path, tmp_path / "models", name="m", force=True)
    assert files(folder) == before


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = exported(tmp_path)
    folder = write_triton(path, tmp_path / "models", name="m").folder
    before = files(folder)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("onnx_gradcam.export.triton.repository.shutil.copyfile", full)
    with pytest.raises(WriteError, match=r"cannot write .*/m: No space left on device"):
        write_triton(path, tmp_path / "models", name="m", force=True)
    with pytest.raises(WriteError):
        write_triton(path, tmp_path / "models", name="other")
    assert files(folder) == before
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["m"]


def test_a_former_folder_comes_back_where_the_last_step_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported(tmp_path)
    folder = write_triton(path, tmp_path / "models", name="m").folder
    before = files(folder)
    rename = Path.rename

    def stopped(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_triton(path, tmp_path / "models", name="m", force=True)
    assert files(folder) == before
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["m"]


NAMES = {"a-b.cam.onnx": "a-b_cam", "x.onnx": "x", "ü model(2).onnx": "model_2", "ü.onnx": "model"}


@pytest.mark.parametrize("file", NAMES)
def test_the_name_is_made_of_the_file_s(file: str, tmp_path: Path) -> None:
    folder = write_triton(exported(tmp_path, file), tmp_path / "models").folder
    assert folder.name == NAMES[file]
    assert load_problems(folder, config_of(folder)) == []


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b"])
def test_other_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no name for a Triton model"):
        write_triton(exported(tmp_path), tmp_path / "models", name=name)


def test_a_batch_of_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_batch_size is 0; it takes 1 or more"):
        write_triton(exported(tmp_path), tmp_path / "models", max_batch_size=0)
    written = write_triton(exported(tmp_path, class_input="required"), tmp_path, max_batch_size=3)
    assert config_of(written.folder).max_batch_size == 3


def test_a_repository_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = exported(tmp_path)
    with pytest.raises(OutputError, match=r"the Triton repository .* is no folder"):
        write_triton(path, path)


def test_a_file_without_an_explanation_is_refused(tmp_path: Path) -> None:
    onnx.save(small_model(), tmp_path / "plain.onnx")
    with pytest.raises(NotExportedError, match="carries no explanation"):
        write_triton(tmp_path / "plain.onnx", tmp_path)


def test_a_file_that_onnxruntime_does_not_load_is_refused(tmp_path: Path) -> None:
    path = exported(tmp_path, kind="double")  # no kernel of Conv takes float64 on the CPU
    with pytest.raises(UnsupportedModelError, match=r"does not load .* here, so what to tell Trit"):
        write_triton(path, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_an_output_of_unknown_axes_is_refused(tmp_path: Path) -> None:
    path = exported(tmp_path)
    model = onnx.load(path)
    sequence = onnx.helper.make_node("SequenceConstruct", ["logits"], ["list"])
    taken = onnx.helper.make_node("SequenceAt", ["list", "index"], ["any"])
    model.graph.node.extend([sequence, taken])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0), "index"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("any", 1, None))
    model.graph.output.append(onnx.helper.make_tensor_sequence_value_info("list", 1, None))
    onnx.save(model, path)
    with pytest.raises(UnsupportedModelError) as caught:
        write_triton(path, tmp_path / "models")
    assert str(caught.value).startswith("Triton cannot serve this file: ")
    assert "'list' is no tensor but seq(tensor(float))" in str(caught.value)
    assert not (tmp_path / "models").exists()


def test_an_export_is_refused_before_any_work_where_the_folder_exists(tmp_path: Path) -> None:
    model, path = small_model(), tmp_path / "m.cam.onnx"
    (tmp_path / "models" / "m_cam").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"models/m_cam exists; replace it with --force"):
        export_model(model, path, gradient_builder="reverse", emit_triton=tmp_path / "models")
    assert not path.exists()


def test_an_export_that_triton_cannot_serve_is_written_all_the_same(tmp_path: Path) -> None:
    model, path = small_model(), tmp_path / "m.cam.onnx"
    model.graph.node.append(onnx.helper.make_node("SequenceConstruct", ["logits"], ["list"]))
    model.graph.output.append(onnx.helper.make_tensor_sequence_value_info("list", 1, None))
    with pytest.raises(UnsupportedModelError) as caught:
        export_model(
            model, path, score="logits", gradient_builder="reverse",
            emit_triton=tmp_path / "models", verify=False,
        )  # fmt: skip
    assert str(caught.value).endswith(f"; {path} itself is written")
    assert load(path, device="cpu").explain(np.ones((1, 3, 16, 16), np.float32)).cams.shape
    assert not (tmp_path / "models").exists()
