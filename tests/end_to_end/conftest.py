"""A folder with a small model, its export and a photo, and the command line to use on them."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from onnx_gradcam import Preprocessing, export_model
from onnx_gradcam.cli.main import main
from tests.end_to_end.small_model import CLASSES, small_model

CAPABILITY_TO_WRITE_ANYWHERE = 1  # CAP_DAC_OVERRIDE in linux/capability.h
DROP_FROM_BOUNDING_SET = 24  # PR_CAPBSET_DROP in linux/prctl.h


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def error(self, code: int) -> str:
        """Return the one line of the error, without its prefix."""
        assert self.code == code, f"exit code {self.code}: {self.err}"
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in self.err
        return lines[0].removeprefix("error: ")


Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files once; tests get copies."""
    folder = tmp_path_factory.mktemp("small")
    onnx.save(small_model(), folder / "small.onnx")
    export_model(
        folder / "small.onnx",
        folder / "small.cam.onnx",
        gradient_builder="reverse",
        preprocess=Preprocessing(resize=(16, 16), scale=1 / 255),
        labels=CLASSES,
    )
    pixels = np.random.default_rng(3).integers(0, 256, (24, 32, 3), np.uint8)
    cv2.imwrite(str(folder / "photo.png"), pixels)
    return folder


@pytest.fixture
def work(_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with small.onnx, small.cam.onnx and photo.png in it."""
    for file in _made.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process; what native code prints counts too."""

    def invoke(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        result = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="onnx-gradcam")
        native = capfd.readouterr()
        return Outcome(result.exit_code, result.stdout + native.out, result.stderr + native.err)

    return invoke


@pytest.fixture
def start() -> Run:
    """The command line in a process of its own."""

    def invoke(
        *arguments: str | Path, before: Callable[[], None] | None = None, **environment: str
    ) -> Outcome:
        command: Sequence[str] = [sys.executable, "-m", "onnx_gradcam", *map(str, arguments)]
        root = str(Path(__file__).parents[2])
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            preexec_fn=before,
            env={**os.environ, "PYTHONPATH": root, **environment},
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return invoke


def without_write_privilege() -> None:
    """Let the rights of files count for root too; nothing happens where that is not possible."""
    ctypes.CDLL(None).prctl(DROP_FROM_BOUNDING_SET, CAPABILITY_TO_WRITE_ANYWHERE, 0, 0, 0)


def with_full_disk() -> None:
    """Let every file end at 4 KiB, as on a disk that is full by then."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
