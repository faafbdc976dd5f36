"""Compare the speed of ONNX graphs side by side: interleaved repetitions, medians, spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime


@dataclass(frozen=True)
class Timing:
    """Durations of one contestant, in seconds.

    Attributes:
        median: of all repetitions.
        low: 25th percentile.
        high: 75th percentile.
    """

    median: float
    low: float
    high: float


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return options with a fixed number of threads that stop spinning between runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def interleaved(
    contestants: Mapping[str, Callable[[], object]],
    repetitions: int,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time the contestants in turn, so that what else the machine does hits all alike.

    Args:
        contestants: name -> function without arguments.
        repetitions: how often each is timed.
        warmup: how often each runs before.
        clock: seconds; `time.thread_time` for what runs in one thread, on a machine that is busy.
    """
    for run in contestants.values():
        for _ in range(warmup):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repetitions):
        for name, run in contestants.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {
        name: Timing(*(float(np.percentile(values, p)) for p in (50, 25, 75)))
        for name, values in seconds.items()
    }
