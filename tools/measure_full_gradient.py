"""Prints what several target layers and FullGrad cost: run time over that of plain inference.

    python tools/measure_full_gradient.py MODEL.onnx [MODEL.onnx ...] [--threads 2]

For each model, in turn and many times: the original file; the file exported for its penultimate
layer; for that and the first candidate layer, which takes nearly the whole backward pass; with
``full_gradient``, which takes all of it. Medians of one run on the CPU provider.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnx_gradcam  # noqa: E402
from tools.timing import interleaved, session_options  # noqa: E402

PLAIN = "plain"
EXPORTS: Mapping[str, dict[str, Any]] = {
    "penultimate layer": {},
    "penultimate and first layer": {"layer": ["auto", 0]},
    "penultimate layer and FullGrad": {"full_gradient": True},
}


def measure(path: Path, threads: int, repetitions: int) -> dict[str, float]:
    """Return the median run time of each file in seconds, and their sizes of outputs in bytes."""
    runs: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {PLAIN: path}
        for number, (name, options) in enumerate(EXPORTS.items()):
            files[name] = Path(folder) / f"{number}.onnx"
            onnx_gradcam.export_model(path, files[name], verify=False, **options)
        for name, file in files.items():
            session = onnxruntime.InferenceSession(
                file, session_options(threads), providers=["CPUExecutionProvider"]
            )
            node = session.get_inputs()[0]
            shape = [d if isinstance(d, int) else 1 for d in node.shape]
            image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
            runs[name] = partial(session.run, None, {node.name: image})
    return {name: t.median for name, t in interleaved(runs, repetitions, warmup=5).items()}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=30)
    arguments = parser.parse_args()
    print(f"| model | plain, ms | {' | '.join(EXPORTS)} |\n|---|---|{'---|' * len(EXPORTS)}")
    for path in arguments.models:
        times = measure(path, arguments.threads, arguments.repetitions)
        ratios = [f"{times[name] / times[PLAIN]:.2f}" for name in EXPORTS]
        print(f"| {path.stem} | {times[PLAIN] * 1e3:.1f} | {' | '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
