"""Types and names as the protos of ONNX hold them."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import GraphProto, NodeProto, TypeProto, ValueInfoProto

from onnx_gradcam.gradients.emitter import Dim, TensorType


def outer_reads(node: NodeProto) -> list[str]:
    """Return what the sub-graphs of a node read from around them."""
    names: list[str] = []
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.HasField("g") else attribute.graphs
        for graph in graphs:
            names += outside_reads(graph)
    return names


def outside_reads(graph: GraphProto) -> list[str]:
    """Return what a sub-graph reads that it neither holds nor computes."""
    inner = {o for n in graph.node for o in n.output}
    inner |= {i.name for i in graph.input} | {t.name for t in graph.initializer}
    names = [name for n in graph.node for name in (*n.input, *outer_reads(n))]
    names += [o.name for o in graph.output]
    return [name for name in names if name and name not in inner]


def declared_types(values: Iterable[ValueInfoProto]) -> dict[str, TensorType]:
    """Return declared types; some exporters write 0 or -1 for an open size."""
    found = ((value.name, tensor_type(value.type)) for value in values)
    return {
        name: kind
        if kind.shape is None
        else TensorType(
            kind.dtype,
            tuple(None if isinstance(size, int) and size < 1 else size for size in kind.shape),
        )
        for name, kind in found
        if kind is not None
    }


def tensor_type(proto: TypeProto) -> TensorType | None:
    """Return the type of a tensor, None for sequences, optional values and unknown types."""
    if not proto.HasField("tensor_type"):
        return None
    tensor = proto.tensor_type
    if not tensor.elem_type:
        return None
    if not tensor.HasField("shape"):
        return TensorType(tensor.elem_type)
    dims: list[Dim] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value"):
            dims.append(dim.dim_value)
        else:
            dims.append(dim.dim_param or None)
    return TensorType(tensor.elem_type, tuple(dims))
