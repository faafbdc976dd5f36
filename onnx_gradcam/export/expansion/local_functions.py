"""Model-local functions: every call is replaced by the function's body.

In: a model that defines functions. Out: the same model without calls, which is what is analysed
and written: onnxruntime inlines functions as well, and other runtimes lack them.
"""

from __future__ import annotations

import math

from onnx import ModelProto, TensorProto, inliner

_LARGE = 1024
"""Initializers above this many elements go round the inliner."""

_VALUES = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def inlined(model: ModelProto) -> ModelProto:
    """Return the model without local functions; itself where it has none.

    A function written in another opset is converted to that of the model. One that cannot be
    converted stays, and so do its calls.
    """
    if not model.functions:
        return model
    light = ModelProto()
    light.CopyFrom(model)
    for tensor in light.graph.initializer:
        if math.prod(tensor.dims) > _LARGE and tensor.data_location != TensorProto.EXTERNAL:
            for field in _VALUES:
                tensor.ClearField(field)
    flat = inliner.inline_local_functions(light)
    if flat.functions:
        try:
            flat = inliner.inline_local_functions(light, convert_version=True)
        except Exception:  # whatever onnx's converter raises: these functions stay
            flat = inliner.inline_local_functions(light)
    del flat.graph.initializer[:]
    flat.graph.initializer.extend(model.graph.initializer)
    _import_domains(flat, model)
    return flat


def _import_domains(flat: ModelProto, model: ModelProto) -> None:
    """Import the domains of operators that functions alone had imported."""
    used = {node.domain for node in flat.graph.node}
    known = {opset.domain for opset in flat.opset_import}
    for function in model.functions:
        for opset in function.opset_import:
            if opset.domain in used - known and opset.domain not in {"", "ai.onnx"}:
                flat.opset_import.append(opset)
                known.add(opset.domain)
