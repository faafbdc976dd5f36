"""The second derivative of y by A, times A: what ShapleyCAM needs beside the gradient.

In: the model with its gradient written. Out: H A, with H = d2y/dA2: the gradient of <dy/dA, v> by
A at v = A. H is symmetric, so one more reversed walk, over the nodes of the gradient, gives it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, helper

from onnx_gradcam.contract import CURVATURE_OUTPUT
from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.export.attach import AddedInput, channels_first
from onnx_gradcam.export.builders.reverse import build_reverse
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.objective import Objective
from onnx_gradcam.export.precision import HALVES
from onnx_gradcam.export.tail import cut_tail
from onnx_gradcam.export.target_layer import Layer
from onnx_gradcam.gradients.emitter import Emitter


def check_curvature(graph: Graph, layer: Layer, objective: Objective) -> None:
    """Check that second derivatives can be had.

    Raises:
        UsageError: of several classes in one run.
        UnsupportedModelError: of a layer in half precision.
    """
    if objective.several:
        raise UsageError("second derivatives are of one class per image: leave out --several")
    arrangement = layer.arrangement
    if arrangement.has_other_rows and (arrangement.source or "N" not in arrangement.layout):
        raise UnsupportedModelError(
            f"second derivatives at layer {layer.tensor!r} are not covered: it has rows without a"
            " place (class tokens), and how many rows an image has is not known at export"
        )
    known = graph.type_of(layer.tensor)
    if known is not None and known.dtype in HALVES:
        raise UnsupportedModelError(
            f"second derivatives at layer {layer.tensor!r} in half precision are not covered;"
            " convert the model to float32"
        )


def emit_curvature(
    emit: Emitter, graph: Graph, layer: Layer, gradient: str, inputs: Sequence[AddedInput]
) -> str:
    """Emit H A, channels first, as the curvature output; zeros where dy/dA does not depend on A.

    Args:
        emit: holds the nodes of the gradient.
        graph: the forward model.
        layer: the explained layer A.
        gradient: dy/dA, in the shape of A.
        inputs: what the gradient takes beside the inputs of the model.

    Raises:
        UnsupportedModelError: an operator of the gradient has no gradient formula itself.
    """
    whole = _with_gradient(graph, emit, inputs)
    for name, known in whole.types.items():
        if emit.shape(name) is None:
            emit.declare(name, known.dtype, known.shape)
    with emit.scope("curvature"):
        product = emit.zeros_like(layer.tensor)
        tail = cut_tail(whole, layer.tensor, gradient)
        if tail.nodes:
            try:
                product = build_reverse(whole, tail, emit, _placed(emit, graph, layer))
            except UnsupportedModelError as error:
                if "is zero everywhere" not in str(error):
                    raise UnsupportedModelError(f"second derivatives: {error}") from error
    return channels_first(emit, product, layer, CURVATURE_OUTPUT)


def _placed(emit: Emitter, graph: Graph, layer: Layer) -> str:
    """Return A, zero in rows without a place: class tokens are no part of the map."""
    arrangement, shape = layer.arrangement, graph.shape(layer.tensor)
    if not arrangement.has_other_rows or shape is None:
        return layer.tensor
    letters = zip(arrangement.layout, shape, strict=True)
    sizes = tuple(1 if letter in "NC" else int(size or 1) for letter, size in letters)
    ones = np.ones((1, 1, *arrangement.grid), np.float32)
    return emit.mul(layer.tensor, emit.filled(arrangement.from_map(ones, sizes), layer.tensor))


def _with_gradient(graph: Graph, emit: Emitter, inputs: Sequence[AddedInput]) -> Graph:
    """Return the forward model with the nodes that were emitted."""
    model = ModelProto()
    model.CopyFrom(graph.model)
    model.graph.input.extend(
        helper.make_tensor_value_info(i.name, i.dtype, i.shape) for i in inputs
    )
    present = {t.name for t in model.graph.initializer}
    made = {name for node in model.graph.node for name in node.output}
    model.graph.initializer.extend(t for t in emit.initializers if t.name not in present)
    model.graph.node.extend(n for n in emit.nodes if not made & set(n.output))
    return Graph(model, graph.tensor_values)
