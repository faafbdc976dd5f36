"""Measure what explaining costs over plain inference, and write docs/performance.md.

    python tools/benchmark.py MODEL.onnx [MODEL.onnx ...] [--layer auto --layer 0] [--threads 2]

For each model: the original file on plain onnxruntime, the exported file run for all its outputs,
and `Explainer.explain` (heat map in NumPy included), in turn, many times. Figures are ratios of
medians from this one run. Idle threads of one session do not spin while another one runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnx_gradcam  # noqa: E402
from tools.timing import Timing, interleaved, session_options  # noqa: E402

PLAIN, EXPORTED, EXPLAINED = "plain", "exported", "explained"


@dataclass(frozen=True)
class Result:
    """Timings of one model at one layer and batch size."""

    model: str
    layer: str
    builder: str
    batch: int
    times: dict[str, Timing]

    def ratio(self, name: str) -> float:
        """Return the median of a contestant over that of plain inference."""
        return self.times[name].median / self.times[PLAIN].median


def measure(path: Path, layer: str, batch: int, threads: int, repetitions: int) -> Result:
    """Export a model and time the three contestants on the CPU provider."""
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "exported.onnx"
        report = onnx_gradcam.export_model(path, exported, layer=layer, verify=False)
        plain = onnxruntime.InferenceSession(
            path, session_options(threads), providers=["CPUExecutionProvider"]
        )
        explaining = onnxruntime.InferenceSession(
            exported, session_options(threads), providers=["CPUExecutionProvider"]
        )
        explainer = onnx_gradcam.load(
            exported, device="cpu", session_options=session_options(threads)
        )
    node = plain.get_inputs()[0]
    shape = [batch, *(d if isinstance(d, int) else 224 for d in node.shape[1:])]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    contestants: dict[str, Callable[[], object]] = {
        PLAIN: lambda: plain.run(None, {node.name: x}),
        EXPORTED: lambda: explaining.run(None, {node.name: x}),
        EXPLAINED: lambda: explainer.explain(x),
    }
    times = interleaved(contestants, repetitions, warmup=5)
    return Result(path.stem, report.target, report.builder, batch, times)


def table(results: list[Result]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| model | layer | builder | batch | plain, ms (quartiles) | exported / plain |"
        " explained / plain |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        plain = r.times[PLAIN]
        lines.append(
            f"| {r.model} | `{r.layer}` | {r.builder} | {r.batch} | {plain.median * 1e3:.1f}"
            f" ({plain.low * 1e3:.1f} to {plain.high * 1e3:.1f}) | {r.ratio(EXPORTED):.3f}"
            f" | {r.ratio(EXPLAINED):.3f} |"
        )
    return "\n".join(lines)


HEADER = """# What explaining costs

Written by `tools/benchmark.py`: onnxruntime {version}, CPU provider, {threads} threads, medians of
{repetitions} repetitions, the three contestants in turn. *plain*: the original file. *exported*:
the exported file, all outputs. *explained*: `Explainer.explain` with the heat map in NumPy.

Each model is named after its file: torchvision architectures with random weights, opset 17 (speed
does not depend on the weights), and the demonstration model.

"""


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--layer", action="append", help="as for export; may be repeated")
    parser.add_argument("--batch", action="append", type=int, help="may be repeated")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "performance.md")
    arguments = parser.parse_args()
    results = []
    for path in arguments.models:
        for layer in arguments.layer or ["auto"]:
            for batch in arguments.batch or [1]:
                result = measure(path, layer, batch, arguments.threads, arguments.repetitions)
                results.append(result)
                print(table([result]).splitlines()[-1], flush=True)
    header = HEADER.format(
        version=onnxruntime.__version__,
        threads=arguments.threads,
        repetitions=arguments.repetitions,
    )
    arguments.output.write_text(header + table(results) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
