from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnx_gradcam.cli.main import main
from onnx_gradcam.cli.signals import ending_when_terminated
from onnx_gradcam.ray.cluster import Cluster, import_ray
from tests.batch.examples import batch, write_images, write_model
from tests.ray.examples import OPTIONS, parts

pytest.importorskip("ray", reason="needs the extra [ray]")

ROOT = Path(__file__).parents[2]
ARGUMENTS = ("--shard-size", "4", "--top-k", "2", "--engine", "ray")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 200)


@pytest.fixture
def home() -> Iterator[Path]:
    """Where Ray keeps its sockets and logs: the names of its processes tell it."""
    folder = Path(tempfile.mkdtemp(prefix="cam"))  # short, for the names of sockets
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def start(home: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "onnx_gradcam", "batch", *map(str, arguments), *ARGUMENTS],
        cwd=ROOT,
        env={**os.environ, "RAY_TMPDIR": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def running(home: Path) -> list[str]:
    """The processes of the Ray that keeps its files there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = (process / "environ").read_bytes()
        except OSError:  # it has ended, or is not ours
            continue
        if str(home) in command or f"RAY_TMPDIR={home}".encode() in environment:
            found.append(command)
    return found


def none_left(home: Path) -> bool:
    deadline = time.monotonic() + 20
    while running(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    return running(home) == []


def test_a_run_that_is_stopped_leaves_no_process_and_can_go_on(
    model: Path, images: Path, tmp_path: Path, home: Path
) -> None:
    out = tmp_path / "ray"
    process = start(home, model, images, "-o", out)
    while not list(out.glob("parts/*.parquet")) and process.poll() is None:
        time.sleep(0.005)
    assert running(home)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert none_left(home)
    done = 4 * len(list(out.glob("parts/*.parquet")))
    assert done

    process = start(home, model, images, "-o", out)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    before = f", {done} of them before, 0 failed -> {out}: 400 rows in 50 parts"
    assert output.startswith(f"200 images{before}")
    assert errors == ""
    assert none_left(home)
    batch(model, images, tmp_path / "local", OPTIONS)
    expected, found = parts(tmp_path / "local"), parts(out)
    assert found.keys() == expected.keys()
    assert all(found[name] == expected[name] for name in expected if name.endswith(".parquet"))


def test_ray_does_not_change_what_sigterm_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = import_ray()

    def init(**_how: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))

    before = signal.getsignal(signal.SIGTERM)
    try:
        with ending_when_terminated():
            ours = signal.getsignal(signal.SIGTERM)
            monkeypatch.setattr(ray, "is_initialized", lambda: False)
            monkeypatch.setattr(ray, "init", init)
            Cluster("local")
            assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--engine", "ray", "--threads", "2"], 2, "give that instead"),
        (["--actors", "2"], 2, "--actors is of --engine ray; add that"),
        (["--cpus-per-actor", "1"], 2, "--cpus-per-actor is of --engine ray"),
        (["--engine", "ray", "--device", "cuda"], 2, "add --gpus-per-actor 1"),
        (["--engine", "ray", "--ray-address", "ray://a:1"], 2, "Ray Client is not served"),
        (["--engine", "ray", "--ray-address", "127.0.0.1:1"], 5, "no Ray cluster answers at"),
        (["--engine", "ray", "--ray-address", "127.0.0.1:99999"], 5, "no Ray cluster answers at"),
    ],
)
def test_what_cannot_be_done_leaves_nothing(
    model: Path, images: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    given = ["batch", str(model), str(images), "-o", str(tmp_path / "out"), *arguments]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == code
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not (tmp_path / "out").exists()
