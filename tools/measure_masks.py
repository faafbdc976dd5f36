"""Measure how the mask of a Relu's gradient is best written, and write docs/masks.md.

    python tools/measure_masks.py [--threads 2] [--repetitions 40]

The gradient dy where y > 0, else 0, in three forms, on the CPU provider: medians of interleaved
repetitions in one process, of ten masks in a row so that starting a run does not count.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from onnx_gradcam.gradients.emitter import Emitter, TensorType  # noqa: E402
from tools.timing import interleaved, session_options  # noqa: E402

SHAPES = ((1, 64, 112, 112), (1, 256, 56, 56), (1, 512, 7, 7), (8, 256, 14, 14))
MASKS = 10


def _compared(emit: Emitter, dy: str, y: str) -> str:
    return emit.mul(dy, emit.cast(emit.greater(y, 0.0), TensorProto.FLOAT))


FORMS: dict[str, Callable[[Emitter, str, str], str]] = {
    "Greater, Where": lambda emit, dy, y: emit.masked(dy, emit.greater(y, 0.0)),
    "Greater, Cast, Mul": _compared,
    "HardSigmoid, Mul (the export)": lambda emit, dy, y: emit.mul(dy, emit.above(y)),
}


def session(form: str, shape: tuple[int, ...], threads: int) -> onnxruntime.InferenceSession:
    """Return ten masks in a row, each of another y, which nothing can merge."""
    names = ["dy", *(f"y{i}" for i in range(MASKS))]
    types = dict.fromkeys(names, TensorType(TensorProto.FLOAT, shape))
    emit = Emitter(17, types, lambda _: None, "m/")
    dx = "dy"
    for name in names[1:]:
        dx = FORMS[form](emit, dx, name)
    graph = helper.make_graph(
        emit.nodes,
        "masks",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names],
        [helper.make_tensor_value_info(dx, TensorProto.FLOAT, shape)],
        emit.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
    )


def measure(shape: tuple[int, ...], threads: int, repetitions: int) -> list[float]:
    """Return microseconds per mask of each form.

    Raises:
        AssertionError: the forms give different values.
    """
    rng = np.random.default_rng(0)
    feeds = {f"y{i}": rng.standard_normal(shape).astype(np.float32) for i in range(MASKS)}
    for y in feeds.values():  # most elements pass all masks
        y += 2
    feeds["dy"] = rng.standard_normal(shape).astype(np.float32)
    sessions = {form: session(form, shape, threads) for form in FORMS}
    results = [s.run(None, feeds)[0] for s in sessions.values()]
    assert all(np.array_equal(results[0], other) for other in results[1:])
    assert 0.5 < np.mean(results[0] != 0) < 0.99
    times = interleaved(
        {form: partial(s.run, None, feeds) for form, s in sessions.items()}, repetitions
    )
    return [times[form].median * 1e6 / MASKS for form in FORMS]


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "masks.md")
    arguments = parser.parse_args()
    lines = [
        "# How masks of gradients are written",
        "",
        f"Written by `tools/measure_masks.py`: dy where y > 0, microseconds a mask, medians of"
        f" {arguments.repetitions}",
        f"interleaved repetitions, onnxruntime {onnxruntime.__version__}, CPU provider,"
        f" {arguments.threads} threads. All three give the same values.",
        "",
        "| shape | " + " | ".join(FORMS) + " |",
        "|---|" + "---|" * len(FORMS),
    ]
    for shape in SHAPES:
        found = measure(shape, arguments.threads, arguments.repetitions)
        sizes = " x ".join(map(str, shape))
        lines.append(f"| {sizes} | " + " | ".join(f"{value:.0f}" for value in found) + " |")
        print(lines[-1], flush=True)
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
