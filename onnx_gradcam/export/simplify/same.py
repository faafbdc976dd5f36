"""Nodes that leave a tensor as it is: reshapes to the shape it has, sums over axes of size one.

onnxruntime-training undoes broadcasting that it cannot rule out, with axes worked out at run time.
"""

from __future__ import annotations

from onnx import NodeProto

from onnx_gradcam.export.simplify.added import Added


def skip_same(added: Added, node: NodeProto) -> str | None:
    """Return x for Reshape(x) and Reshape(ReduceSum(x)) of the shape of x, and for Identity(x).

    A sum that can be reshaped to as many elements as it had has run over axes of size one.
    """
    if node.op_type == "Identity":
        return str(node.input[0])
    if node.op_type != "Reshape":
        return None
    result, source = added.shape(node.output[0]), node.input[0]
    reduced = added.made_by(source, "ReduceSum")
    for x in (source, *(reduced.input[:1] if reduced is not None else ())):
        shape = added.shape(x)
        if shape is not None and None not in shape and shape == result:
            return str(x)
    return None
