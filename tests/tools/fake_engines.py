"""Engines for the tests of the benchmark: what a worker process does is told by the factory."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from tools.bench.protocol import Task
from tools.bench.worker import Array, Prepare, Prepared


def gradient_map(images: Array) -> Array:
    count, _, height, width = images.shape
    ramp = np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width)
    return np.stack([ramp] * count)


def steady(task: Task) -> Prepare:
    """Sleeps, and notes from when to when in a file that all workers append to."""

    def prepare(images: Array) -> Prepared:
        def run() -> None:
            start = time.monotonic()
            time.sleep(0.004)
            with Path(task.folder, "turns.txt").open("a") as stream:
                stream.write(f"{os.getpid()} {start} {time.monotonic()}\n")

        return Prepared({"anything": run}, lambda: gradient_map(images))

    return prepare


def talkative(task: Task) -> Prepare:
    print("this goes to standard output", flush=True)
    return lambda images: Prepared({"a": lambda: None, "b": lambda: time.sleep(0.01)})


def other_method(task: Task) -> Prepare:
    return lambda images: Prepared({"other": lambda: None}, lambda: 1 - gradient_map(images))


def blank(task: Task) -> Prepare:
    return lambda images: Prepared({"blank": lambda: None}, lambda: 0 * gradient_map(images))


def failing(task: Task) -> Prepare:
    raise NotImplementedError("no layer of\n that kind")


def dying(task: Task) -> Prepare:
    def run() -> None:
        print("out of memory", flush=True)
        os._exit(3)

    return lambda images: Prepared({"dying": run})


def hanging(task: Task) -> Prepare:
    return lambda images: Prepared({"hanging": lambda: time.sleep(60)})


def dying_later(task: Task) -> Prepare:
    """Ends the process in its second turn."""
    runs = iter(range(10))

    def run() -> None:
        if next(runs, None) is None:
            os._exit(0)

    return lambda images: Prepared({"dying": run}, lambda: gradient_map(images))
