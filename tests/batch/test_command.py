from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from onnx_gradcam.cli.main import main
from tests.batch.examples import rows, write_images, write_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 10)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["batch", *map(str, arguments)])


def test_a_batch(model: Path, images: Path, tmp_path: Path) -> None:
    options = ("--top-k", 2, "--shard-size", 4, "--coco", "--overlays", "jpg")
    result = run(model, images, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"10 images, 0 failed -> {tmp_path / 'out'}: 20 rows in 3 part")
    assert result.stderr == "", "no bar where there is no terminal"
    assert len(rows(tmp_path / "out")) == 20
    again = run(model, images, "-o", tmp_path / "out", *options)
    assert again.exit_code == 0
    assert again.stdout.startswith("10 images, 10 of them before, 0 failed")


def test_images_that_fail_are_exit_code_6(model: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 5)
    (folder / "0003.png").write_bytes(b"no image")
    result = run(model, folder, "-o", tmp_path / "out")
    assert result.exit_code == 6
    assert "5 images, 1 failed" in result.stdout
    assert result.stderr.startswith("error: 1 images failed (column error), the first one: ")
    assert "0003.png: not an image" in result.stderr
    again = run(model, folder, "-o", tmp_path / "out")
    assert (again.exit_code, again.stderr) == (6, "error: 1 images failed (column error)\n")
    stopped = run(model, folder, "-o", tmp_path / "other", "--max-errors", 0)
    assert stopped.exit_code == 6
    assert "more than 0 images failed" in stopped.stderr
    assert "0003.png: not an image" in stopped.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{model}", "{tmp}/gone"], 2, "input .*gone does not exist"),
        (["{model}", "{images}", "--class", "no such"], 2, "no such"),
        (["{model}", "{images}", "--method", "rise", "--set", "maks=3"], 2, "maks"),
        (["{tmp}/gone.onnx", "{images}"], 2, "does not exist"),
        (["{images}/0000.png", "{images}"], 3, ""),
        (["{model}", "{images}", "--device", "cuda"], 5, "CUDA"),
        (["{model}", "{images}", "--threshold", "0"], 2, "threshold"),
    ],
)
def test_what_cannot_be_done_leaves_nothing(
    model: Path, images: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    given = [a.format(model=model, images=images, tmp=tmp_path) for a in arguments]
    result = run(*given, "-o", tmp_path / "out")
    assert result.exit_code == code
    assert result.stderr.count("\n") == 1
    assert message.split(".*")[-1] in result.stderr
    assert not (tmp_path / "out").exists()


def on_a_terminal(*arguments: object, given: bytes = b"") -> tuple[int, bytes, bytes]:
    """Return what the command gives with a terminal for its errors: code, output and errors."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "onnx_gradcam", "batch", *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT,
        env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    assert process.stdin is not None
    process.stdin.write(given)
    process.stdin.close()
    process.stdin = None
    seen, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([ours], [], [], 0.2)
        if not ready:
            continue
        try:
            data = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        seen += data
    os.close(ours)
    output, _ = process.communicate(timeout=30)
    return process.returncode, output, seen


def test_a_terminal_shows_a_bar(model: Path, images: Path, tmp_path: Path) -> None:
    code, output, seen = on_a_terminal(model, images, "-o", tmp_path / "out")
    assert code == 0
    assert b"10 images, 0 failed" in output
    assert b"images" in seen
    assert b"10/10" in seen


def test_a_terminal_shows_a_bar_of_no_known_length(
    model: Path, images: Path, tmp_path: Path
) -> None:
    """A list on standard input can be read but once."""
    given = "".join(f"{path}\n" for path in sorted(images.iterdir())).encode()
    code, output, seen = on_a_terminal(model, "-", "-o", tmp_path / "out", given=given)
    assert code == 0, seen
    assert b"10 images, 0 failed" in output
    assert b" 10" in seen
    assert b"10/" not in seen


def test_a_bar_knows_the_time_left(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the images of an earlier run nothing can be told about the speed of this one."""
    from onnx_gradcam.batch.sources import Sources
    from onnx_gradcam.cli import progress

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = progress.Progress(Sources((str(images),)))
    deadline = time.time() + 10
    while bar._total is None and time.time() < deadline:
        time.sleep(0.01)
    bar.advance(6)
    for _ in range(2):
        now[0] += 30
        bar.advance(1)
    bar.close()
    assert "8/10  30.0 s each, 0:01:00 left" in sys.stderr.getvalue()
