"""Measure what a gate and `Explainer.predict` cost, and write the tables of docs/gate.md.

    python tools/gate_cost.py MODEL.onnx [MODEL.onnx ...] [--layer auto --layer 0]

For each model, in turn and many times: the original file; the gated file, closed and open; the
file without a gate; `Explainer.predict` of either. One thread, and its CPU time: that differs
by less from run to run than the costs that are measured. Ratios of medians of this one run.
Memory is that of processes of their own: what the program itself holds (not pages of files),
beyond what it held before it opened anything.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnx_gradcam  # noqa: E402
from onnx_gradcam.contract import GATE_INPUT  # noqa: E402
from tools.timing import interleaved, session_options  # noqa: E402

PAGE = ROOT / "docs" / "gate.md"
PLAIN, AGAIN, CLOSED, OPEN, UNGATED = "plain", "again", "closed", "open", "without a gate"
PREDICT, PREDICT_GATED = "predict", "predict, gated"
RATIOS = (
    (AGAIN, PLAIN),
    (CLOSED, PLAIN),
    (PREDICT_GATED, PLAIN),
    (PREDICT, PLAIN),
    (UNGATED, PLAIN),
    (OPEN, UNGATED),
)
HEADING = "## What it costs"
"""From here on, the page is written by this tool."""


@dataclass(frozen=True)
class Files:
    """The original model, and its exports."""

    original: Path
    plain: Path
    gated: Path

    @classmethod
    def exported(cls, model: Path, layer: str, folder: Path) -> Files:
        """Export a model with and without a gate."""
        files = cls(model, folder / "plain.onnx", folder / "gated.onnx")
        chosen = int(layer) if layer.isdecimal() else layer
        for file, gate in ((files.plain, False), (files.gated, True)):
            onnx_gradcam.export_model(model, file, layer=chosen, gate=gate, verify=False)
        return files


def image_for(shape: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Return a seeded image for an input of this shape."""
    sizes = [d if isinstance(d, int) else 224 if axis > 1 else 1 for axis, d in enumerate(shape)]
    return np.random.default_rng(0).standard_normal(sizes).astype(np.float32)


def measure(files: Files, repetitions: int) -> dict[str, float]:
    """Return the median of each contestant, in seconds."""
    open_session = partial(
        onnxruntime.InferenceSession,
        sess_options=session_options(1),
        providers=["CPUExecutionProvider"],
    )
    open_explainer = partial(onnx_gradcam.load, device="cpu", session_options=session_options(1))
    opened = [files.original, files.original, files.plain, files.gated]
    plain, again, ungated, gated = map(open_session, opened)
    explainers = [open_explainer(file) for file in (files.plain, files.gated)]
    image = image_for(plain.get_inputs()[0].shape)
    fed = {plain.get_inputs()[0].name: image}
    closed, open_ = (fed | {GATE_INPUT: np.array([value])} for value in (False, True))
    contestants: dict[str, Callable[[], object]] = {
        PLAIN: lambda: plain.run(None, fed),
        AGAIN: lambda: again.run(None, fed),
        CLOSED: lambda: gated.run(None, closed),
        OPEN: lambda: gated.run(None, open_),
        UNGATED: lambda: ungated.run(None, fed),
        PREDICT: lambda: explainers[0].predict(image),
        PREDICT_GATED: lambda: explainers[1].predict(image),
    }
    times = interleaved(contestants, repetitions, 3, time.thread_time)
    return {name: timing.median for name, timing in times.items()}


def memory(files: Files) -> list[float]:
    """Return megabytes: of the original, then of each export once it explained, and predicted."""
    found: list[float] = []
    for file in (files.original, files.plain, files.gated):
        kind = "session" if file == files.original else "explainer"
        command = [sys.executable, __file__, f"--hold={kind}", str(file)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found += map(float, printed.split())
    return found


def hold(kind: str, file: Path) -> Iterator[float]:
    """Open a file, run it, and yield how many megabytes that took so far."""
    before, options = _own_megabytes(), session_options(1)
    if kind == "session":
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        session.run(None, {session.get_inputs()[0].name: image_for(session.get_inputs()[0].shape)})
        yield _own_megabytes() - before
        return
    explainer = onnx_gradcam.load(file, device="cpu", session_options=options)
    image = image_for(explainer.image_input.shape)
    for run in (explainer.explain, explainer.predict):
        run(image)
        yield _own_megabytes() - before


def _own_megabytes() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["RssAnon"].split()[0]) / 1024


def row(model: Path, layer: str, repetitions: int) -> str:
    """Return the row of one model and layer in Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        files = Files.exported(model, layer, Path(folder))
        times = measure(files, repetitions)
        megabytes = memory(files)
    ratios = [f"{times[name] / times[base]:.3f}" for name, base in RATIOS]
    cells = [model.stem, layer, f"{times[PLAIN] * 1e3:.1f}", *ratios]
    return f"| {' | '.join([*cells, *(f'{value:.0f}' for value in megabytes)])} |"


HEADER = """{heading}

Written by `tools/gate_cost.py`: onnxruntime {version}, CPU provider, one image, one thread and its
CPU time; medians of 6 to 300 repetitions (more of the quick models), the contestants of a row in
turn. Layer `auto` is the penultimate one, `0` the first. *plain*: the original file; *again*: a
second session of it, which shows what the ratios are worth (the machine was busy). *predict*:
`Explainer.predict`, of the file without a gate by a session of its own, of the gated one by the
only session. Memory in megabytes: what a process holds of its own beyond what it held before, for
the original file run once, and for an `Explainer` after `explain`, and after `predict` as well.

| model | layer | plain, ms | again / plain | closed / plain | predict, gated / plain |\
 predict / plain | without a gate / plain | open / without a gate | memory: plain |\
 no gate: explain | + predict |\
 gate: explain | + predict |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""


def written(page: str) -> dict[tuple[str, str], str]:
    """Return the rows that a page holds already, by model and layer."""
    rows = [line for line in page.partition(HEADING)[2].splitlines() if line.startswith("| ")]
    cells = [(line, [cell.strip() for cell in line.split("|")]) for line in rows[1:]]
    return {(found[1], found[2]): line for line, found in cells}


def main() -> None:
    """Measure, and write the rows into the page; those of other models stay."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--layer", action="append", help="as for export; may be repeated")
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--hold", choices=["session", "explainer"], help="print what one takes")
    arguments = parser.parse_args()
    if arguments.hold:
        print(*hold(arguments.hold, arguments.models[0]))
        return
    page = PAGE.read_text(encoding="utf-8")
    rows = written(page)
    for model in arguments.models:
        for layer in arguments.layer or ["auto"]:
            rows[model.stem, layer] = row(model, layer, arguments.repetitions)
            print(rows[model.stem, layer], flush=True)
    header = HEADER.format(
        heading=HEADING,
        version=onnxruntime.__version__,
    )
    text = page.partition(HEADING)[0] + header + "\n".join(rows.values()) + "\n"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
