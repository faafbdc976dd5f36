"""Measure how gradients of convolutions and poolings are best written, and write docs/lowering.md.

    python tools/measure_lowering.py [--threads 2] [--repetitions 40]

For each shape the same gradient is computed in all the forms of `lowering_forms`; what the export
emits is marked. All forms must give the same values. Times are medians of interleaved repetitions
in one process, on the CPU provider; dL/dx is multiplied by another map, as it is in a network.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from onnx_gradcam.gradients.emitter import Emitter, TensorType  # noqa: E402
from onnx_gradcam.gradients.registry import Context  # noqa: E402
from tools.lowering_forms import FORMS, Case, Form  # noqa: E402
from tools.timing import interleaved, session_options  # noqa: E402

CASES = {
    "Conv": (
        Case("3 x 3 (ResNet)", 128, 128, 28, 3),
        Case("1 x 1 (ResNet)", 256, 64, 56, 1),
        Case("3 x 3, depthwise (MobileNet)", 240, 240, 28, 3, group=240),
        Case("7 x 7, depthwise (ConvNeXt)", 192, 192, 28, 7, group=192),
        Case("3 x 3, 16 groups (RegNet)", 256, 256, 28, 3, group=16),
    ),
    "strided Conv": (
        Case("3 x 3 (ResNet)", 128, 128, 56, 3, 2),
        Case("3 x 3 (ResNet)", 512, 512, 14, 3, 2),
        Case("1 x 1 (shortcut of ResNet)", 256, 512, 56, 1, 2),
        Case("1 x 1 (shortcut of ResNet)", 1024, 2048, 14, 1, 2),
        Case("3 x 3, depthwise (EfficientNet)", 96, 96, 112, 3, 2, group=96),
        Case("5 x 5, depthwise (EfficientNet)", 144, 144, 56, 5, 2, group=144),
        Case("5 x 5, depthwise (MobileNet)", 672, 672, 14, 5, 2, group=672),
        Case("3 x 3, 16 groups (RegNet)", 256, 256, 28, 3, 2, group=16),
        Case("2 x 2 (ConvNeXt)", 96, 192, 56, 2, 2),
        Case("7 x 7 (first layer)", 3, 64, 224, 7, 2),
    ),
    "MaxPool": (
        Case("3 x 3, stride 2 (ResNet)", 64, 64, 112, 3, 2),
        Case("2 x 2, stride 2 (VGG)", 256, 256, 56, 2, 2),
        Case("5 x 5, stride 1 (SPPF)", 128, 128, 20, 5),
    ),
    "AveragePool": (
        Case("2 x 2, stride 2 (DenseNet)", 128, 128, 56, 2, 2),
        Case("3 x 3, stride 2 (Inception)", 192, 192, 28, 3, 2),
        Case("3 x 3, stride 1 (Inception)", 192, 192, 28, 3),
        Case("of the whole map (timm)", 1024, 1024, 7, 7, 7),
    ),
}
NOTES = {
    "Conv": "*Conv*: one, with flipped, transposed weights.",
    "strided Conv": "*Conv*: one, with zeros between the elements of dy. *phases*: one per phase of"
    " the map (`gradients/sub_pixel.py`), put together by Concat. *DepthToSpace*: one to as many"
    " times the channels as there are phases, their kernels filled up with zeros.",
    "MaxPool": "*positions*: one Slice, comparison and product per position of a window, and a"
    " ConvTranspose. The export: along one axis after the other, by phases.",
    "AveragePool": "*phases*: as above, of ones. *Pad, AveragePool*: an average pooling of the"
    " padded dy. The export repeats dy by Resize where windows are side by side, and by Expand"
    " where there is one.",
}


def model(op_type: str, case: Case, form: Form | None) -> onnx.ModelProto:
    """Return a model dy, x -> dL/dx * x in one of the forms; None is what the export emits."""
    weighted, out = "Conv" in op_type, case.outputs_size
    maps = {
        "x": (1, case.channels, case.size, case.size),
        "y": (1, case.outputs, out, out),
        "dy": (1, case.outputs, out, out),
    }
    types = {name: TensorType(TensorProto.FLOAT, shape) for name, shape in maps.items()}
    weight = np.random.default_rng(0).standard_normal(case.weight) / np.sqrt(case.weight[1])
    types["w"] = TensorType(TensorProto.FLOAT, case.weight)
    node = helper.make_node(
        op_type.split()[-1],
        ["x", "w"] if weighted else ["x"],
        ["y"],
        strides=[case.stride] * 2,
        pads=[case.pad] * 4,
        kernel_shape=[case.kernel] * 2,
    )
    if weighted:
        node.attribute.append(helper.make_attribute("group", case.group))
    emit = Emitter(17, types, lambda _: None, "lowering/")
    ctx = Context(emit, node, list(node.input), ["y"], 17)
    result = (form or FORMS[op_type]["exported"])(ctx, case)
    emit.node("Mul", [result, "x"], output="dx")
    forward = [] if weighted else [node]
    graph = helper.make_graph(
        [*forward, *emit.nodes],
        "lowering",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, maps[n]) for n in ("dy", "x")],
        [helper.make_tensor_value_info("dx", TensorProto.FLOAT, None)],
        [*emit.initializers]
        + ([numpy_helper.from_array(weight.astype(np.float32), "w")] if weighted else []),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def session(built: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """Return a CPU session with a fixed number of threads."""
    return onnxruntime.InferenceSession(
        built.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
    )


def measure(op_type: str, case: Case, threads: int, repetitions: int) -> str:
    """Return one row of a table; all forms must give the same values."""
    forms = {name: form for name, form in FORMS[op_type].items() if form.takes(case)}
    out = case.outputs_size
    random = np.random.default_rng(1)
    feeds = {
        "dy": random.standard_normal((1, case.outputs, out, out)).astype(np.float32),
        "x": random.standard_normal((1, case.channels, case.size, case.size)).astype(np.float32),
    }
    sessions = {name: session(model(op_type, case, form), threads) for name, form in forms.items()}
    results = {name: built.run(None, feeds)[0] for name, built in sessions.items()}
    for result in results.values():
        np.testing.assert_allclose(result, results["exported"], rtol=1e-3, atol=1e-3)
    runs = {name: partial(built.run, None, feeds) for name, built in sessions.items()}
    times = interleaved(runs, repetitions)
    cells = [f"{times[n].median * 1e3:.2f}" if n in times else "" for n in FORMS[op_type]]
    channels = f"{case.channels} to {case.outputs}" if "Conv" in op_type else f"{case.channels}"
    return f"| {case.name} | {channels}, {case.size} x {case.size} | " + " | ".join(cells) + " |"


def table(op_type: str, rows: Sequence[str]) -> str:
    """Return a section of the page."""
    names = [name if name != "exported" else "**the export**" for name in FORMS[op_type]]
    head = f"| windows | channels, input size | {' | '.join(names)} |"
    line = "|---" * (2 + len(names)) + "|"
    return "\n".join([f"## {op_type}", "", NOTES[op_type], "", head, line, *rows, ""])


HEADER = """# How gradients of convolutions and poolings are written

Written by `tools/measure_lowering.py` on {threads} threads with onnxruntime {version}, CPU
provider: medians of {repetitions} interleaved repetitions in one process, in milliseconds, the
product of dL/dx and another map included. *ConvTranspose* is the operator that does it in one
step. The last column is the form that the export chooses.

"""


def main() -> None:
    """Measure all cases and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "lowering.md")
    arguments = parser.parse_args()
    sections = []
    for op_type, cases in CASES.items():
        rows = []
        for case in cases:
            rows.append(measure(op_type, case, arguments.threads, arguments.repetitions))
            print(op_type, rows[-1], flush=True)
        sections.append(table(op_type, rows))
    header = HEADER.format(
        threads=arguments.threads,
        version=onnxruntime.__version__,
        repetitions=arguments.repetitions,
    )
    arguments.output.write_text(header + "\n".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
