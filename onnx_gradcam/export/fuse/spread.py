"""A gradient that is the same at all positions, before it is spread over them.

Behind a global average pooling the export builds dy/dA as an Expand of ``(N, C, 1, 1)``. Its mean
over the positions is what was expanded; where nothing else reads the expanded gradient, it need
not be computed at all. That saves a third of what Grad-CAM adds to a small network.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto, NodeProto, helper, shape_inference

from onnx_gradcam.export.shapes.type_protos import declared_types
from onnx_gradcam.gradients.emitter import Dim, Emitter

_IR = 10

_CALM = frozenset({"Identity", "Transpose"})
"""What lies between the Expand and an output that is channels first."""


def before_spreading(emit: Emitter, gradients: str, shape: Sequence[Dim]) -> str | None:
    """Return G before it was expanded, ``(N, [T,] C, 1, ...)``; None where it was not.

    Args:
        emit: holds the nodes that compute G.
        gradients: G, ``(N, [T,] C, *spatial)``.
        shape: of A, ``(N, C, *spatial)``.
    """
    makers = {output: node for node in emit.nodes for output in node.output}
    moves: list[NodeProto] = []
    node = makers.get(gradients)
    while node is not None and node.op_type in _CALM:
        moves.append(node)
        node = makers.get(node.input[0])
    if node is None or node.op_type != "Expand":
        return None
    found = _shape(emit, node.input[0])
    perms = [_perm(move) for move in moves if move.op_type == "Transpose"]
    for perm in reversed(perms):
        found = [found[axis] for axis in perm] if len(perm) == len(found) else []
    spatial = len(shape) - 2
    if not spatial < len(found) - 1 or found[-spatial:] != [1] * spatial:
        return None
    if found[-spatial - 1] != shape[1] or not isinstance(shape[1], int):
        return None
    name = str(node.input[0])
    for perm in reversed(perms):
        name = emit.transpose(name, perm)
    return name


def _perm(node: NodeProto) -> list[int]:
    return [
        int(i) for attribute in node.attribute if attribute.name == "perm" for i in attribute.ints
    ]


def _shape(emit: Emitter, name: str) -> list[Dim]:
    """Return the shape of an emitted tensor, empty where it is unknown.

    It is inferred from the nearest tensors whose shapes are known.
    """
    nodes, read = _leading_to(emit, name)
    model = ModelProto(ir_version=_IR)
    model.opset_import.add(domain="", version=emit.opset)
    graph = model.graph
    graph.name = "gradient"
    graph.node.extend(nodes)
    graph.initializer.extend(tensor for tensor in emit.initializers if tensor.name in read)
    constants = {tensor.name for tensor in graph.initializer}
    for given in sorted(read - constants):
        known = emit.type_of(given)
        if known is not None:
            graph.input.append(helper.make_tensor_value_info(given, known.dtype, known.shape))
    graph.output.add(name=name)
    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # nothing is known then, and the gradient is read as it is
        return []
    found = declared_types([*inferred.graph.input, *inferred.graph.output]).get(name)
    return [] if found is None else list(found.shape or ())


def _leading_to(emit: Emitter, name: str) -> tuple[list[NodeProto], set[str]]:
    """Return the emitted nodes from tensors of known shape to one, and these tensors."""
    makers = {output: node for node in emit.nodes for output in node.output}
    wanted, read, kept = [name], set(), {}
    while wanted:
        tensor = wanted.pop()
        node = makers.get(tensor)
        if node is None or emit.shape(tensor) is not None:
            read.add(tensor)
        elif node.name not in kept:
            kept[node.name] = node
            wanted += [given for given in node.input if given]
    return [node for node in emit.nodes if node.name in kept], read
