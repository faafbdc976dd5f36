"""Which feature map to explain: candidates, the penultimate one, and a layer given by name.

In: the graph, the score and ``--layer``. Out: a `Layer`: tensor, shape, layout, and why.
Found on the data-flow graph, never by names: a candidate is a spatial feature map that every
path from the image to the score passes through.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx_gradcam.errors import LayerNotFoundError, UnsupportedModelError, nearest_names
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.layouts import NCHW, spatial_sizes, tensor_layouts
from onnx_gradcam.export.score import Score, format_shape
from onnx_gradcam.gradients.emitter import Dim

_CLASSIFIERS = frozenset({"Gemm", "MatMul", "Conv"})

_PASSIVE = frozenset(
    {
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "DequantizeLinear",
        "Dropout",
        "Flatten",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "LpPool",
        "MaxPool",
        "Pad",
        "QuantizeLinear",
        "Reshape",
        "Slice",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators whose output is not chosen automatically: they pool, move, or precede activations."""


@dataclass(frozen=True)
class Layer:
    """A feature map that can be explained.

    Attributes:
        tensor: its name in the graph.
        node: name of the node that computes it (its first output where it has no name).
        op_type: operator of that node.
        shape: in the graph's own layout.
        layout: one letter per axis, e.g. ``NCHW``, ``NHWC``, ``NCW``, ``NCDHW``.
        reason: why it was chosen; empty for candidates.
    """

    tensor: str
    node: str
    op_type: str
    shape: tuple[Dim, ...]
    layout: str
    reason: str = ""

    @property
    def channels_first(self) -> tuple[Dim, ...]:
        """Return the shape as ``(N, C, *spatial)``."""
        channel = self.layout.index("C")
        rest = [d for i, d in enumerate(self.shape) if i not in {0, channel}]
        return (self.shape[0], self.shape[channel], *rest)


def image_input(graph: Graph, score: Score) -> str:
    """Return the graph input that the score depends on and that looks like an image.

    Raises:
        UnsupportedModelError: the score depends on no input.
    """
    needed = graph.leads_to(score.tensor)
    inputs = [i.name for i in graph.inputs if i.name in needed]
    if not inputs:
        raise UnsupportedModelError(
            f"the score {score.tensor!r} does not depend on any input of the model"
        )
    return max(inputs, key=lambda name: (len(graph.shape(name) or ()) >= 3, -inputs.index(name)))


def data_flow(graph: Graph, image: str, score: Score) -> set[str]:
    """Return the tensors on differentiable paths from the image to the score."""
    return graph.depends_on([image]) & graph.leads_to(score.tensor)


def find_candidates(graph: Graph, image: str, score: Score) -> list[Layer]:
    """Return the spatial feature maps that dominate the score, from the image to the classifier.

    Raises:
        UnsupportedModelError: the score does not depend on the image.
    """
    flow = data_flow(graph, image, score)
    if score.tensor not in flow:
        raise UnsupportedModelError(f"the score {score.tensor!r} does not depend on {image!r}")
    dominators = _dominators(graph, image, score.tensor, flow)
    classifier = _classifier(graph, dominators)
    before = (
        dominators
        if classifier is None
        else [name for name in dominators if graph.producer.get(name, -1) < classifier]
    )
    layouts = tensor_layouts(graph, image)
    candidates = []
    for name in before:
        layout = layouts.get(name)
        shape = graph.shape(name)
        if name == image or layout is None or shape is None:
            continue
        if not _same_rank(graph, image, shape):
            continue
        if not any(size != 1 for size in spatial_sizes(shape, layout)):
            continue
        node = graph.nodes[graph.producer[name]]
        candidates.append(Layer(name, node.name or name, node.op_type, shape, layout))
    return candidates


def choose_layer(graph: Graph, image: str, score: Score, layer: str | int = "auto") -> Layer:
    """Return the layer to explain.

    Args:
        graph: the model.
        image: name of its image input.
        score: the score.
        layer: ``auto`` for the penultimate feature map; else a tensor name, a node name, or an
            index among `find_candidates` (negative from the end).

    Raises:
        LayerNotFoundError: no such tensor, node or index.
        UnsupportedModelError: the layer has no spatial axes, or the score does not depend on it;
            or, for ``auto``, the model has no spatial feature map before its classifier.
    """
    if layer == "auto":
        return _penultimate(find_candidates(graph, image, score), graph)
    if isinstance(layer, int) or _is_index(graph, layer):
        candidates = find_candidates(graph, image, score)
        try:
            found = candidates[int(layer)]
        except IndexError:
            raise LayerNotFoundError(
                f"no candidate layer {layer}: there are {len(candidates)} (0 to"
                f" {len(candidates) - 1}); see onnx-gradcam inspect"
            ) from None
        return _with_reason(found, f"candidate {layer} of inspect")
    return _named_layer(graph, image, score, layer)


