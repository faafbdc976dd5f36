"""Runs that are told to stop, and disks that fill up: with real signals and real limits."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onnx_gradcam.batch import parts
from tests.batch.examples import batch, rows, write_images, write_model

ROOT = Path(__file__).parents[2]
COUNT = 400


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), COUNT)


def start(*arguments: object, before: Callable[[], Any] | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "onnx_gradcam", "batch", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, preexec_fn=before
    )


def wait_for(out: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while len(list(out.glob("parts/part-*.parquet"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_told_to_stop(
    model: Path, images: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """It ends soon, without a word, leaves nothing of half, and goes on when started again."""
    out = tmp_path / "out"
    options = ("-o", out, "--shard-size", 20, "--overlays", "jpg", "--arrays")
    process = start(model, images, *options)
    wait_for(out, 2, process)
    process.send_signal(number)
    output, error = process.communicate(timeout=20)
    assert process.returncode == code
    assert (output.strip(), error.strip()) == (b"", b"")
    files = [path.name for path in out.rglob("*") if path.is_file()]
    assert not [name for name in files if name.startswith(".")], "no draft, no lock"
    done = len(list(parts.parts_of(out)))
    assert 2 <= done < COUNT // 20
    again = start(model, images, *options)
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0
    assert f"{COUNT} images, {20 * done} of them before, 0 failed".encode() in output
    assert [row["image"] for row in rows(out)] == list(range(COUNT))


def test_a_disk_that_fills_up(model: Path, images: Path, tmp_path: Path) -> None:
    """Every file ends at 17 KB, as on a disk that is full by then."""

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (17000, 17000))

    out = tmp_path / "out"
    small, large = ("--shard-size", 40), ("--shard-size", 40, "--thumbnails", 100)
    process = start(model, images, "-o", out, *large, before=full)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.count(b"\n") == 1
    assert b"error: cannot write" in error
    assert b"File too large" in error
    assert not [path.name for path in out.rglob("*") if path.name.startswith(".")]
    fits = start(model, images, "-o", tmp_path / "fits", *small, before=full)
    output, error = fits.communicate(timeout=60)
    assert fits.returncode == 0, error
    assert f"{COUNT} images".encode() in output


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KiB, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k,nr_inodes=400", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount")
    if done.returncode:
        pytest.skip(f"no file system may be mounted: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_real_disk_that_fills_up(
    model: Path, images: Path, tmp_path: Path, small_disk: Path
) -> None:
    out = small_disk / "out"
    options = ("--shard-size", 10, "--thumbnails", 100)
    process = start(model, images, "-o", out, *options)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.count(b"\n") == 1
    assert b"No space left on device" in error
    assert not [path.name for path in out.rglob("*") if path.name.startswith(".")]
    done = len(list(parts.parts_of(out)))
    assert done > 2
    whole = tmp_path / "whole"
    started = start(model, images, "-o", whole, *options)
    started.communicate(timeout=60)
    for part in parts.parts_of(out):
        assert part.file.read_bytes() == (whole / "parts" / part.file.name).read_bytes()


def test_threads_are_gone_however_it_ends(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx_gradcam.pipeline.overlap import THREAD_NAME

    def interrupted(_folder: parts.ResultFolder, _result: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parts.ResultFolder, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        batch(model, images, tmp_path / "out")
    import threading

    assert not [t for t in threading.enumerate() if t.name.startswith(THREAD_NAME)]
    assert not os.path.exists(tmp_path / "out" / ".onnx-gradcam.lock")  # noqa: PTH110
