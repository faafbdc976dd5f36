"""Operators that onnxruntime has in the default domain although the standard has not.

onnxruntime saves LayerNormalization in models of opset 11, and SimplifiedLayerNormalization. The
ONNX checker refuses them; here they move to another domain, for it to look at the rest.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, defs, helper

from onnx_gradcam.export.expansion.rules import find_rule
from onnx_gradcam.gradients.registry import MICROSOFT

_OLDEST_IR = 4


def as_checked(model: ModelProto) -> ModelProto | None:
    """Return a copy in which such operators are custom ones; None where there are none.

    Tensors in external files become inputs of the copy.
    """
    opset = next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 0)
    copy = ModelProto()
    copy.CopyFrom(model)
    foreign = [node for node in _all_nodes(copy.graph) if _is_foreign(node, opset)]
    if not foreign:
        return None
    for node in foreign:
        node.domain = MICROSOFT
    if all(o.domain != MICROSOFT for o in copy.opset_import):
        copy.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    _drop_external(copy)
    return copy


def _is_foreign(node: NodeProto, opset: int) -> bool:
    return (
        node.domain in {"", "ai.onnx"}
        and not defs.has(node.op_type, opset, "")
        and find_rule("", node.op_type, opset) is not None
    )


def _all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _all_nodes(inner)


def _drop_external(model: ModelProto) -> None:
    graph = model.graph
    listed = {value.name for value in graph.input}
    kept = []
    for tensor in graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            kept.append(tensor)
        elif tensor.name not in listed:
            graph.input.append(_value_info(tensor))
    del graph.initializer[:]
    graph.initializer.extend(kept)
    model.ir_version = max(model.ir_version, _OLDEST_IR)


def _value_info(tensor: TensorProto) -> ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
