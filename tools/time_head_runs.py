"""Prints what methods that run the head cost, as ratios to a run of the original file.

Writes nothing; docs/methods.md holds the table. Needs a model, by default the demonstration's
(``tools/make_models.py``), and what the project itself needs::

    PYTHONPATH=. python tools/time_head_runs.py [MODEL] [--threads 2] [--repetitions 10]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import onnxruntime

from onnx_gradcam import export_model, load
from tools.timing import interleaved, session_options

DEFAULT = Path(__file__).resolve().parents[1] / "models" / "efficientnet_lite0.onnx"
METHODS = ("gradcam", "reciprocam", "vitreciprocam", "ablationcam")


def main() -> None:
    """Export, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, default=DEFAULT)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=10)
    given = parser.parse_args()
    options = session_options(given.threads)
    with TemporaryDirectory() as folder:
        exported = Path(folder) / "model.cam.onnx"
        export_model(given.model, exported)
        explainer = load(exported, device="cpu", session_options=options)
        plain = onnxruntime.InferenceSession(
            given.model, options, providers=["CPUExecutionProvider"]
        )
        declared = explainer.image_input
        shape = [1, *(size or 224 for size in declared.shape[1:])]
        x = np.random.default_rng(0).normal(size=shape).astype(declared.dtype)
        contestants: dict[str, Callable[[], object]] = {
            "plain": lambda: plain.run(None, {declared.name: x}),
            "predict": lambda: explainer.predict(x),
        }
        for method in METHODS:
            contestants[method] = partial(explainer.explain, x, 0, method)
        first = {}
        for name, run in contestants.items():
            start = perf_counter()
            run()
            first[name] = perf_counter() - start
        timings = interleaved(contestants, given.repetitions)
    unit = timings["plain"].median
    activations = explainer.explain(x, 0).activations
    assert activations is not None, "exported with all outputs"
    channels, *grid = activations.shape[1:]
    print(f"{given.model.stem}: A of {channels} channels, {' x '.join(map(str, grid))};")
    print(
        f"plain run {1e3 * unit:.1f} ms, {given.threads} threads, {given.repetitions} repetitions"
    )
    print("| what | against a plain run (quartiles) | the first time |\n|---|---|---|")
    for name, timing in timings.items():
        ratios = (value / unit for value in (timing.median, timing.low, timing.high))
        median, low, high = (f"{ratio:.2f}" for ratio in ratios)
        print(f"| `{name}` | {median} ({low} to {high}) | {first[name] / unit:.1f} |")


if __name__ == "__main__":
    main()
