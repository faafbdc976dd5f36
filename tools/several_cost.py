"""Measure what several classes of one image cost in one run, and write docs/several-classes.md.

    python tools/several_cost.py MODEL.onnx [MODEL.onnx ...] [--threads 2]

For each model and each number of classes T: the original file, the file exported with ``--several``
run for T classes, and the one without, run on a batch of T copies of the image. In turn, many
times; ratios of medians from this one run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnx_gradcam  # noqa: E402
from onnx_gradcam.contract import CLASS_INPUT  # noqa: E402
from tools.timing import Timing, interleaved, session_options  # noqa: E402

COUNTS = (1, 2, 5, 10, 50)
PLAIN = "plain"


def measure(path: Path, threads: int, repetitions: int) -> dict[str, Timing]:
    """Return the timings of all contestants: ``plain``, ``several T``, ``batch T``."""
    open_session = partial(
        onnxruntime.InferenceSession,
        sess_options=session_options(threads),
        providers=["CPUExecutionProvider"],
    )
    plain = open_session(path)
    sessions = {}
    for name, several in (("batch", False), ("several", True)):
        with tempfile.TemporaryDirectory() as folder:
            exported = Path(folder) / "exported.onnx"
            onnx_gradcam.export_model(path, exported, several=several, verify=False)
            sessions[name] = open_session(exported)
    node = plain.get_inputs()[0]
    shape = [1, *(d if isinstance(d, int) else 224 for d in node.shape[1:])]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    def run(session: Any, image: Any, classes: Any) -> None:
        session.run(None, {node.name: image, CLASS_INPUT: classes})

    contestants = {PLAIN: lambda: plain.run(None, {node.name: x})}
    for count in COUNTS:
        classes = np.arange(count)
        contestants[f"several {count}"] = partial(run, sessions["several"], x, classes[None])
        if count <= 10:
            copies = np.repeat(x, count, axis=0)
            contestants[f"batch {count}"] = partial(run, sessions["batch"], copies, classes)
    return interleaved(contestants, repetitions)


def rows(name: str, times: dict[str, Timing]) -> list[str]:
    """Return the rows of one model in Markdown."""
    plain = times[PLAIN].median
    found = []
    for count in COUNTS:
        several, batch = times[f"several {count}"], times.get(f"batch {count}")
        more = several.median - times["several 1"].median
        each = "" if count == 1 else f"{more / (count - 1) * 1e3:.2f}"
        in_batch = "" if batch is None else f"{batch.median / plain:.2f}"
        found.append(
            f"| {name} | {count} | {plain * 1e3:.1f} | {several.median / plain:.2f} | {in_batch}"
            f" | {each} |"
        )
    return found


HEADER = """# What several classes of an image cost

Written by `tools/several_cost.py`: onnxruntime {version}, CPU provider, {threads} threads, one
image, medians of {repetitions} repetitions, all contestants in turn. *one run*: a file exported
with `--several`, T classes in one run. *batch*: the file without it, T copies of the image. Both
over plain inference of one image. *each further class*: milliseconds that one more class adds.

| model | T | plain, ms | one run / plain | batch / plain | each further class, ms |
|---|---|---|---|---|---|
"""


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "several-classes.md")
    arguments = parser.parse_args()
    lines = []
    for path in arguments.models:
        lines += rows(path.stem, measure(path, arguments.threads, arguments.repetitions))
        print("\n".join(lines[-len(COUNTS) :]), flush=True)
    header = HEADER.format(
        version=onnxruntime.__version__,
        threads=arguments.threads,
        repetitions=arguments.repetitions,
    )
    arguments.output.write_text(header + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
