"""Copies what some tensors need out of a model, byte for byte, as a model of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from io import BytesIO

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.onnx_fields import NAME_IN_VALUE_INFO, InGraph, InModel
from onnx_gradcam.runtime.cutting.index import ModelIndex
from onnx_gradcam.wire import Span, bytes_field, encoded, header, number_field

_TYPE_IN_VALUE_INFO = 2
_TENSOR_IN_TYPE = 1
_ELEMENT_IN_TENSOR = 1

Piece = bytes | Span


def cut(
    model: ModelIndex, outputs: Sequence[str], inputs: Mapping[str, int] | None = None
) -> bytes:
    """Return a serialised model that computes some tensors of another one.

    It holds the nodes, initializers and declarations that they need, copied as they are, and what
    surrounds the graph: versions, functions, fields of newer formats. Metadata are left out.

    Args:
        model: the model.
        outputs: names of the tensors; those that are no outputs of the model become ones without
            a type, which onnxruntime infers.
        inputs: element type (``TensorProto.DataType``) of each tensor that is to be fed, in place
            of what computes it; of any shape.

    Raises:
        UnsupportedModelError: a tensor that nothing computes, or one to be fed that is computed
            nevertheless, by a node that gives another one too.
    """
    fed = dict(inputs or {})
    nodes, read = needed(model, outputs, fed)
    given = {name for i in nodes for name in model.nodes[i].outputs}
    twice = sorted(given & set(fed))
    if twice:
        raise UnsupportedModelError(
            f"{twice[0]!r} cannot be fed: the node that computes it also computes what is needed"
        )
    body: list[Piece] = [model.nodes[i].span for i in nodes]
    body += [span for name, span in model.initializers.items() if name in read]
    body += [span for name, span in model.inputs.items() if name in read]
    body += [_declared(InGraph.INPUT, name, kind) for name, kind in fed.items()]
    body += [model.outputs.get(name, _declared(InGraph.OUTPUT, name)) for name in outputs]
    known = (given | read) - set(outputs)
    for table in (model.value_info, model.quantization):
        body += [span for name, spans in table.items() if name in known for span in spans]
    body += model.within
    size = sum(_size(piece) for piece in body)
    out = BytesIO()
    for piece in (*model.around, header(InModel.GRAPH, size), *body):
        out.write(model.data[piece.start : piece.end] if isinstance(piece, Span) else piece)
    return out.getvalue()


def needed(
    model: ModelIndex, outputs: Sequence[str], fed: Collection[str] = ()
) -> tuple[list[int], set[str]]:
    """Return what computes some tensors: nodes by number, and the initializers and inputs read.

    Raises:
        UnsupportedModelError: a tensor that nothing computes.
    """
    nodes: set[int] = set()
    read: set[str] = set()
    waiting = [name for name in outputs if name not in fed]
    while waiting:
        name = waiting.pop()
        if name in model.producer:
            number = model.producer[name]
            if number not in nodes:
                nodes.add(number)
                waiting += model.nodes[number].reads.difference(fed)
        elif name in model.initializers or name in model.inputs:
            read.add(name)
        else:
            raise UnsupportedModelError(f"nothing in the model computes {name!r}")
    return sorted(nodes), read


def _declared(kind: InGraph, name: str, element_type: int | None = None) -> bytes:
    """Return the declaration of a tensor of any shape."""
    info = bytes_field(NAME_IN_VALUE_INFO, encoded(name))
    if element_type is not None:
        tensor = number_field(_ELEMENT_IN_TENSOR, element_type)
        info += bytes_field(_TYPE_IN_VALUE_INFO, bytes_field(_TENSOR_IN_TYPE, tensor))
    return bytes_field(kind, info)


def _size(piece: Piece) -> int:
    return piece.end - piece.start if isinstance(piece, Span) else len(piece)
