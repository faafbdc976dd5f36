"""Folders on the command line: the same files as one by one, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.conftest import Run

ROOT = Path(__file__).parents[2]


def fill(folder: Path, photo: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04d}.png").write_bytes(photo.read_bytes())


def test_a_folder_is_explained_like_its_photos_one_by_one(work: Path, run: Run) -> None:
    fill(work / "photos", work / "photo.png", 7)
    for threads in ("1", "3"):
        done = run("explain", "small.cam.onnx", "photos", "-o", threads, "--threads", threads)
        assert done.code == 0, done.err
        assert done.out.count(" -> ") == 7
        order = [line.split(" -> ")[0] for line in done.out.splitlines() if " -> " in line]
        assert order == sorted(order)
    for number in range(7):
        one = run("explain", "small.cam.onnx", f"photos/{number:04d}.png", "-o", "alone")
        assert one.code == 0
    written = {path.name for path in (work / "alone").iterdir()}
    assert len(written) == 14
    for folder in ("1", "3"):
        assert {path.name for path in (work / folder).iterdir()} == written
        for name in written:
            assert (work / folder / name).read_bytes() == (work / "alone" / name).read_bytes()


@pytest.mark.parametrize("kind", ["jpg", "none"])
def test_pictures_are_jpeg_or_left_out(work: Path, run: Run, kind: str) -> None:
    done = run(
        "explain", "small.cam.onnx", "photo.png", "-o", "maps", "--pictures", kind, "--class", "red"
    )
    assert done.code == 0, done.err
    drawn = {"photo.cam.jpg"} if kind == "jpg" else set()
    assert {path.name for path in (work / "maps").iterdir()} == {"photo.cam-0.npy"} | drawn
    assert f"-> {'maps/photo.cam.jpg' if drawn else 'maps/photo.cam-0.npy'}" in done.out
    assert np.ptp(np.load(work / "maps" / "photo.cam-0.npy")) > 0


def test_an_interrupt_leaves_what_was_printed(work: Path) -> None:
    fill(work / "photos", work / "photo.png", 1500)
    command = [sys.executable, "-m", "onnx_gradcam", "explain", "small.cam.onnx", "photos"]
    with subprocess.Popen(
        [*command, "-o", "maps", "--pictures", "none"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        output = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        output += process.stdout.read()
        assert process.wait(timeout=60) == 130, output
    assert "Traceback" not in output
    printed = output.count(" -> ")
    files = list((work / "maps").iterdir())
    assert 1 <= printed < 1500
    assert printed <= len(files) <= printed + 1, "one more may have been written, not yet printed"
    assert all(np.load(file).shape == (8, 8) for file in files)
