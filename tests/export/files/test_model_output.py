"""Writing model files: deterministic, whole or not at all, never over something else."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from onnx_gradcam.errors import OutputError, WriteError
from onnx_gradcam.export.files import model_output
from onnx_gradcam.export.files.model_file import load_model
from onnx_gradcam.export.files.model_output import check_output, data_path, save_model, staged_model

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
wide (float[N,32] x) => (float[N,64] y)
<float[32,64] w, float[64,64] v, float[64] b> {
  h = MatMul(x, w)
  k = Add(h, b)
  y = MatMul(k, v)
}"""


def wide_model(seed: int = 0) -> onnx.ModelProto:
    model = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(seed)
    del model.graph.initializer[:]
    for name, shape in (("w", (32, 64)), ("v", (64, 64)), ("b", (64,))):
        values = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def run(path: Path) -> np.ndarray:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.ones((2, 32), np.float32)})[0]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_saves_the_same_bytes_every_time_and_says_how_many(tmp_path: Path) -> None:
    model = wide_model()
    sizes = [save_model(model, tmp_path / name) for name in ("a.onnx", "b.onnx")]
    first, second = ((tmp_path / name).read_bytes() for name in ("a.onnx", "b.onnx"))
    assert first == second
    assert sizes == [len(first), len(second)]
    assert names(tmp_path) == ["a.onnx", "b.onnx"]


def test_external_data_goes_beside_the_model_page_aligned_and_deterministic(
    tmp_path: Path,
) -> None:
    model = wide_model()
    before = model.SerializeToString(deterministic=True)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        size = save_model(model, tmp_path / folder / "m.onnx", external=True)
        assert names(tmp_path / folder) == ["m.onnx", "m.onnx.data"]
        assert size == sum(p.stat().st_size for p in (tmp_path / folder).iterdir())
    assert model.SerializeToString(deterministic=True) == before
    for name in ("m.onnx", "m.onnx.data"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    written = onnx.load(tmp_path / "one" / "m.onnx", load_external_data=False)
    tensors = {t.name: t for t in written.graph.initializer}
    assert tensors["b"].raw_data, "small tensors stay in the model"
    for name in ("w", "v"):
        entries = {e.key: e.value for e in tensors[name].external_data}
        assert entries["location"] == "m.onnx.data"
        assert int(entries["offset"]) % 4096 == 0
    embedded = tmp_path / "embedded.onnx"
    save_model(model, embedded)
    np.testing.assert_array_equal(run(tmp_path / "one" / "m.onnx"), run(embedded))


def test_external_data_of_the_source_is_copied_and_shared_bytes_stay_shared(
    tmp_path: Path,
) -> None:
    model = wide_model()
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    save_model(model, source / "m.onnx", external=True)
    loaded = load_model(source / "m.onnx")
    twin = loaded.model.graph.initializer.add()
    twin.CopyFrom(loaded.model.graph.initializer[0])
    twin.name = "twin"
    save_model(loaded.model, target / "m.onnx", base_dir=source, external=True)
    result = load_model(target / "m.onnx")
    by_name = {t.name: t for t in result.model.graph.initializer}
    assert by_name["twin"].external_data == by_name["w"].external_data
    np.testing.assert_array_equal(run(target / "m.onnx"), run(source / "m.onnx"))


def test_external_data_can_be_embedded(tmp_path: Path) -> None:
    save_model(wide_model(), tmp_path / "m.onnx", external=True)
    loaded = load_model(tmp_path / "m.onnx")
    save_model(loaded.model, tmp_path / "whole.onnx", base_dir=tmp_path)
    assert not load_model(tmp_path / "whole.onnx").has_external_data
    np.testing.assert_array_equal(run(tmp_path / "whole.onnx"), run(tmp_path / "m.onnx"))


def test_a_model_too_large_for_one_file_gets_external_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_output, "EMBEDDED_LIMIT", 10_000)
    save_model(wide_model(), tmp_path / "m.onnx")
    assert load_model(tmp_path / "m.onnx").has_external_data


def test_existing_output_needs_force(tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    output.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists; replace it with --force"):
        save_model(wide_model(), output)
    assert output.read_bytes() == b"precious"
    save_model(wide_model(), output, force=True)
    assert load_model(output)


def test_existing_data_file_needs_force_and_is_replaced_not_appended_to(tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    data_path(output).write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"m\.onnx\.data exists; replace it with --force"):
        save_model(wide_model(), output, external=True)
    assert data_path(output).read_bytes() == b"precious"
    save_model(wide_model(), output, external=True, force=True)
    size = data_path(output).stat().st_size
    save_model(wide_model(1), output, external=True, force=True)
    assert data_path(output).stat().st_size == size
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]


