"""The model with sizes put in for open axes, so that the shape of every tensor is known.

Positions are followed on this copy: a batch of two where the batch is open (which tells batch
from windows), usual image sizes where height and width are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, TensorProto, helper

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.spatial.fields import Shape

_IMAGES = (2, 1)
"""Batches to try: a model that was traced with one image may be right for one alone."""

_SIZES = (224, 32, 64, 96, 128, 256, 384, 240, 336, 448, 512, 518)
_EMBEDDED = 4096
"""Larger weights are declared by type alone: no index or shape is in them."""


def trial_graph(graph: Graph, image: str) -> Graph | None:
    """Return a graph in which the image has a full shape, None where no size fits."""
    shape = graph.shape(image)
    if shape is None:
        return None
    if all(isinstance(size, int) for size in shape):
        return graph
    first = None
    for sizes in _candidates(shape):
        trial = Graph(_with_sizes(graph, image, sizes), graph.tensor_values)
        try:
            fits = _fits(trial, sizes[0])
        except UnsupportedModelError:
            continue
        if fits:
            return trial
        first = first or trial
    return first


def _fits(trial: Graph, images: int) -> bool:
    """Return whether no operator and no output contradicts the sizes that were put in."""
    shapes = static_shapes(trial)
    for node in trial.nodes:
        names = (*node.input[:2], node.output[0])
        known = [shapes[name] for name in names if name in shapes]
        if node.op_type in _BROADCAST and not _broadcasts(known):
            return False  # the result of two that do not fit has no shape
        before, after = shapes.get(names[0]), shapes.get(names[-1])
        if node.op_type != "Reshape" or before is None or after is None:
            continue
        if math.prod(before) != math.prod(after):
            return False
    batches = {shapes[name][0] for name in trial.outputs if shapes.get(name)}
    return not batches or images in batches


_BROADCAST = frozenset({"Add", "Div", "Mul", "Sub"})


def _broadcasts(shapes: list[Shape]) -> bool:
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        return False
    return True


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
        if len(shape) > 3 and 1 in open_axes and len(open_axes) > 2:
            full[1] = 3
        for images in _IMAGES if not isinstance(shape[0], int) else (shape[0],):
            yield (images, *full[1:])


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
