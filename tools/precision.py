"""Measure explanations of half-precision models against float64: the table of docs/precision.md.

    python tools/precision.py MODEL[:LAYER] ...

Per model, at the recommended layer or the one named: the largest element of dy/dA, and the relative
errors of A, dy/dA and the Grad-CAM of the exported file on onnxruntime against the same weights
evaluated in float64 by ONNX's reference implementation, on one image of normal noise.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from onnx_gradcam.cam import compute  # noqa: E402
from onnx_gradcam.errors import VerificationError  # noqa: E402
from onnx_gradcam.export.pipeline import export_model  # noqa: E402
from onnx_gradcam.export.precision import HALVES, TYPE_ATTRIBUTES  # noqa: E402
from tools.float64_model import float64_evaluator  # noqa: E402

Array = NDArray[Any]
HEADER = """| model | layer | largest dy/dA | A | dy/dA | CAM | verified |
|---|---|---|---|---|---|---|"""


def to_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose half-precision weights, constants, types and casts are float32."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for tensor in graph.initializer:
        _widen(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in HALVES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen(attribute.t)
            if attribute.name in TYPE_ATTRIBUTES and attribute.i in HALVES:
                attribute.i = TensorProto.FLOAT
    return copy


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in HALVES:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def row(path: Path, layer: str) -> str:
    """Return one row of the table."""
    model = onnx.load(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    image = next(i for i in model.graph.input if i.name not in weights)
    shape = [d.dim_value or 1 for d in image.type.tensor_type.shape.dim]
    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(image.type.tensor_type.elem_type)
    with tempfile.TemporaryDirectory() as folder:
        exported, twin = Path(folder) / "exported.onnx", Path(folder) / "twin.onnx"
        export = partial(export_model, layer=layer, gradient_builder="reverse")
        verified = "yes"
        try:
            report = export(model, exported)
        except VerificationError:
            verified = "no"
            report = export(model, exported, verify=False)
        export(to_float32(model), twin, verify=False)
        session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(names, {image.name: noise.astype(dtype)}), strict=True))
        feeds = {image.name: noise.astype(np.float64), "cam_class": found["cam_classes"]}
        values = float64_evaluator(onnx.load(twin)).run(None, feeds)
        expected = dict(zip(names, values, strict=True))
    errors = [_error(found[n], expected[n]) for n in ("cam_activations", "cam_gradients")]
    errors.append(_error(_cam(found), _cam(expected)))
    largest = np.abs(expected["cam_gradients"]).max()
    cells = " | ".join(f"{e:.0e}" if e else "0" for e in errors)
    return f"| {path.stem} | `{report.target}` | {largest:.0e} | {cells} | {verified} |"


def _error(found: Array, expected: Array) -> float:
    difference = np.linalg.norm(found.astype(np.float64) - expected)
    return float(difference / np.linalg.norm(expected))


def _cam(values: dict[str, Array]) -> Array:
    return compute("gradcam", values["cam_activations"], values["cam_gradients"])


def main(arguments: list[str]) -> None:
    """Print the table of the models named."""
    onnxruntime.set_default_logger_severity(3)
    print(HEADER)
    for argument in arguments:
        path, _, layer = argument.partition(":")
        print(row(Path(path), layer or "auto"), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
