from __future__ import annotations

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


def test_a_terminal_shows_a_bar(model: Path, images: Path, tmp_path: Path) -> None:
    """The command with a terminal for its errors; standard output goes elsewhere."""
    ours, theirs = pty.openpty()
    arguments = ["batch", str(model), str(images), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "onnx_gradcam", *arguments],
        stderr=theirs, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
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
    assert process.returncode == 0
    assert b"10 images, 0 failed" in output
    assert b"images" in seen
    assert b"10/10" in seen
