"""Measure what a CAM in the graph costs over plain inference; prints a table for docs/fused-cam.md.

    python tools/benchmark_fused.py MODEL.onnx [MODEL.onnx ...] [--batch 1] [--threads 2]

For each model, in turn and many times: the original file; the file with activations and gradients
as outputs; and with the CAM alone, as it is and as a heat map of the image's size. Figures are
ratios of medians from this one run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnx_gradcam  # noqa: E402
from tools.timing import Timing, interleaved, session_options  # noqa: E402

PLAIN = "plain"
FORMS: dict[str, Mapping[str, Any]] = {
    "A and G": {},
    "cam": {"fuse_cam": "gradcam", "outputs": "cam"},
    "heat map": {
        "fuse_cam": "gradcam",
        "outputs": "cam",
        "cam_size": "input",
        "cam_normalise": True,
    },
}


def measure(
    path: Path, batch: int, threads: int, repetitions: int
) -> tuple[dict[str, Timing], list[int]]:
    """Return the timings by contestant, and the shape of A."""
    options = session_options(threads)
    sessions = {PLAIN: onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])}
    shape: list[int] = []
    for name, form in FORMS.items():
        with tempfile.TemporaryDirectory() as folder:
            exported = Path(folder) / "exported.onnx"
            report = onnx_gradcam.export_model(path, exported, verify=False, **form)
            sessions[name] = onnxruntime.InferenceSession(
                exported, options, ["CPUExecutionProvider"]
            )
        shape = [size for size in report.target_shape[1:] if isinstance(size, int)]
    node = sessions[PLAIN].get_inputs()[0]
    extents = [batch, *(d if isinstance(d, int) else 224 for d in node.shape[1:])]
    x = np.random.default_rng(0).standard_normal(extents).astype(np.float32)
    contestants = {
        name: partial(session.run, None, {node.name: x}) for name, session in sessions.items()
    }
    return interleaved(contestants, repetitions, warmup=5), shape


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=100)
    arguments = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}, {arguments.threads} threads\n")
    print(f"| model | A | batch | plain, ms (quartiles) | {' | '.join(FORMS)} |")
    print(f"|---|---|---|---|{'---|' * len(FORMS)}")
    for path in arguments.models:
        times, shape = measure(path, arguments.batch, arguments.threads, arguments.repetitions)
        plain = times[PLAIN]
        ratios = " | ".join(f"{times[name].median / plain.median:.3f}" for name in FORMS)
        print(
            f"| {path.stem} | {' x '.join(map(str, shape))} | {arguments.batch}"
            f" | {plain.median * 1e3:.1f} ({plain.low * 1e3:.1f} to {plain.high * 1e3:.1f})"
            f" | {ratios} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
