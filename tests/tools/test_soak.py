"""Memory does not grow while explaining; and the check that says so finds a leak of 3 KB a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from onnx_gradcam import Preprocessing, export_model
from tests.end_to_end.small_model import small_model
from tools.soak import USES, Soaked, table

ROOT = Path(__file__).resolve().parents[2]
BOUND = 1.0
"""Kilobytes a run. What is not kept for good settles within the first hundreds of runs."""

SCRIPT = """
import sys
from pathlib import Path
from tools.soak import USES, watch

path, use, leak = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
kept, own = [], USES[use]

def leaking(explainer, number):
    own(explainer, number)
    kept.append(bytearray(int(1024 * leak)))

USES = dict(USES)
import tools.soak
tools.soak.USES = {use: leaking} if leak else USES
print(watch(path, use, runs=300, every=15, warm=150, threads=1).growth)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("soak") / "small.cam.onnx"
    recipe = Preprocessing(resize=(16, 16), scale=1 / 255)
    export_model(small_model(), path, gradient_builder="reverse", preprocess=recipe, verify=False)
    return path


def growth(file: Path, use: str, leak: float = 0) -> float:
    command = [sys.executable, "-c", SCRIPT, str(file), use, str(leak)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return float(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("use", USES)
def test_memory_does_not_grow(file: Path, use: str) -> None:
    assert growth(file, use) < BOUND


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_leak_of_three_kilobytes_is_found(file: Path) -> None:
    assert 2 < growth(file, "explain", leak=3) < 5


def test_growth_is_per_run_and_not_moved_by_one_peak() -> None:
    steady = Soaked("m", "explain", 100, (1000, 1400, 1000, 1000, 1000, 1000, 1300, 1000))
    assert steady.growth == 0
    leaking = Soaked("m", "explain", 80, tuple(range(1000, 1800, 100)))
    assert leaking.growth == pytest.approx(600 / 60)
    assert "| m | explain | 80 | 1.0 | 1.7 | 1.0 | 1.7 | 10240 |" in table([leaking])
