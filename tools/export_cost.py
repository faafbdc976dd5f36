"""Measure what exporting, starting and loading cost, and write docs/export-cost.md.

    python tools/export_cost.py export MODEL.onnx [MODEL.onnx ...]
    python tools/export_cost.py large [--gigabytes 2.5] [--folder DIR]
    python tools/export_cost.py start
    python tools/export_cost.py load MODEL.onnx [MODEL.onnx ...]

Each part replaces its own figures in docs/export-cost.json; the page is written from all of them.
An export without verification is compared with what reading and writing the same file costs
(`onnx.load` and `onnx.save`), each in a process of its own, in turn; `load` with the creation of
an onnxruntime session with the same options, in turn in one process. Needs Linux (/proc).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.export_cost_page import Figures, page  # noqa: E402

PAGE = ROOT / "docs" / "export-cost.md"
READ_AND_WRITE = "read and write"
WORKER = b"training_worker.py"
"""In the command line of the process in which onnxruntime-training builds the gradient."""


class Builder:
    """Samples the memory of the gradient builder's process, a child of this one, in a thread."""

    def __init__(self) -> None:
        """Start sampling."""
        self._peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        while not self._done.wait(0.002):
            for pid in children.read_text().split():
                try:
                    command = Path(f"/proc/{pid}/cmdline").read_bytes()
                    if WORKER in command:  # before, it still has this process's memory
                        self._peak = max(self._peak, peak_memory(pid))
                except (OSError, KeyError):  # it has ended
                    continue

    def peak(self) -> int:
        """Stop, and return the highest figure seen, in bytes; 0 where there was no such process."""
        self._done.set()
        self._thread.join()
        return self._peak


def peak_memory(pid: int | str = "self") -> int:
    """Return the peak memory of a process in bytes.

    Raises:
        KeyError: the process has none any more.
    """
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise KeyError(pid)


def run_step(step: str, model: Path, output: Path) -> Figures:
    """Export a model, or read and write it, in this process, and return what that took."""
    import onnx

    import onnx_gradcam

    onnx_gradcam.export_model  # noqa: B018  # import it
    before, builder = peak_memory(), Builder()
    start = time.perf_counter()
    if step == READ_AND_WRITE:
        onnx.save(onnx.load(model, load_external_data=False), output)
    else:
        onnx_gradcam.export_model(model, output, gradient_builder=step, verify=False)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "imported": before,
        "peak": peak_memory(),
        "builder_peak": builder.peak(),
    }


def measure_export(model: Path, repetitions: int, folder: Path | None = None) -> Figures:
    """Return what the steps take for one model, the medians of some repetitions."""
    steps = [READ_AND_WRITE, "reverse"]
    if os.environ.get("ONNX_GRADCAM_BUILDER"):
        steps.append("onnxruntime-training")
    runs: dict[str, list[Figures]] = {step: [] for step in steps}
    for _ in range(repetitions):
        for step in steps:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                runs[step].append(_in_a_process(step, model, Path(scratch) / "exported.onnx"))
    medians = {
        step: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for step, found in runs.items()
    }
    return {"bytes": _size(model), "steps": medians}


