"""Shapes that a model declares although its inputs say otherwise: set right in the exported copy.

Where only the inputs were made open (batch 1 to N, say), the declared shapes of the outputs are
left behind. onnxruntime runs such a model, but plans the memory of further nodes by them.
"""

from __future__ import annotations

from onnx import ModelProto, helper

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.score import format_shape
from onnx_gradcam.export.shapes.sizes import is_invented


def mend_declarations(model: ModelProto, graph: Graph) -> list[str]:
    """Replace stale shapes in `model`, a copy of that of `graph`, and return warnings."""
    kept = [value for value in model.graph.value_info if value.name not in graph.stale]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    warnings = []
    for value in model.graph.output:
        shape = graph.shape(value.name)
        if value.name not in graph.stale or shape is None:
            continue
        dtype = value.type.tensor_type.elem_type
        open_shape = [None if is_invented(size) else size for size in shape]
        value.CopyFrom(helper.make_tensor_value_info(value.name, dtype, open_shape))
        warnings.append(
            f"output {value.name!r} is declared as {format_shape(shape)}: the shape in the"
            " original contradicts its inputs"
        )
    return warnings
