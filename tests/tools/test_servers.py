"""The measurements of docs/servers.md run, and set what they say that they set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from onnx_gradcam import export_model
from tests.end_to_end.small_model import small_model
from tools.servers import FORK_CASES, SPINNING, TABLES, Setting, hold, measure, options

TOOL = Path(__file__).resolve().parents[2] / "tools" / "servers.py"

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, forks")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("servers") / "small.cam.onnx"
    export_model(small_model(), path, gradient_builder="reverse", verify=False)
    return path


def test_options_of_a_session() -> None:
    chosen = options(Setting(threads=3, arena=False, spinning="off"))
    assert (chosen.intra_op_num_threads, chosen.enable_cpu_mem_arena) == (3, False)
    assert chosen.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    chosen = options(Setting())
    assert (chosen.intra_op_num_threads, chosen.enable_cpu_mem_arena) == (1, True)
    assert chosen.get_session_config_entry("session.force_spinning_stop") == "1"
    used = {s.spinning for settings in TABLES.values() for s in settings.values()}
    assert used == set(SPINNING)


def test_processes_and_requests_add_up(file: Path) -> None:
    pause = 0.05  # far longer than an explanation: each request thread does about 20 a second
    one = measure(file, Setting(pause=pause), 0.5)
    four = measure(file, Setting(processes=2, requests=2, pause=pause), 0.5)
    assert 2 < one["rate"] < 20
    assert 1.5 * one["rate"] < four["rate"] < 80
    assert 1.5 * one["memory"] < four["memory"]
    assert 0 < one["processor"] < pause


def test_what_the_arena_holds_is_read_after_each_step(file: Path) -> None:
    *held, milliseconds = hold(file, "arena off")
    assert len(held) == 3
    assert min(held) > 10, "megabytes of a process"
    assert milliseconds > 0


def test_a_forked_child_that_loads_its_own_explains(file: Path) -> None:
    command = [sys.executable, str(TOOL), str(file), "--fork", FORK_CASES[-1], "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "explains\n"