def _in_a_process(step: str, model: Path, output: Path) -> Figures:
    command = [sys.executable, __file__, "step", step, str(model), str(output)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def _size(model: Path) -> int:
    data = model.with_suffix(".data")
    return model.stat().st_size + (data.stat().st_size if data.is_file() else 0)


def measure_large(gigabytes: float, folder: Path | None) -> dict[str, Figures]:
    """Return what a model with external data takes, and copying its files."""
    from tools.large_model import write_model

    with tempfile.TemporaryDirectory(dir=folder) as name:
        model = Path(name) / "large.onnx"
        write_model(model, gigabytes)
        copies = [_copy(model.with_suffix(".data")) for _ in range(2)]
        figures = measure_export(model, 1, Path(name))
        return {f"{gigabytes:g} GB, external data": {**figures, "copy_seconds": min(copies)}}


def _copy(data: Path) -> float:
    """Return the seconds that it takes to copy a file, to the device."""
    copy = data.with_suffix(".copy")
    start = time.perf_counter()
    with data.open("rb") as source, copy.open("wb") as target:
        while chunk := source.read(1 << 24):
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    seconds = time.perf_counter() - start
    copy.unlink()
    return seconds


def measure_start(repetitions: int) -> dict[str, Figures]:
    """Return the wall-clock time of commands that are started again and again, in turn."""
    commands = {
        "python -c pass": ["-c", "pass"],
        "python -c 'import click'": ["-c", "import click"],
        "onnx-gradcam --help": ["-m", "onnx_gradcam", "--help"],
        "onnx-gradcam export --help": ["-m", "onnx_gradcam", "export", "--help"],
        "onnx-gradcam explain --help": ["-m", "onnx_gradcam", "explain", "--help"],
        "python -c 'import onnxruntime'": ["-c", "import onnxruntime"],
        "python -c 'from onnx_gradcam import load'": ["-c", "from onnx_gradcam import load"],
    }
    runs = {name: partial(_start, words) for name, words in commands.items()}
    return {name: _spread(seconds) for name, seconds in in_turn(runs, repetitions).items()}


def _start(words: Sequence[str]) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def measure_load(model: Path, repetitions: int) -> Figures:
    """Return what loading an export takes, and creating an onnxruntime session of it."""
    import onnxruntime

    import onnx_gradcam
    from tools.timing import session_options

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "exported.onnx"
        onnx_gradcam.export_model(model, file, verify=False)
        cpu = ["CPUExecutionProvider"]
        runs: dict[str, Callable[[], object]] = {
            "session": lambda: onnxruntime.InferenceSession(
                file, session_options(1), providers=cpu
            ),
            "load": lambda: onnx_gradcam.load(
                file, device="cpu", session_options=session_options(1)
            ),
        }
        seconds = in_turn(runs, repetitions)
    pairs = zip(seconds["load"], seconds["session"], strict=True)
    added = statistics.median(load - session for load, session in pairs)
    return {**{name: _spread(found) for name, found in seconds.items()}, "added": added}


def in_turn(runs: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Return the seconds of each repetition; the order is turned round every time."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for repetition in range(repetitions):
        for name in list(runs)[:: -1 if repetition % 2 else 1]:
            start = time.perf_counter()
            made = runs[name]()
            seconds[name].append(time.perf_counter() - start)
            del made
    return seconds


def _spread(seconds: Sequence[float]) -> Figures:
    low, median, high = statistics.quantiles(seconds, n=4)
    return {"median": median, "low": low, "high": high}


def machine() -> str:
    """Return what matters of the machine: ``2 cores, AVX2``."""
    flags = Path("/proc/cpuinfo").read_text()
    widest = next((n for n in ("avx512f", "avx2", "avx") if n in flags), "")
    names = {"avx512f": ", AVX-512", "avx2": ", AVX2", "avx": ", AVX"}
    return f"{os.cpu_count()} cores{names.get(widest, '')}"


def main() -> None:
    """Measure a part and write JSON and page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=PAGE)
    parts = parser.add_subparsers(dest="part", required=True)
    export = parts.add_parser("export")
    load = parts.add_parser("load")
    for part, repetitions in ((export, 3), (load, 15)):
        part.add_argument("models", nargs="+", type=Path)
        part.add_argument("--repetitions", type=int, default=repetitions)
    large = parts.add_parser("large")
    large.add_argument("--gigabytes", type=float, default=2.5)
    large.add_argument("--folder", type=Path)
    parts.add_parser("start").add_argument("--repetitions", type=int, default=15)
    step = parts.add_parser("step")
    step.add_argument("step")
    step.add_argument("model", type=Path)
    step.add_argument("output_file", type=Path)
    asked = parser.parse_args()
    if asked.part == "step":
        print(json.dumps(run_step(asked.step, asked.model, asked.output_file)))
        return
    record = asked.output.with_suffix(".json")
    figures: Figures = json.loads(record.read_text()) if record.exists() else {}
    figures["machine"] = machine()
    found = figures.setdefault(asked.part, {})
    if asked.part == "large":
        found.update(measure_large(asked.gigabytes, asked.folder))
    elif asked.part == "start":
        found.update(measure_start(asked.repetitions))
    else:
        measure = measure_export if asked.part == "export" else measure_load
        found.update({m.stem: measure(m, asked.repetitions) for m in asked.models})
    record.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    asked.output.write_text(page(figures), encoding="utf-8")
    print(page(figures))


if __name__ == "__main__":
    main()
