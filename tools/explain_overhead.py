"""Measure what `Explainer.explain` adds to `session.run`, and where it goes.

    python tools/explain_overhead.py MODEL.onnx [MODEL.onnx ...] [--batch 1 --batch 8] [--threads 2]

For each model and batch size: the exported file run by itself for the outputs that `explain` asks
for, and `explain`, in turn, many times. What `explain` adds is its duration less that of the
``session.run`` within, so that runs of different length do not matter. The steps come from further
calls, in which each step is timed without the steps inside it; timing them adds about a microsecond
each. All are medians; nothing is written.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnx_gradcam  # noqa: E402
from onnx_gradcam.cam import painting  # noqa: E402
from onnx_gradcam.runtime import explanation  # noqa: E402
from onnx_gradcam.runtime.explainer import Explainer  # noqa: E402
from onnx_gradcam.runtime.feeds import BatchRunner  # noqa: E402
from onnx_gradcam.runtime.image_input import ImageInput  # noqa: E402
from onnx_gradcam.runtime.seeds import SeedReader  # noqa: E402
from tools.timing import session_options  # noqa: E402

Step = tuple[str, Any, str]
"""What a step does, and the owner and name of the function that does it."""

RUN: Step = ("session.run", onnxruntime.InferenceSession, "run")

STEPS: tuple[Step, ...] = (
    RUN,
    ("choices of the call", Explainer, "_how"),
    ("images: shape, type, NaN", ImageInput, "fit"),
    ("classes", SeedReader, "read"),
    ("feeds, around session.run", BatchRunner, "run"),
    ("scores and arrays", Explainer, "_run"),
    ("raw map", painting, "evaluate"),
    ("notes", explanation, "paint"),
    ("heat map", painting, "heat_maps"),
    ("the rest", Explainer, "explain"),
)


class Clock:
    """Adds up how long steps take, each without the steps inside it."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.seconds: dict[str, float] = {}
        self._inside: list[float] = []

    def timed(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function with its time added to `label`."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                whole = time.perf_counter() - start
                own = whole - self._inside.pop()
                self.seconds[label] = self.seconds.get(label, 0.0) + own
                if self._inside:
                    self._inside[-1] += whole

        return run

    @contextmanager
    def on(self, steps: Sequence[Step]) -> Iterator[None]:
        """Time these steps."""
        with ExitStack() as stack:
            for label, owner, name in steps:
                replaced = self.timed(label, getattr(owner, name))
                stack.enter_context(mock.patch.object(owner, name, replaced))
            yield

    def of(self, call: Callable[[], object]) -> dict[str, float]:
        """Return the seconds of one call, by step."""
        self.seconds = {}
        call()
        return self.seconds


def median(values: Sequence[float]) -> float:
    """Return the median, in microseconds."""
    return float(np.median(values)) * 1e6


def measure(path: Path, batch: int, threads: int, repetitions: int) -> None:
    """Measure one exported file at one batch size, and print the figures."""
    explainer = onnx_gradcam.load(path, device="cpu", session_options=session_options(threads))
    session = onnxruntime.InferenceSession(
        path, session_options(threads), providers=["CPUExecutionProvider"]
    )
    shape = [batch, *(extent or 224 for extent in explainer.image_input.shape[1:])]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    outputs = [explainer.metadata.score_output, *explainer.metadata.outputs]
    feeds = {explainer.image_input.name: x}
    alone, added = [], []
    clock = Clock()
    with clock.on([RUN]):
        for _ in range(3 + repetitions):
            alone.append(clock.of(lambda: session.run(outputs, feeds))[RUN[0]])
            start = time.perf_counter()
            inside = clock.of(lambda: explainer.explain(x))[RUN[0]]
            added.append(time.perf_counter() - start - inside)
    with clock.on(STEPS):
        each = [clock.of(lambda: explainer.explain(x)) for _ in range(3 + repetitions)][3:]
    run, more = median(alone[3:]), median(added[3:])
    print(f"\n{path.stem}, batch {batch}: session.run {run:.0f} us, explain adds {more:.0f} us")
    low, high = np.percentile(added[3:], [25, 75]) * 1e6
    print(f"  (quartiles {low:.0f} to {high:.0f}; {more / run:.1%} of session.run)")
    for label, *_ in STEPS[1:]:
        print(f"  {median([one.get(label, 0.0) for one in each]):8.1f} us  {label}")


def main() -> None:
    """Export each model, measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "models", nargs="+", type=Path, help="exported first, but for NAME.cam.onnx"
    )
    parser.add_argument("--batch", action="append", type=int, help="may be repeated")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=100)
    arguments = parser.parse_args()
    for path in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            exported = path
            if not path.name.endswith(".cam.onnx"):
                exported = Path(folder) / path.name
                onnx_gradcam.export_model(path, exported, verify=False)
            for batch in arguments.batch or [1]:
                measure(exported, batch, arguments.threads, arguments.repetitions)


if __name__ == "__main__":
    main()
