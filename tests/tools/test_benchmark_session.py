"""The benchmark's processes: what they answer, and that only one of them runs at a time."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.tools import fake_engines
from tools.bench.contestants import EXPLAINED, PLAIN, Engine
from tools.bench.files import ModelFiles
from tools.bench.protocol import Task, Worker, WorkerError
from tools.bench.results import Cell
from tools.bench.session import TURNS, DifferentError, Driver, Plan, difference
from tools.bench.subjects import Subject

SHAPE = (3, 4, 5)
FAKES = "tests.tools.fake_engines"


def worker(folder: Path, name: str, limit_s: float = 60) -> Worker:
    task = Task(factory=f"{FAKES}:{name}", subject="fake", model="", shape=SHAPE, threads=1)
    return Worker(sys.executable, task, folder / "log.txt", limit_s)


def test_a_worker_answers_whatever_is_printed_beside(tmp_path: Path) -> None:
    with worker(tmp_path, "talkative") as talkative:
        talkative.start_loading()
        talkative.loaded()
        assert talkative.prepare(2) == ["a", "b"]
        seconds = talkative.run(3, untimed=1)
        assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}
        assert max(seconds["a"]) < 0.01 <= min(seconds["b"])
        assert not talkative.save_maps(tmp_path / "maps.npy")
        report = talkative.report(("numpy",))
    assert report["versions"] == {"numpy": np.__version__}
    assert 10e6 < report["peak"] < 1e9
    assert 10e6 < report["installed"] < 1e9
    assert "this goes to standard output" in (tmp_path / "log.txt").read_text()


def test_a_worker_saves_its_maps(tmp_path: Path) -> None:
    task = Task(f"{FAKES}:steady", "fake", "", shape=SHAPE, folder=str(tmp_path))
    with Worker(sys.executable, task, tmp_path / "log.txt") as steady:
        steady.prepare(2)
        assert steady.save_maps(tmp_path / "maps.npy")
    images = np.zeros((2, *SHAPE), np.float32)
    np.testing.assert_array_equal(np.load(tmp_path / "maps.npy"), fake_engines.gradient_map(images))


@pytest.mark.parametrize(
    ("name", "limit_s", "reason"),
    [
        ("failing", 60, "NotImplementedError: no layer of that kind"),
        ("dying", 60, "the process ended with 3: out of memory"),
        ("hanging", 1, "no answer within 1 s"),
        ("nobody", 60, "AttributeError: module .* has no attribute 'nobody'"),
    ],
)
def test_why_a_worker_fails(tmp_path: Path, name: str, limit_s: float, reason: str) -> None:
    with worker(tmp_path, name, limit_s) as bad, pytest.raises(WorkerError, match=reason):
        bad.prepare(1)


def fake_driver(folder: Path, **engines: str) -> Driver:
    plan = Plan(
        own_python=sys.executable,
        peer_python=sys.executable,
        engines=(PLAIN, EXPLAINED, *engines),
        layers={},
        peer_layers={"auto": (1, 2)},
        threads=1,
        seconds=0,
        repetitions=(3, 3),
        models=folder,
    )
    factories = {PLAIN: "steady", EXPLAINED: "steady", **engines}
    table = {
        name: Engine(name, f"{FAKES}:{factory}", packages=("numpy",), compared=name != PLAIN)
        for name, factory in factories.items()
    }
    return Driver(plan, folder, engines=table)


def cells_of(driver: Driver, folder: Path) -> list[Cell]:
    files = ModelFiles(folder / "model.onnx", folder, "A", "reverse", SHAPE)
    return list(driver.in_turn(Subject("fake"), "auto", files))


def test_engines_run_one_at_a_time(tmp_path: Path) -> None:
    driver = fake_driver(tmp_path, third="steady")
    cells = cells_of(driver, tmp_path)
    assert [cell.batch for cell in cells] == [1, 2]
    for cell in cells:
        assert not cell.failures
        assert {name: len(turns) for name, turns in cell.turns.items()} == dict.fromkeys(
            (PLAIN, EXPLAINED, "third"), TURNS[0]
        )
        assert cell.differences == {EXPLAINED: 0, "third": 0}
        assert set(cell.peaks) == {PLAIN, EXPLAINED, "third"}
    assert driver.versions == {"numpy": np.__version__}
    lines = [line.split() for line in (tmp_path / "turns.txt").read_text().splitlines()]
    assert len({process for process, _, _ in lines}) == 3
    runs = sorted((float(start), float(end)) for _, start, end in lines)
    assert all(end <= start for (_, end), (start, _) in pairwise(runs))


def test_what_is_not_timed_and_why(tmp_path: Path) -> None:
    driver = fake_driver(tmp_path, other="other_method", broken="failing", late="dying_later")
    first, second = cells_of(driver, tmp_path)
    assert first.failures["other"] == "heat maps differ from ours by 1: something else"
    assert first.failures["broken"] == "NotImplementedError: no layer of that kind"
    assert first.failures["late"].startswith("the process ended with 0")
    assert second.failures["late"].startswith("the process ended with 0")
    for cell in (first, second):
        assert set(cell.turns) == {PLAIN, EXPLAINED}


def test_heat_maps_that_prove_nothing_are_refused() -> None:
    maps = np.stack([np.eye(3), np.eye(3)])
    other = maps.copy()
    other[1, 0, 2] = 0.002
    assert difference(other, maps) == pytest.approx(0.002)
    assert difference(0.98 * maps, maps) == pytest.approx(0, abs=1e-9)
    with pytest.raises(DifferentError, match="by 1:"):
        difference(0 * maps, maps)
    with pytest.raises(DifferentError, match="shows nothing"):
        difference(0 * maps, 0 * maps)
    with pytest.raises(DifferentError, match=r"shape \(2, 3\), ours have \(2, 3, 3\)"):
        difference(maps[:, 0], maps)
    with pytest.raises(DifferentError, match="no heat maps of ours"):
        difference(maps, None)
    with pytest.raises(DifferentError, match="by nan"):
        difference(np.full_like(maps, np.nan), maps)