def test_output_that_is_the_input_or_its_weights_is_refused_even_with_force(
    tmp_path: Path,
) -> None:
    source = tmp_path / "m.onnx"
    save_model(wide_model(), source, external=True)
    loaded = load_model(source)
    (tmp_path / "link.onnx").symlink_to(source)
    for output in (source, tmp_path / "link.onnx", data_path(source)):
        with pytest.raises(OutputError, match="belongs to the input model"):
            check_output(output, force=True, source=source, model=loaded.model)


def test_output_whose_data_file_would_be_the_weights_of_the_input_is_refused(
    tmp_path: Path,
) -> None:
    save_model(wide_model(), tmp_path / "out.onnx", external=True)
    (tmp_path / "out.onnx").rename(tmp_path / "in.onnx")
    source = tmp_path / "in.onnx"
    with pytest.raises(OutputError, match=r"out\.onnx\.data belongs to the input model"):
        check_output(
            tmp_path / "out.onnx", force=True, source=source, model=load_model(source).model
        )


def test_folder_missing_output_a_folder_and_special_files(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no folder"):
        check_output(tmp_path / "absent" / "m.onnx")
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="not a regular file"):
        check_output(tmp_path / "pipe", force=True)


def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    if os.geteuid() == 0:  # root may write anywhere: answer for an ordinary user
        monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    with pytest.raises(OutputError, match="cannot write to the folder"):
        save_model(wide_model(), folder / "m.onnx")
    assert names(folder) == []


def test_without_commit_nothing_is_left_and_the_former_output_stays(tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    save_model(wide_model(), output, external=True)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with staged_model(wide_model(1), output, external=True, force=True) as staged:
        assert load_model(staged.path).has_external_data
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("raised", [KeyboardInterrupt, ValueError])
def test_an_exception_while_staged_leaves_nothing(
    tmp_path: Path, raised: type[BaseException]
) -> None:
    with pytest.raises(raised), staged_model(wide_model(), tmp_path / "m.onnx"):
        raise raised
    assert names(tmp_path) == []


def test_output_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    with staged_model(wide_model(), output) as staged:
        output.write_bytes(b"somebody else's")
        with pytest.raises(OutputError, match="exists"):
            staged.commit()
    assert output.read_bytes() == b"somebody else's"
    assert names(tmp_path) == ["m.onnx"]


@pytest.mark.parametrize("failing_move", range(4))
@pytest.mark.parametrize("failure", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_failure_at_any_move_puts_the_former_pair_back(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing_move: int,
    failure: BaseException,
) -> None:
    output = tmp_path / "m.onnx"
    save_model(wide_model(), output, external=True)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    replace, moves = Path.replace, iter(range(100))

    def failing(self: Path, target: Path) -> Path:
        if next(moves) == failing_move:
            raise failure
        return replace(self, target)

    expected = WriteError if isinstance(failure, OSError) else KeyboardInterrupt
    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(expected):
        save_model(wide_model(1), output, external=True, force=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("stopping_move", range(1, 4))
def test_a_crash_between_moves_leaves_no_model_beside_weights_of_another(
    tmp_path: Path, stopping_move: int
) -> None:
    output = tmp_path / "m.onnx"
    save_model(wide_model(), output, external=True)
    script = f"""
import os, pathlib
from onnx_gradcam.export.files.model_output import save_model
from tests.export.files.test_model_output import wide_model
replace, moves = pathlib.Path.replace, iter(range(100))
def crash(self, target):
    if next(moves) == {stopping_move}:
        os._exit(9)
    return replace(self, target)
pathlib.Path.replace = crash
save_model(wide_model(1), {str(output)!r}, external=True, force=True)
"""
    result = subprocess.run([sys.executable, "-c", script], check=False, cwd=Path.cwd())
    assert result.returncode == 9
    assert not output.exists()


def test_disk_full_leaves_nothing(tmp_path: Path) -> None:
    """A real refused write: the process may write files of 4 KiB at most (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        for external in (False, True):
            with pytest.raises(WriteError, match=r"cannot write .*; nothing was left behind"):
                save_model(wide_model(), tmp_path / "m.onnx", external=external)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []


def test_device_error_on_flush_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left on device"):
        save_model(wide_model(), tmp_path / "m.onnx")
    assert names(tmp_path) == []


def test_permissions_follow_the_umask_not_the_staging_folder(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save_model(wide_model(), tmp_path / "m.onnx", external=True)
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o644}
