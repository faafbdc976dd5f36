"""A worker process: ``python -m tools.bench.worker TASK``, see `protocol`.

Its standard output carries answers alone: what libraries print goes to standard error.
"""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tools.bench.protocol import Task

Array = NDArray[Any]

WARM_UP, WARM_UP_S = 3, 1.0
"""So many untimed runs of each contestant at first, none after so many seconds."""


@dataclass(frozen=True)
class Prepared:
    """What an engine can do with a batch of images.

    Attributes:
        contestants: name -> function without arguments, to be timed.
        maps: gives heat maps float32 ``(N, H, W)`` in [0, 1]; None where there are none.
    """

    contestants: Mapping[str, Callable[[], object]]
    maps: Callable[[], Array] | None = None


Prepare = Callable[[Array], Prepared]
"""What a factory returns: images float32 ``(N, C, H, W)`` in, everything ready to be timed out."""


class Server:
    """The worker's side of the protocol.

    Args:
        task: what the driver told.
    """

    def __init__(self, task: Task) -> None:
        """Load nothing yet: a failure is to be an answer."""
        self._task = task
        self._factory: Callable[[Task], Prepare]
        self._prepare: Prepare | None = None
        self._prepared = Prepared({})
        self._order = random.Random(0)

    def load(self, _: None) -> dict[str, Any]:
        """Import the engine's module, which computes nothing yet."""
        module, name = self._task.factory.split(":")
        self._factory = getattr(import_module(module), name)
        return {}

    def prepare(self, batch: int) -> dict[str, Any]:
        """Get ready for a batch of this size, and warm up."""
        if self._prepare is None:
            self.load(None)
            self._prepare = self._factory(self._task)
        self._prepared = Prepared({})
        gc.collect()  # what another batch size needed
        shape = (batch, *self._task.shape)
        images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        self._prepared = self._prepare(images)
        for run in self._prepared.contestants.values():
            start = time.perf_counter()
            for _ in range(WARM_UP):
                run()
                if time.perf_counter() - start > WARM_UP_S:
                    break
        return {"names": list(self._prepared.contestants)}

    def run(self, counts: tuple[int, int]) -> dict[str, Any]:
        """Time the contestants in turn, each time in another order."""
        times, untimed = counts
        contestants = dict(self._prepared.contestants)
        for run in contestants.values():
            for _ in range(untimed):
                run()
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(times):
            for name in self._order.sample(list(contestants), len(contestants)):
                run = contestants[name]
                start = time.perf_counter()
                run()
                seconds[name].append(round(time.perf_counter() - start, 7))
        return {"seconds": seconds}

    def maps(self, path: str) -> dict[str, Any]:
        """Save the heat maps."""
        if self._prepared.maps is None:
            return {"saved": False}
        np.save(path, self._prepared.maps())
        return {"saved": True}

    def report(self, packages: list[str]) -> dict[str, Any]:
        """Return peak memory, versions, and the installed size of every package it loaded."""
        versions = {name: metadata.version(name) for name in packages}
        return {"peak": peak_memory(), "versions": versions, "installed": installed_size()}


def peak_memory() -> int:
    """Return the most memory that this process ever held, in bytes.

    Linux counts in ``ru_maxrss`` what the parent held when it started the process; VmHWM does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def installed_size() -> int:
    """Return the size in bytes of the installed packages whose modules are loaded."""
    loaded = {name.partition(".")[0] for name, module in sys.modules.items() if module}
    owners = metadata.packages_distributions()
    found = {owner for name in loaded for owner in owners.get(name, ())}
    files = (file for owner in found for file in metadata.files(owner) or ())
    return sum(file.size or 0 for file in files)


def serve(server: Server, commands: IO[str], answers: IO[str]) -> None:
    """Answer commands until there are no more."""
    table: dict[str, Callable[[Any], dict[str, Any]]] = {
        "load": server.load,
        "prepare": server.prepare,
        "run": server.run,
        "maps": server.maps,
        "report": server.report,
    }
    for line in commands:
        command, argument = json.loads(line)
        try:
            answer = table[command](argument)
        except Exception as error:  # an engine's failure is a result
            traceback.print_exc()
            answer = {"error": one_line(error)}
        print(json.dumps(answer), file=answers, flush=True)


def one_line(error: Exception) -> str:
    """Return the kind of an error and the beginning of its message."""
    text = " ".join(str(error).split())
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__


def main() -> None:
    """Serve the process's standard streams."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(Server(Task.from_json(sys.argv[1])), sys.stdin, answers)


if __name__ == "__main__":
    main()
