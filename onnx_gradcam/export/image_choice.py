"""Which input holds the image, where the user says so; else what `target_layer` finds."""

from __future__ import annotations

from onnx_gradcam.errors import UnsupportedModelError, UsageError, nearest_names
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.score import Score, format_shape
from onnx_gradcam.export.spatial.layouts import lacks_batch
from onnx_gradcam.export.target_layer import image_input


def choose_image(graph: Graph, score: Score, name: str | None = None) -> str:
    """Return the name of the image input.

    Args:
        graph: the model.
        score: the score, which must depend on the image.
        name: the input to take; None for the first one that looks like an image.

    Raises:
        UsageError: the model has no input of that name.
        UnsupportedModelError: the score does not depend on it, or it has no batch axis.
    """
    image = image_input(graph, score) if name is None else _named(graph, score, name)
    if lacks_batch(graph, image):
        raise UnsupportedModelError(
            f"the image {image!r} of shape {format_shape(graph.shape(image) or ())} has no batch"
            " axis; export the model with one, of size 1 if need be"
        )
    return image


def _named(graph: Graph, score: Score, name: str) -> str:
    names = [value.name for value in graph.inputs]
    if name not in names:
        raise UsageError(
            f"the model has no input {name!r} (it has {', '.join(map(repr, names))})"
            + nearest_names(name, names)
        )
    if score.tensor not in graph.depends_on([name]):
        raise UnsupportedModelError(
            f"the score {score.tensor!r} does not depend on the input {name!r}"
        )
    return name
