from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnx_gradcam.pipeline import overlapped
from tests.pipeline.threads import pipeline_threads


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert pipeline_threads() == []


def reversed_delays(number: int) -> int:
    time.sleep(0.002 * (5 - number % 6))  # later ones are done sooner
    return number * number


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 23])
def test_results_are_those_of_map_in_order(workers: int, count: int) -> None:
    assert list(overlapped(reversed_delays, range(count), workers)) == [
        number * number for number in range(count)
    ]


def test_workers_work_at_the_same_time() -> None:
    meeting = threading.Barrier(3)
    # each call waits until three are there
    names = list(overlapped(lambda _: meeting.wait(20) >= 0, range(6), 3))
    assert names == [True] * 6


def test_one_worker_is_the_thread_that_asks() -> None:
    here = threading.current_thread()
    assert list(overlapped(lambda _: threading.current_thread(), "abc", 1)) == [here] * 3
    others = set(overlapped(lambda _: threading.current_thread(), "abc", 2))
    assert here not in others


def test_nothing_happens_before_the_first_result_is_asked_for() -> None:
    called: list[int] = []
    results = overlapped(called.append, range(5), 2)
    assert (called, pipeline_threads()) == ([], [])
    results.close()


@pytest.mark.parametrize("ahead", [1, 3, 8])
def test_the_way_ahead_is_bounded(ahead: int) -> None:
    read = 0

    def endless() -> Iterator[int]:
        nonlocal read
        while True:
            read += 1
            yield read

    results = overlapped(lambda number: number, endless(), 2, ahead)
    for handed_out, number in enumerate(itertools.islice(results, 40), start=1):
        time.sleep(0.001)  # a slow reader
        assert number == handed_out
        assert read - handed_out <= ahead
    assert read == 39 + ahead
    results.close()


def broken_at(wrong: int, number: int) -> int:
    if number == wrong:
        raise LookupError(f"number {number}")
    return number


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_comes_in_its_turn(workers: int) -> None:
    started: list[int] = []

    def work(number: int) -> int:
        started.append(number)
        return broken_at(7, number)

    results = overlapped(work, itertools.count(), workers)
    assert list(itertools.islice(results, 7)) == list(range(7))
    with pytest.raises(LookupError, match="number 7"):
        next(results)
    assert pipeline_threads() == []
    assert max(started) <= 7 + 4 * workers
    assert list(results) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_of_the_sources_comes_in_its_turn(workers: int) -> None:
    sources = (broken_at(5, number) for number in itertools.count())
    results = overlapped(reversed_delays, sources, workers)
    assert list(itertools.islice(results, 5)) == [0, 1, 4, 9, 16]
    with pytest.raises(LookupError, match="number 5"):
        next(results)


def test_a_generator_that_is_closed_leaves_no_thread_and_drops_the_rest() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        time.sleep(0.005)
        done.append(number)
        return number

    results = overlapped(work, itertools.count(), 2, 50)
    assert next(results) == 0
    results.close()
    assert pipeline_threads() == []
    assert len(done) < 50
    time.sleep(0.02)
    assert max(done) < 60


def test_a_generator_that_is_forgotten_leaves_no_thread() -> None:
    results = overlapped(reversed_delays, itertools.count(), 2)
    next(results)
    assert len(pipeline_threads()) == 2
    del results
    assert pipeline_threads() == []


def test_an_interrupt_ends_the_threads() -> None:
    results = overlapped(reversed_delays, itertools.count(), 2)
    next(results)
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)
    assert pipeline_threads() == []


def test_an_interpreter_that_ends_does_not_wait_for_what_nobody_asks_for() -> None:
    code = """
import itertools, time
from onnx_gradcam.pipeline import overlapped
results = overlapped(lambda n: time.sleep(0.01) or n, itertools.count(), 2)
print(next(results), next(results))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=root
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 1\n", "")
