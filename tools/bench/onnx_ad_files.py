"""``python -m tools.bench.onnx_ad_files MODEL TENSOR N FOLDER``: what `onnx_ad_engine` loads.

The model is given its batch size and folded by onnxruntime at its basic level, as onnx-ad wants
constant shapes; then it is cut at the target tensor.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import onnx_ad  # type: ignore[import-untyped]
import onnxruntime
from onnx import ModelProto, NodeProto, shape_inference


def write_files(model: Path, tensor: str, batch: int, folder: Path) -> None:
    """Write the model with its further outputs, and the adjoint of the part behind the tensor."""
    whole = folded(model, tensor, batch, folder)
    tail, passing = cut(whole, tensor)
    full = expose(whole, passing)
    onnx.save(full, folder / "full.onnx")
    adjoint = onnx_ad.reverse(tail, inputs=[tensor], layout="onnx")
    wanted = [o for o in adjoint.graph.output if o.name == f"adj_{tensor}"]
    del adjoint.graph.output[:]
    adjoint.graph.output.extend(wanted)
    onnx.save(adjoint, folder / "adjoint.onnx")


def folded(path: Path, tensor: str, batch: int, folder: Path) -> ModelProto:
    """Return the model for one batch size, constants folded, all shapes inferred."""
    model = onnx.load(path)
    for info in model.graph.input:
        info.type.tensor_type.shape.dim[0].dim_value = batch
    for info in model.graph.output:
        info.type.tensor_type.shape.dim[0].dim_value = batch
    model = expose(shape_inference.infer_shapes(model), [tensor])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "folded.onnx")
    onnx.save(model, folder / "static.onnx")
    onnxruntime.InferenceSession(folder / "static.onnx", options, ["CPUExecutionProvider"])
    model = onnx.load(folder / "folded.onnx")
    del model.graph.output[1:]
    return shape_inference.infer_shapes(model)


def expose(model: ModelProto, tensors: list[str]) -> ModelProto:
    """Return the model with further outputs."""
    result = ModelProto()
    result.CopyFrom(model)
    known = {info.name: info for info in model.graph.value_info}
    result.graph.output.extend(known[name] for name in tensors)
    return result


def cut(model: ModelProto, tensor: str) -> tuple[ModelProto, list[str]]:
    """Return the part behind a tensor, and what it reads: that tensor and what by-passes it."""
    weights = {t.name for t in model.graph.initializer}
    behind: set[str] = {tensor}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if behind & {*node.input} and tensor not in node.output:
            nodes.append(node)
            behind |= {*node.output}
    made = {name for node in nodes for name in node.output}
    read = {name: None for node in nodes for name in node.input if name}
    passing = [name for name in read if name not in made | weights]
    passing.sort(key=lambda name: name != tensor)
    known = {info.name: info for info in model.graph.value_info}
    graph = onnx.helper.make_graph(
        nodes,
        "tail",
        [known[name] for name in passing],
        list(model.graph.output),
        [t for t in model.graph.initializer if t.name in read],
        value_info=[known[name] for name in made if name in known],
    )
    opsets = list(model.opset_import)
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version), passing


if __name__ == "__main__":
    write_files(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
