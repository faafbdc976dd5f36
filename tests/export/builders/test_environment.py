from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from onnx_gradcam.errors import BuilderUnavailableError
from onnx_gradcam.export.builders import installation, interpreter, state, training_process, wheels
from onnx_gradcam.export.builders.environment import (
    BUILDER_VERSION,
    ENVIRONMENT_VARIABLE,
    builder_status,
    install_builder,
)
from tests.export.builders.fake_training import TAG, pin, unpack, write_wheel

OTHER_TAG = "cp38"
BROKEN = 'raise ImportError("libsomething.so: cannot open shared object file")'


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own; the folder of the builder for this Python in it."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "onnx_gradcam" / f"builder-{BUILDER_VERSION}-{TAG}"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel whose hash is the pinned one."""
    return pinned(write_wheel(tmp_path), monkeypatch)


def pinned(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    table = (pin(wheel),)
    monkeypatch.setattr(wheels, "pinned_wheels", lambda: table)
    return wheel


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.parent.iterdir()) if folder.parent.is_dir() else []


# -- the table of wheels --------------------------------------------------------------------------


def test_every_wheel_is_pinned_once_by_a_sha256() -> None:
    table = wheels.pinned_wheels()
    assert len({wheel.filename for wheel in table}) == len(table)
    assert len({wheel.sha256 for wheel in table}) == len(table)
    assert all(re.fullmatch("[0-9a-f]{64}", wheel.sha256) for wheel in table)


@pytest.mark.parametrize("tag", ["cp38", "cp39", "cp310", "cp311", "cp312"])
def test_each_python_has_three_platforms_of_the_builder_and_numpy(tag: str) -> None:
    assert tag in wheels.supported_tags()
    builders = wheels.builder_wheels(tag)
    assert {re.sub(r".*-(linux|macosx|manylinux|win).*", r"\1", w.filename) for w in builders} == {
        "macosx",
        "manylinux",
        "win",
    }
    assert {wheel.version for wheel in builders} == {BUILDER_VERSION}
    lines = wheels.requirements(tag, builder=True, numpy=True).splitlines()
    assert [line.split("==")[0] for line in lines] == ["onnxruntime-training-cpu", "numpy"]
    assert [line.count("--hash=sha256:") for line in lines] == [3, 4]


# -- the state ------------------------------------------------------------------------------------


def test_a_missing_builder_is_told_with_its_place_and_the_command(data: Path) -> None:
    status = builder_status()
    assert not status.available
    assert status.path == data
    assert str(data) in status.problem
    assert "onnx-gradcam setup-builder" in status.fix


def test_the_environment_variable_names_the_folder(
    data: Path, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unpack(wheel, tmp_path / "elsewhere")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(folder))
    status = builder_status()
    assert status.available
    assert (status.path, status.version) == (folder, BUILDER_VERSION)
    assert status.python == Path(sys.executable)
    assert json.loads(json.dumps(status.to_dict()))["path"] == str(folder)


def test_a_folder_with_something_else_in_it_is_no_builder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime").mkdir()
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    assert "holds no onnxruntime-training" in builder_status().problem


def test_another_version_is_named(data: Path, tmp_path: Path) -> None:
    unpack(write_wheel(tmp_path, version="1.18.0"), data)
    status = builder_status()
    assert not status.available
    assert status.version == "1.18.0"
    assert "1.18.0, not 1.19.2" in status.problem
    assert "--force" in status.fix


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_extension_is_found(data: Path, wheel: Path, damage: str) -> None:
    extension = unpack(wheel, data) / "onnxruntime/capi/onnxruntime_pybind11_state.py"
    if damage == "missing":
        extension.unlink()
    else:
        extension.write_bytes(extension.read_bytes()[:-5])
    status = builder_status()
    assert not status.available
    assert "damaged" in status.problem
    assert extension.name in status.problem


