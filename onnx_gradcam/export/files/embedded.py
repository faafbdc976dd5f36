"""Write a model into one file, its unread weights copied from the file that they lie in.

The bytes are those of ``SerializeToString(deterministic=True)`` of the whole model, but the whole
is never in memory: the model is serialised with empty values, and these are filled in on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from onnx import ModelProto

from onnx_gradcam.export.files.unread import Place, fill, place_of
from onnx_gradcam.onnx_fields import RAW_DATA_IN_TENSOR, InGraph, InModel
from onnx_gradcam.wire import Field, Span, fields, header


class _Fill(NamedTuple):
    """An initializer whose values are to be filled in.

    Attributes:
        field: the initializer.
        gap: the field of its values, which are empty.
        place: where they lie.
    """

    field: Field
    gap: Field
    place: Place

    @property
    def grown(self) -> int:
        """Length of the initializer with its values."""
        body, gap = self.field.body, self.gap.whole
        empty = body.end - body.start - (gap.end - gap.start)
        return empty + len(header(RAW_DATA_IN_TENSOR, self.place.length)) + self.place.length


def write_embedded(model: ModelProto, file: BinaryIO) -> int:
    """Write a model and return the number of bytes.

    Args:
        model: its unread weights, if any, become weights with empty values.
        file: where to write, unbuffered or not.

    Raises:
        InvalidModelError: unread weights cannot be read any more.
    """
    places = {}
    for index, tensor in enumerate(model.graph.initializer):
        place = place_of(tensor)
        if place is not None:
            fill(tensor, place, b"")
            places[index] = place
    data = memoryview(model.SerializeToString(deterministic=True))
    if not places:
        return file.write(data)
    written = 0
    for chunk in _chunks(data, places):
        written += file.write(chunk)
    return written


def _chunks(data: memoryview, places: dict[int, Place]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of the model with all values in it."""
    (graph,) = (f for f in fields(data, Span(0, len(data))) if f.number == InModel.GRAPH)
    fills = list(_fills(data, graph.body, places))
    length = graph.body.end - graph.body.start
    for one in fills:
        before = one.field.whole.end - one.field.whole.start
        length += len(header(InGraph.INITIALIZER, one.grown)) + one.grown - before
    yield data[: graph.whole.start]
    yield header(InModel.GRAPH, length)
    behind = graph.body.start
    for one in fills:
        yield data[behind : one.field.whole.start]
        yield header(InGraph.INITIALIZER, one.grown)
        yield data[one.field.body.start : one.gap.whole.start]
        yield header(RAW_DATA_IN_TENSOR, one.place.length)
        yield from one.place.chunks()
        yield data[one.gap.whole.end : one.field.body.end]
        behind = one.field.whole.end
    yield data[behind:]


def _fills(data: memoryview, graph: Span, places: dict[int, Place]) -> Iterator[_Fill]:
    initializers = (f for f in fields(data, graph) if f.number == InGraph.INITIALIZER)
    for index, field in enumerate(initializers):
        if index in places:
            (gap,) = (f for f in fields(data, field.body) if f.number == RAW_DATA_IN_TENSOR)
            yield _Fill(field, gap, places[index])
