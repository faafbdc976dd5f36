"""Runs the training worker in a process of its own, and tells how it ended.

In: the folder of onnxruntime-training, the Python that runs it, a request. Out: the response, or
an error that says what happened: refused, crashed, too slow, not loadable.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LOG_LINE = re.compile(r"\[[VIW]:onnxruntime:")
_WORKER = Path(__file__).with_name("training_worker.py")


class WorkerError(Exception):
    """The worker gave no answer: it crashed, took too long or could not be started."""


@dataclass(frozen=True)
class Response:
    """What the worker answered.

    Attributes:
        ok: whether it did what was asked.
        version: version of onnxruntime-training, empty when it could not be loaded.
        kind: ``import`` or ``gradient``: what failed; empty when ok.
        error: the message of onnxruntime-training; empty when ok.
        model: bytes of the model with gradient nodes; empty without one.
    """

    ok: bool
    version: str = ""
    kind: str = ""
    error: str = ""
    model: bytes = b""


def isolation_flags(python: Path) -> tuple[str, ...]:
    """Return the flags to start `python` with.

    Another Python must not see this one's PYTHONPATH; this one may need it to find numpy.
    """
    return () if python == Path(sys.executable) else ("-I",)


def run_worker(
    folder: Path,
    python: Path,
    header: Mapping[str, Any],
    model: bytes = b"",
    *,
    timeout: float = 600.0,
) -> Response:
    """Let the worker answer one request.

    Args:
        folder: holds the unpacked onnxruntime-training.
        python: the interpreter that runs it.
        header: ``targets`` and ``loss``; empty to try the import alone.
        model: bytes of the model; empty to try the import alone.
        timeout: seconds to wait.

    Raises:
        WorkerError: no answer, and why.
    """
    with tempfile.TemporaryDirectory(prefix="onnx_gradcam-") as scratch:
        request, response = Path(scratch, "request"), Path(scratch, "response")
        with request.open("wb") as file:
            file.write(json.dumps(dict(header)).encode() + b"\n")
            file.write(model)
        files = [str(folder), str(request), str(response)]
        try:
            done = subprocess.run(
                [str(python), *isolation_flags(python), str(_WORKER), *files],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise WorkerError(f"gave no answer within {timeout:g} s") from None
        except OSError as error:
            raise WorkerError(f"{python} cannot be started ({error.strerror})") from None
        if done.returncode or not response.is_file():
            raise WorkerError(_how_it_ended(done))
        line, _, result = response.read_bytes().partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return Response(**answer, model=result)


def _how_it_ended(done: subprocess.CompletedProcess[str]) -> str:
    """Return how a worker without an answer ended, with the last line that it wrote."""
    try:
        end = f"was killed by {signal.Signals(-done.returncode).name}"
    except ValueError:
        end = f"ended with status {done.returncode}"
    lines = (line.strip() for line in (done.stderr or done.stdout).splitlines())
    said = [line for line in lines if line and not _LOG_LINE.search(line)]
    return f"{end} ({said[-1][:300]})" if said else end
