"""Copies nodes of another graph, a branch or the body of a function, into the analysis graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnx import AttributeProto, NodeProto, TensorProto

from onnx_gradcam.gradients.emitter import Emitter


def splice(
    emit: Emitter,
    nodes: Iterable[NodeProto],
    names: Mapping[str, str],
    initializers: Iterable[TensorProto] = (),
    attributes: Mapping[str, AttributeProto] | None = None,
) -> dict[str, str]:
    """Append copies of nodes, their results under new names.

    Args:
        emit: where to write them.
        nodes: in topological order.
        names: what tensors from outside are called here; others keep their names.
        initializers: of the graph that the nodes are in.
        attributes: values of the attributes that the nodes refer to.

    Returns:
        `names` and, added, the new name of each result and initializer.
    """
    known = {"": "", **names}
    for tensor in initializers:
        copy = TensorProto()
        copy.CopyFrom(tensor)
        copy.name = known[tensor.name] = emit.unique(tensor.name.lstrip("/") or "constant")
        emit.initializers.append(copy)
    for node in nodes:
        copy_node = NodeProto()
        copy_node.CopyFrom(node)
        for output in node.output:
            if output:
                known[output] = emit.unique(output.lstrip("/"))
        rename(copy_node, known)
        resolve(copy_node, attributes or {})
        copy_node.name = next(filter(None, copy_node.output), "")
        emit.nodes.append(copy_node)
    return known


def rename(node: NodeProto, names: Mapping[str, str]) -> None:
    """Give tensors other names, also where sub-graphs read them."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            for inner in graph.node:
                rename(inner, names)
            for output in graph.output:
                output.name = names.get(output.name, output.name)


def resolve(node: NodeProto, attributes: Mapping[str, AttributeProto]) -> None:
    """Put values in the place of references to a function's attributes; absent ones vanish."""
    kept = []
    for attribute in node.attribute:
        value = AttributeProto()
        if not attribute.ref_attr_name:
            value.CopyFrom(attribute)
        elif attribute.ref_attr_name in attributes:
            value.CopyFrom(attributes[attribute.ref_attr_name])
            value.name = attribute.name
        else:
            continue
        for graph in [*([value.g] if value.HasField("g") else []), *value.graphs]:
            for inner in graph.node:
                resolve(inner, attributes)
        kept.append(value)
    del node.attribute[:]
    node.attribute.extend(kept)
