"""How many images to explain at a time, and with how many threads of onnxruntime each.

Measured (docs/throughput.md): as many workers as cores, each running the model on its own thread,
explain more images per second than one run that all cores share, since nothing waits for the
slowest of them between two operators.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnx_gradcam.cam import RERUNS, get_method
from onnx_gradcam.errors import UsageError
from onnx_gradcam.runtime.session import CPU, LOG_ERRORS_ONLY, import_onnxruntime

MOST_WORKERS = 16
"""Each worker holds a decoded photo and the tensors of a run; further cores help within a run."""

MOST_ON_A_DEVICE = 4
"""Likewise where the model runs on a GPU: the tensors of each run are in its memory, and more runs
than one hardly make it faster; the others decode and draw meanwhile."""


@dataclass(frozen=True)
class Division:
    """Who does what on a machine.

    Attributes:
        workers: how many images are under way at a time; 1 for one after another.
        intra_op_threads: onnxruntime's threads; None leaves the number to it.
    """

    workers: int
    intra_op_threads: int | None = None

    def workers_on(self, providers: Sequence[str]) -> int:
        """Return the workers for a session with these execution providers."""
        return self.workers if providers[0] == CPU else min(self.workers, MOST_ON_A_DEVICE)

    def session_options(self) -> Any:
        """Return an ``onnxruntime.SessionOptions`` for `load`, or None for its defaults."""
        if self.intra_op_threads is None:
            return None
        options = import_onnxruntime().SessionOptions()
        options.log_severity_level = LOG_ERRORS_ONLY
        options.intra_op_num_threads = self.intra_op_threads
        return options


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def divide(
    images: int | None = None, method: str | None = None, threads: int | None = None
) -> Division:
    """Return how to divide the cores for some images.

    A method that runs the model again, in batches of its own, gets all cores for one image.

    Args:
        images: how many there are; None for many.
        method: name of the CAM method.
        threads: how many threads to use; None for the number of cores.
    """
    total = threads or cores()
    many = total if images is None else images
    if many < 2 or total < 2 or _runs_again(method):
        return Division(1, threads)
    workers = min(many, total, MOST_WORKERS)
    # each worker is a thread of its own run; onnxruntime counts it as one of its threads
    return Division(workers, total - workers + 1)


def _runs_again(method: str | None) -> bool:
    try:
        return bool(RERUNS.intersection(get_method(method or "gradcam").needs))
    except UsageError:  # no such method: for the explainer to say
        return False
