"""The model with sizes put in for open axes, so that the shape of every tensor is known.

Positions are followed on this copy: a batch of two where the batch is open (which tells batch
from windows), usual image sizes where height and width are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from onnx import ModelProto, TensorProto, helper

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.spatial.fields import Shape

_IMAGES = 2
_SIZES = (224, 32, 64, 96, 128, 256, 384)
_EMBEDDED = 4096
"""Larger weights are declared by type alone: no index or shape is in them."""


def trial_graph(graph: Graph, image: str) -> Graph | None:
    """Return a graph in which the image has a full shape, None where no size fits."""
    shape = graph.shape(image)
    if shape is None:
        return None
    if all(isinstance(size, int) for size in shape):
        return graph
    for sizes in _candidates(shape):
        trial = Graph(_with_sizes(graph, image, sizes), graph.tensor_values)
        try:
            trial.types  # noqa: B018 - inference tells whether the sizes fit
        except UnsupportedModelError:
            continue
        return trial
    return None


def static_shapes(graph: Graph) -> dict[str, Shape]:
    """Return the shapes that are known in full."""
    shapes = {}
    for name, known in graph.types.items():
        if known.shape is None:
            continue
        sizes = tuple(size for size in known.shape if isinstance(size, int))
        if len(sizes) == len(known.shape):
            shapes[name] = sizes
    return shapes


def _candidates(shape: tuple[int | str | None, ...]) -> Iterator[Shape]:
    open_axes = [i for i, size in enumerate(shape) if i and not isinstance(size, int)]
    for size in _SIZES if open_axes else _SIZES[:1]:
        full = [s if isinstance(s, int) else size for s in shape]
        if not isinstance(shape[0], int):
            full[0] = _IMAGES
        if len(shape) > 3 and 1 in open_axes and len(open_axes) > 2:
            full[1] = 3
        yield tuple(full)


def _with_sizes(graph: Graph, image: str, sizes: Shape) -> ModelProto:
    """Return a light copy: nodes, small weights, and inputs with sizes put in."""
    source = graph.model.graph
    symbols = {
        size: number
        for size, number in zip(graph.shape(image) or (), sizes, strict=True)
        if isinstance(size, str)
    }
    model = ModelProto(ir_version=max(4, graph.model.ir_version))
    model.opset_import.extend(graph.model.opset_import)
    model.functions.extend(graph.model.functions)
    model.graph.name = source.name or "graph"
    model.graph.node.extend(source.node)
    for tensor in source.initializer:
        if math.prod(tensor.dims) <= _EMBEDDED and tensor.data_location != TensorProto.EXTERNAL:
            model.graph.initializer.append(tensor)
        else:
            model.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    for value in graph.inputs:
        shape = graph.shape(value.name)
        known = graph.type_of(value.name)
        if known is None or shape is None:
            model.graph.input.append(value)
            continue
        given = sizes if value.name == image else [symbols.get(str(s), s) for s in shape]
        model.graph.input.append(helper.make_tensor_value_info(value.name, known.dtype, given))
    for value in source.output:
        known = graph.type_of(value.name)
        model.graph.output.append(
            value if known is None else helper.make_tensor_value_info(value.name, known.dtype, None)
        )
    return model
