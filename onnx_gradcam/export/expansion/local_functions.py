"""Model-local functions: every call is replaced by the function's body.

In: a model that defines functions. Out: the same model without calls, which is what is analysed
and written: onnxruntime inlines functions as well, and other runtimes lack them.
"""

from __future__ import annotations

import math

from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, defs, inliner

_LARGE = 1024
"""Initializers above this many elements go round the inliner."""

_VALUES = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def inlined(model: ModelProto) -> ModelProto:
    """Return the model without local functions; itself where it has none.

    A function that imports another opset is inlined where all its operators are the same in that
    of the model, as `onnx.checker` demands. Others stay, and so do their calls.
    """
    if not model.functions:
        return model
    light = ModelProto()
    light.CopyFrom(model)
    for tensor in light.graph.initializer:
        if math.prod(tensor.dims) > _LARGE and tensor.data_location != TensorProto.EXTERNAL:
            for field in _VALUES:
                tensor.ClearField(field)
    for function in light.functions:
        _adopt_opsets(function, light)
    flat = inliner.inline_local_functions(light)
    del flat.graph.initializer[:]
    flat.graph.initializer.extend(model.graph.initializer)
    _import_domains(flat, model)
    return flat


def _adopt_opsets(function: FunctionProto, model: ModelProto) -> None:
    """Give a function the model's opset where that changes none of its operators."""
    wanted = {opset.domain: opset.version for opset in model.opset_import}
    for opset in function.opset_import:
        version = wanted.get(opset.domain, opset.version)
        nodes = [node for node in function.node if node.domain == opset.domain]
        if all(since(n, opset.version) == since(n, version) for n in nodes):
            opset.version = version


def since(node: NodeProto, opset: int) -> int:
    """Return the version in which an operator got the form that it has in an opset, 0 for none."""
    try:
        return int(defs.get_schema(node.op_type, opset, node.domain).since_version)
    except defs.SchemaError:
        return 0


def _import_domains(flat: ModelProto, model: ModelProto) -> None:
    """Import the domains of operators that functions alone had imported."""
    used = {node.domain for node in flat.graph.node}
    known = {opset.domain for opset in flat.opset_import}
    for function in model.functions:
        for opset in function.opset_import:
            if opset.domain in used - known and opset.domain not in {"", "ai.onnx"}:
                flat.opset_import.append(opset)
                known.add(opset.domain)
