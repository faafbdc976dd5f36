"""What the driver and a worker say to each other: one line of JSON each way, one at a time.

The driver writes ``[command, argument]`` to the worker's standard input and waits for the answer:

- ``["load", null]``: import what the engine needs -> ``{}``;
- ``["prepare", N]``: get ready for a batch of N images and warm up -> ``{"names": [...]}``;
- ``["run", [n, rest]]``: time each contestant n times, in random order, after `rest` untimed runs
  -> ``{"seconds": {name: [...]}}``;
- ``["maps", PATH]``: save the heat maps ``(N, H, W)`` -> ``{"saved": true}``, false without any;
- ``["report", [package, ...]]``: -> ``{"peak": bytes, "versions": {...}, "installed": bytes}``.

An answer ``{"error": ...}`` holds the reason in one line. A worker that was not asked does nothing,
so that only one of them loads the machine.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]


class WorkerError(Exception):
    """A worker failed, ended or did not answer; the message is the reason in one line."""


@dataclass(frozen=True)
class Task:
    """What a worker is told at its start.

    Attributes:
        factory: ``module:function`` that makes its engine of this task.
        subject: name of the model.
        model: the original ONNX file.
        exported: the exported file, and likewise `fused`; empty where there is none.
        fused: the file with the CAM in its graph.
        layer: as ``--layer``.
        tensor: name of the target tensor in `model`.
        form: how that tensor lies, see `subjects`.
        shape: of one image, ``(C, H, W)``.
        threads: number of threads.
        folder: where it may write.
    """

    factory: str
    subject: str
    model: str
    exported: str = ""
    fused: str = ""
    layer: str = "auto"
    tensor: str = ""
    form: str = "map"
    shape: tuple[int, ...] = (3, 224, 224)
    threads: int = 1
    folder: str = ""

    def to_json(self) -> str:
        """Return it as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Return what `to_json` wrote."""
        return cls(**json.loads(line))


class Worker:
    """A worker process, seen by the driver. A context manager: leaving it ends the process.

    Args:
        python: the interpreter to run it with.
        task: what it is for.
        log: where its standard error goes.
        limit_s: how long it may take for one answer.
    """

    def __init__(self, python: str, task: Task, log: Path, limit_s: float = 300) -> None:
        """Start the process; it loads nothing heavy before it is asked."""
        self._log = log
        self._limit_s = limit_s
        threads = str(task.threads)
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        pools = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [python, "-m", "tools.bench.worker", task.to_json()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                cwd=ROOT,
                env={**os.environ, **pools, "PYTHONPATH": os.pathsep.join(paths)},
            )

    def __enter__(self) -> Self:
        """Return the worker."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self.close()

    def close(self) -> None:
        """End the process: by the end of its input, else by force."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def start_loading(self) -> None:
        """Have it import its libraries, without waiting: several do so at once."""
        self._send("load", None)

    def loaded(self) -> None:
        """Wait for what `start_loading` began."""
        self._answer()

    def prepare(self, batch: int) -> list[str]:
        """Have it get ready for a batch size and warm up; return the names of its contestants."""
        return list(self._ask("prepare", batch)["names"])

    def run(self, times: int, untimed: int = 0) -> dict[str, list[float]]:
        """Have it time its contestants; return seconds by contestant."""
        return dict(self._ask("run", [times, untimed])["seconds"])

    def save_maps(self, path: Path) -> bool:
        """Have it save its heat maps; return whether it has any."""
        return bool(self._ask("maps", str(path))["saved"])

    def report(self, packages: tuple[str, ...] = ()) -> Mapping[str, Any]:
        """Return its peak memory in bytes, the versions of packages, the size of all it loaded."""
        return self._ask("report", packages)

    def _ask(self, command: str, argument: Any) -> dict[str, Any]:
        self._send(command, argument)
        return self._answer()

    def _send(self, command: str, argument: Any) -> None:
        stream = self._process.stdin
        assert stream is not None
        with suppress(BrokenPipeError):  # it ended: there will be no answer
            stream.write(json.dumps([command, argument]).encode() + b"\n")
            stream.flush()

    def _answer(self) -> dict[str, Any]:
        """Return its answer.

        Raises:
            WorkerError: it failed, ended, or took too long.
        """
        answer = json.loads(self._line())
        if "error" in answer:
            raise WorkerError(answer["error"])
        return dict(answer)

    def _line(self) -> bytes:
        """Return the next line of its output.

        Raises:
            WorkerError: none comes.
        """
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        until = time.monotonic() + self._limit_s
        received = b""
        while not received.endswith(b"\n"):
            ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                self._process.kill()
                raise WorkerError(f"no answer within {self._limit_s:.0f} s")
            piece = os.read(pipe, 1 << 16)
            if not piece:
                raise WorkerError(self._last_words())
            received += piece
        return received

    def _last_words(self) -> str:
        code = self._process.wait()
        lines = self._log.read_text("utf-8", errors="replace").strip().splitlines()
        return f"the process ended with {code}: {lines[-1] if lines else 'it said nothing'}"