def test_one_for_another_python_is_run_by_the_python_on_record(data: Path, tmp_path: Path) -> None:
    folder = data.with_name(f"builder-{BUILDER_VERSION}-{OTHER_TAG}")
    unpack(write_wheel(tmp_path, tag=OTHER_TAG), folder)
    other = tmp_path / "python3.8"
    other.touch(0o755)
    (folder / state.RECORD).write_text(json.dumps({"python": str(other)}))
    status = builder_status()
    assert status.available
    assert status.python == other

    other.unlink()
    status = builder_status()
    assert not status.available
    assert f"{other}, the Python that runs" in status.problem
    assert "--python python3.8" in status.fix


def test_one_for_another_python_without_record_is_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unpack(write_wheel(tmp_path, tag=OTHER_TAG), tmp_path / "elsewhere")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(folder))
    status = builder_status()
    assert not status.available
    assert f"is for {OTHER_TAG}, this Python is {TAG}" in status.problem


def test_without_a_home_folder_the_variable_is_named(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    status = builder_status()
    assert (status.available, status.path) == (False, None)
    assert ENVIRONMENT_VARIABLE in status.fix
    with pytest.raises(BuilderUnavailableError, match=ENVIRONMENT_VARIABLE):
        install_builder()


# -- installing -----------------------------------------------------------------------------------


def test_a_wheel_file_is_installed_and_tried(data: Path, wheel: Path) -> None:
    status = install_builder(wheel=wheel)
    assert status.available
    assert status == builder_status()
    assert status.path == data
    assert leftovers(data) == [data.name]
    record = json.loads((data / state.RECORD).read_text())
    assert record["python"] == str(Path(sys.executable))
    assert record["source"] == wheel.name


def test_one_that_is_whole_is_left_unless_forced(data: Path, wheel: Path) -> None:
    install_builder(wheel=wheel)
    marker = data / "marker"
    marker.touch()
    install_builder(wheel=wheel)
    assert marker.exists()
    install_builder(wheel=wheel, force=True)
    assert not marker.exists()
    assert leftovers(data) == [data.name]


def test_a_damaged_one_is_replaced_without_force(data: Path, wheel: Path) -> None:
    install_builder(wheel=wheel)
    (data / "onnxruntime/capi/onnxruntime_pybind11_state.py").unlink()
    assert install_builder(wheel=wheel).available


@pytest.mark.skipif(not interpreter.ask_interpreter(Path(sys.executable)).has_pip, reason="no pip")
@pytest.mark.parametrize("tampered", [False, True], ids=["as-pinned", "tampered"])
def test_pip_installs_only_what_is_pinned(
    data: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch, tampered: bool
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    if not tampered:
        status = install_builder()
        assert status.available
        assert leftovers(data) == [data.name]
        return
    write_wheel(wheel.parent, "import os  # not what was pinned")
    with pytest.raises(BuilderUnavailableError, match="--wheel FILE") as caught:
        install_builder()
    assert "\n" not in str(caught.value)
    assert leftovers(data) == []


def test_a_wheel_of_another_hash_is_refused_with_what_is_expected(
    data: Path, wheel: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.whl"
    other.write_bytes(b"something else")
    with pytest.raises(BuilderUnavailableError) as caught:
        install_builder(wheel=other)
    assert pin(other).sha256 in str(caught.value)
    assert pin(wheel).sha256 in str(caught.value)
    assert leftovers(data) == []


def test_a_wheel_for_another_python_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = write_wheel(tmp_path), write_wheel(tmp_path, tag=OTHER_TAG)
    monkeypatch.setattr(wheels, "pinned_wheels", lambda: (pin(ours), pin(theirs)))
    with pytest.raises(BuilderUnavailableError, match=f"is {theirs.name}; expected for {TAG}"):
        install_builder(wheel=theirs)


def test_a_missing_wheel_file_is_told(data: Path, wheel: Path) -> None:
    with pytest.raises(BuilderUnavailableError, match=r"gone\.whl: No such file"):
        install_builder(wheel=wheel.with_name("gone.whl"))


def test_a_python_without_a_wheel_is_refused_with_the_way_out(data: Path, wheel: Path) -> None:
    table = wheels.pinned_wheels
    assert table()[0].python_tag == TAG
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_QUESTION", interpreter._QUESTION.replace("%d%d", "%d%d0"))
        with pytest.raises(BuilderUnavailableError, match=f"no wheel for {TAG}0.*--python python3"):
            install_builder(wheel=wheel)


@pytest.mark.parametrize("python", ["/no/such/python", "true"])
def test_what_is_no_python_is_refused(data: Path, python: str) -> None:
    with pytest.raises(BuilderUnavailableError, match=f"--python {python}"):
        install_builder(python=Path(python))


def test_another_python_is_installed_for_and_recorded(
    data: Path, tmp_path: Path, wheel: Path
) -> None:
    link = tmp_path / "other-python"
    link.symlink_to(sys.executable)
    install_builder(wheel=wheel, python=link)
    assert json.loads((data / state.RECORD).read_text())["python"] == str(link)


def test_what_does_not_load_is_not_installed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = pinned(write_wheel(tmp_path, BROKEN), monkeypatch)
    with pytest.raises(BuilderUnavailableError, match=r"does not load.*libsomething\.so"):
        install_builder(wheel=wheel)
    assert leftovers(data) == []


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interruption_keeps_what_was_there(
    data: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    install_builder(wheel=wheel)
    (data / "marker").touch()

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(installation, "_try_out", fail)
    with pytest.raises((KeyboardInterrupt, BuilderUnavailableError)) as caught:
        install_builder(wheel=wheel, force=True)
    if isinstance(failure, OSError):
        assert "No space left" in str(caught.value)
    assert (data / "marker").exists()
    assert leftovers(data) == [data.name]


def test_a_failed_move_puts_the_old_one_back(
    data: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_builder(wheel=wheel)
    (data / "marker").touch()
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.startswith(".builder-") and not self.name.endswith(".old"):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(BuilderUnavailableError, match="Permission denied"):
        install_builder(wheel=wheel, force=True)
    assert (data / "marker").exists()
    assert leftovers(data) == [data.name]


def test_a_folder_of_something_else_is_never_replaced(
    data: Path, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "thesis.txt").touch()
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(precious))
    with pytest.raises(BuilderUnavailableError, match="is not empty"):
        install_builder(wheel=wheel, force=True)
    assert (precious / "thesis.txt").exists()


def test_a_place_that_cannot_be_written_to_is_told(
    data: Path, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "file" / "builder"))
    with pytest.raises(BuilderUnavailableError, match=f"cannot install.*{ENVIRONMENT_VARIABLE}"):
        install_builder(wheel=wheel)


def test_a_python_without_pip_is_told(
    data: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = interpreter._QUESTION.replace('find_spec("pip")', 'find_spec("no_such_module")')
    monkeypatch.setattr(interpreter, "_QUESTION", question)
    with pytest.raises(BuilderUnavailableError, match=r"has no pip.*--wheel FILE"):
        install_builder()


# -- the worker's process -------------------------------------------------------------------------


def test_the_worker_is_valid_for_the_oldest_python_with_a_wheel() -> None:
    source = training_process._WORKER.read_text()
    ast.parse(source, feature_version=(3, 8))
    assert "import onnx_gradcam" not in source
    assert "from onnx_gradcam" not in source


def test_importing_the_state_imports_neither_onnx_nor_numpy() -> None:
    code = (
        "import sys, onnx_gradcam.export.builders.environment;"
        "sys.exit(bool({'onnx', 'numpy', 'onnxruntime'} & set(sys.modules)))"
    )
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, check=False
    )
    assert done.returncode == 0
