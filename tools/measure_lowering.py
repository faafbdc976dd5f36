"""Measure how the input gradient of a convolution is best written, and write docs/lowering.md.

    python tools/measure_lowering.py [--threads 2] [--repetitions 30]

For each shape the same gradient is computed by ConvTranspose, and by Conv with flipped weights
(zeros put between the elements of dy where the stride is not one); what the export emits is
marked. Times are medians of interleaved repetitions in one process, on the CPU provider.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from onnx_gradcam.gradients import conv  # noqa: E402
from onnx_gradcam.gradients.emitter import Emitter, TensorType  # noqa: E402
from onnx_gradcam.gradients.registry import Context  # noqa: E402
from onnx_gradcam.gradients.slicing import zero_stuff  # noqa: E402
from onnx_gradcam.gradients.windows import window_axes  # noqa: E402
from tools.timing import interleaved, session_options  # noqa: E402


@dataclass(frozen=True)
class Case:
    """A square 2-D convolution: channels in and out, size, kernel, stride, groups."""

    name: str
    channels: int
    outputs: int
    size: int
    kernel: int
    stride: int = 1
    group: int = 1


CASES = (
    Case("3 x 3, dense (ResNet)", 128, 128, 28, 3),
    Case("1 x 1, dense (ResNet)", 256, 64, 56, 1),
    Case("3 x 3, depthwise (MobileNet)", 240, 240, 28, 3, group=240),
    Case("7 x 7, depthwise (ConvNeXt)", 192, 192, 28, 7, group=192),
    Case("3 x 3, 16 groups (RegNet)", 256, 256, 28, 3, group=16),
    Case("3 x 3, stride 2, dense (ResNet)", 128, 128, 56, 3, 2),
    Case("7 x 7, stride 2, dense (first layer)", 3, 64, 224, 7, 2),
    Case("1 x 1, stride 2, dense (shortcut)", 256, 512, 56, 1, 2),
    Case("2 x 2, stride 2, dense (ConvNeXt)", 96, 192, 56, 2, 2),
    Case("3 x 3, stride 2, depthwise (MobileNet)", 144, 144, 56, 3, 2, group=144),
    Case("5 x 5, stride 2, depthwise (EfficientNet)", 240, 240, 28, 5, 2, group=240),
    Case("3 x 3, stride 2, 16 groups (RegNet)", 256, 256, 28, 3, 2, group=16),
)


def model(case: Case, form: str, rng: np.random.Generator) -> tuple[onnx.ModelProto, str]:
    """Return a model dy -> dx in one of the forms, and its characteristic operator."""
    out = -(-case.size // case.stride)
    pads = [case.kernel // 2] * 4 if case.kernel % 2 else [0] * 4
    shape = (case.outputs, case.channels // case.group, case.kernel, case.kernel)
    weight = rng.standard_normal(shape).astype(np.float32)
    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        strides=[case.stride] * 2,
        pads=pads,
        group=case.group,
        kernel_shape=[case.kernel] * 2,
    )
    types = {
        "x": TensorType(TensorProto.FLOAT, (1, case.channels, case.size, case.size)),
        "y": TensorType(TensorProto.FLOAT, (1, case.outputs, out, out)),
        "dy": TensorType(TensorProto.FLOAT, (1, case.outputs, out, out)),
        "w": TensorType(TensorProto.FLOAT, shape),
    }
    emit = Emitter(17, types, lambda _: None, "lowering/")
    ctx = Context(emit, node, ["x", "w"], ["y"], 17)
    axes = window_axes(ctx, "x", [case.kernel] * 2)
    if form == "exported":
        result = conv.conv_input_gradient(ctx, "dy", "x", "w")
    elif form == "ConvTranspose":
        result = conv._conv_transpose(ctx, "dy", "w", case.group, axes)
    else:
        strides = {2 + i: axis.stride for i, axis in enumerate(axes)}
        spread = zero_stuff(emit, "dy", (1, case.outputs, out, out), strides)
        dense = [replace(a, stride=1, end=a.stride - 1 - a.missing) for a in axes]
        result = conv._flipped_conv(ctx, spread, "w", list(shape), case.group, dense)
    emit.node("Identity", [result], output="dx")
    kinds = {n.op_type for n in emit.nodes}
    graph = helper.make_graph(
        emit.nodes,
        "lowering",
        [helper.make_tensor_value_info("dy", TensorProto.FLOAT, (1, case.outputs, out, out))],
        [helper.make_tensor_value_info("dx", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w"), *emit.initializers],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return built, "ConvTranspose" if "ConvTranspose" in kinds else "Conv"


def session(built: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """Return a CPU session with a fixed number of threads."""
    return onnxruntime.InferenceSession(
        built.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
    )


def measure(case: Case, threads: int, repetitions: int) -> str:
    """Return one row of the table; all forms must give the same values."""
    forms = ("ConvTranspose", "Conv", "exported")
    sessions, emitted, results = {}, "", {}
    for form in forms:
        built, emitted = model(case, form, np.random.default_rng(0))
        sessions[form] = session(built, threads)
    shape = sessions["Conv"].get_inputs()[0].shape
    feeds = {"dy": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}
    for form, built_session in sessions.items():
        results[form] = built_session.run(None, feeds)[0]
    for form in forms:
        np.testing.assert_allclose(results[form], results["Conv"], rtol=1e-3, atol=1e-3)
    runs = {form: partial(sessions[form].run, None, feeds) for form in forms}
    times = interleaved(runs, repetitions)
    ms = {form: timing.median * 1e3 for form, timing in times.items()}
    ratio = ms["ConvTranspose"] / ms["Conv"]
    return (
        f"| {case.name} | {case.channels} to {case.outputs}, {case.size} x {case.size} |"
        f" {ms['ConvTranspose']:.2f} | {ms['Conv']:.2f} | {ratio:.1f} | {emitted} |"
        f" {ms['exported']:.2f} |"
    )


HEADER = """# How the input gradient of a convolution is written

Written by `tools/measure_lowering.py` on {threads} threads with onnxruntime {version}, CPU
provider: medians of {repetitions} interleaved repetitions in one process, in milliseconds. *Conv*
is a convolution with flipped, transposed weights over dy, with zeros between its elements where
the stride is not one.

| convolution | channels, input size | ConvTranspose | Conv | ratio | the export emits | its time |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    """Measure all cases and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "lowering.md")
    arguments = parser.parse_args()
    rows = []
    for case in CASES:
        rows.append(measure(case, arguments.threads, arguments.repetitions))
        print(rows[-1], flush=True)
    header = HEADER.format(
        threads=arguments.threads,
        version=onnxruntime.__version__,
        repetitions=arguments.repetitions,
    )
    arguments.output.write_text(header + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