def _is_index(graph: Graph, layer: str) -> bool:
    return layer not in graph.names and layer.removeprefix("-").isdecimal()


def _with_reason(layer: Layer, reason: str) -> Layer:
    return Layer(layer.tensor, layer.node, layer.op_type, layer.shape, layer.layout, reason)


def _penultimate(candidates: list[Layer], graph: Graph) -> Layer:
    active = [c for c in candidates if c.op_type not in _PASSIVE] or candidates
    if not active:
        raise UnsupportedModelError(
            "no spatial feature map that all of the score depends on: nothing to draw a heat map"
            " from; name a layer with --layer if you know one"
        )
    chosen = active[-1]
    index = candidates.index(chosen)
    readers = [graph.nodes[i].op_type for i in graph.consumers.get(chosen.tensor, [])]
    return _with_reason(
        chosen,
        f"deepest of {len(candidates)} feature maps that all of the score passes through"
        f" (candidate {index}: output of {chosen.op_type}, read by {', '.join(readers)})",
    )


def _named_layer(graph: Graph, image: str, score: Score, name: str) -> Layer:
    tensor = _find_tensor(graph, name)
    if tensor in {i.name for i in graph.inputs} or tensor not in graph.producer:
        raise LayerNotFoundError(f"{name!r} is an input or a weight, not a layer; see inspect")
    flow = data_flow(graph, image, score)
    if tensor not in graph.leads_to(score.tensor) or score.tensor not in graph.depends_on([tensor]):
        raise UnsupportedModelError(
            f"the score {score.tensor!r} does not depend on layer {name!r};"
            " onnx-gradcam inspect lists the layers that it depends on"
        )
    if tensor not in flow:
        raise UnsupportedModelError(f"layer {name!r} does not depend on the image {image!r}")
    shape = graph.shape(tensor)
    if shape is None:
        raise UnsupportedModelError(f"the shape of layer {name!r} is unknown")
    layout = tensor_layouts(graph, image).get(tensor) or NCHW.get(len(shape))
    if layout is None or not any(size != 1 for size in spatial_sizes(shape, layout)):
        raise UnsupportedModelError(
            f"layer {name!r} of shape {format_shape(shape)} has no spatial axes (N, C, *spatial):"
            " choose a feature map; see onnx-gradcam inspect"
        )
    if not _same_rank(graph, image, shape):
        raise UnsupportedModelError(
            f"layer {name!r} of shape {format_shape(shape)} has not as many spatial axes as the"
            " image: token layouts are not covered; choose a feature map, see onnx-gradcam inspect"
        )
    node = graph.nodes[graph.producer[tensor]]
    return Layer(
        tensor, node.name or tensor, node.op_type, shape, layout, f"asked for by name {name!r}"
    )


def _same_rank(graph: Graph, image: str, shape: tuple[Dim, ...]) -> bool:
    """Return whether a map has as many axes as the image; tokens in a row have not."""
    image_shape = graph.shape(image)
    return image_shape is None or len(image_shape) == len(shape)


def _find_tensor(graph: Graph, name: str) -> str:
    if name in graph.types or name in graph.producer:
        return name
    for node in graph.nodes:
        if node.name == name:
            return str(node.output[0])
    known = [*graph.producer, *(node.name for node in graph.nodes if node.name)]
    raise LayerNotFoundError(f"no layer {name!r}{nearest_names(name, known)}")


def _dominators(graph: Graph, image: str, score: str, flow: set[str]) -> list[str]:
    """Return the tensors that every path passes through, in topological order.

    A tensor t is one exactly when paths(image, t) * paths(t, score) = paths(image, score);
    Python's integers hold the counts however large they grow.
    """
    edges = [
        (name, output)
        for node in graph.nodes
        for output in node.output
        if output in flow
        for name in graph.reads(node)
        if name in flow
    ]
    from_image = dict.fromkeys(flow, 0)
    from_image[image] = 1
    for source, result in edges:  # nodes are in topological order, so are their results
        from_image[result] += from_image[source]
    to_score = dict.fromkeys(flow, 0)
    to_score[score] = 1
    for source, result in reversed(edges):
        to_score[source] += to_score[result]
    total = from_image[score]
    order = [image, *(o for node in graph.nodes for o in node.output if o in flow)]
    return [name for name in order if from_image[name] * to_score[name] == total]


def _classifier(graph: Graph, dominators: list[str]) -> int | None:
    """Return the index of the last node with weights whose output all of the score is made of."""
    variable = graph.depends_on([i.name for i in graph.inputs])
    for name in reversed(dominators):
        index = graph.producer.get(name)
        if index is None:
            continue
        node = graph.nodes[index]
        if node.op_type in _CLASSIFIERS and any(i and i not in variable for i in node.input):
            return index
    return None
