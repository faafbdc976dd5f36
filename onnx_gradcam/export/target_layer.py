"""Which feature map to explain: candidates, the penultimate one, and a layer given by name.

In: the graph, the score and ``--layer``. Out: a `Layer`: tensor, shape, layout, and why.
Found on the data-flow graph, never by names: a candidate is a spatial feature map that every
path from the image to the score passes through.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnx import NodeProto

from onnx_gradcam.arrangement import Arrangement
from onnx_gradcam.errors import LayerNotFoundError, UnsupportedModelError, nearest_names
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.quantized.layer import computing_node, dequantized, operator
from onnx_gradcam.export.score import Score, format_shape
from onnx_gradcam.export.spatial.feature_maps import FeatureMaps
from onnx_gradcam.export.spatial.token_layer import is_projection, penultimate_tokens
from onnx_gradcam.gradients.emitter import Dim

_CLASSIFIERS = frozenset({"Conv", "ConvInteger", "Gemm", "MatMul", "MatMulInteger"})

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

_MAIN = frozenset({"Add", "Concat", "Gelu", "LayerNormalization", "Mul", "Relu", "Sum"})
"""Operators whose output may be chosen where no feature map is on all paths to the score."""

_SUMS = frozenset({"Add", "Mul", "Sum"})
"""Those of them that join paths, or merely add a bias."""


@dataclass(frozen=True)
class Layer:
    """A feature map that can be explained.

    Attributes:
        tensor: its name in the graph.
        node: name of the node that computes it (its first output where it has no name).
        op_type: operator of that node.
        shape: in the graph's own layout.
        arrangement: how its axes make up a map ``(N, C, *spatial)``.
        reason: why it was chosen; empty for candidates.
    """

    tensor: str
    node: str
    op_type: str
    shape: tuple[Dim, ...]
    arrangement: Arrangement
    reason: str = ""

    @property
    def layout(self) -> str:
        """One letter per axis, e.g. ``NCHW``, ``NHWC``, ``NCW``, ``NTC``; see `Arrangement`."""
        return self.arrangement.layout

    @property
    def channels_first(self) -> tuple[Dim, ...]:
        """Return the shape as ``(N, C, *spatial)``."""
        if self.arrangement.grid:
            batch = self.shape[0] if self.layout.startswith("N") else None
            sizes = () if self.arrangement.source else self.arrangement.grid
            unknown = [None] * (len(self.arrangement.grid) - len(sizes))
            return (batch, self.shape[self.arrangement.channel], *sizes, *unknown)
        return tuple(self.shape[axis] for axis in self.arrangement.channels_first())


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


def find_candidates(
    graph: Graph, image: str, score: Score, maps: FeatureMaps | None = None
) -> list[Layer]:
    """Return the layers to choose from, from the image to the classifier.

    These are the feature maps that all of the score passes through, and the recommended one.

    Raises:
        UnsupportedModelError: the score does not depend on the image.
    """
    maps = maps or FeatureMaps(graph, image)
    layers = _dominating(graph, image, score, maps)
    try:
        best = _penultimate(graph, image, score, maps)
    except UnsupportedModelError:
        return layers
    depth = graph.producer[best.tensor]
    others = [
        layer
        for layer in layers
        if layer.tensor != best.tensor
        and (graph.producer[layer.tensor] < depth or maps.reaches(layer.tensor, score.tensor))
    ]
    return sorted(
        [*others, replace(best, reason="")], key=lambda layer: graph.producer[layer.tensor]
    )


def _dominating(graph: Graph, image: str, score: Score, maps: FeatureMaps) -> list[Layer]:
    """Return the feature maps that all of the score passes through.

    Raises:
        UnsupportedModelError: the score does not depend on the image.
    """
    flow = data_flow(graph, image, score)
    if score.tensor not in flow:
        raise UnsupportedModelError(f"the score {score.tensor!r} does not depend on {image!r}")
    dominators = find_dominators(graph, image, score.tensor, flow)
    classifier = _classifier(graph, dominators)
    before = (
        dominators
        if classifier is None
        else [name for name in dominators if graph.producer.get(name, -1) < classifier]
    )
    found = (layer_of(graph, maps, name) for name in before if name not in {image, score.tensor})
    return [layer for layer in found if layer is not None]


def layer_of(graph: Graph, maps: FeatureMaps, tensor: str) -> Layer | None:
    """Return a tensor as a layer, None where it is no feature map."""
    arrangement, shape = maps.arrangement(tensor), graph.shape(tensor)
    if arrangement is None or shape is None or not graph.is_float(tensor):
        return None
    if dequantized(graph, tensor) != tensor:
        return None
    node = computing_node(graph, tensor)
    layer = Layer(tensor, node.name or tensor, operator(graph, tensor), shape, arrangement)
    return layer if any(size != 1 for size in layer.channels_first[2:]) else None


def choose_layer(
    graph: Graph,
    image: str,
    score: Score,
    layer: str | int = "auto",
    maps: FeatureMaps | None = None,
) -> Layer:
    """Return the layer to explain.

    Args:
        graph: the model.
        image: name of its image input.
        score: the score.
        layer: ``auto`` for the penultimate feature map; else a tensor name, a node name, or an
            index among `find_candidates` (negative from the end).
        maps: the feature maps of the model, where they are known already.

    Raises:
        LayerNotFoundError: no such tensor, node or index.
        UnsupportedModelError: the layer has no spatial axes, or the score does not depend on it;
            or, for ``auto``, the model has no spatial feature map before its classifier.
    """
    maps = maps or FeatureMaps(graph, image)
    if layer == "auto":
        return _penultimate(graph, image, score, maps)
    if isinstance(layer, int) or _is_index(graph, layer):
        candidates = find_candidates(graph, image, score, maps)
        try:
            found = candidates[int(layer)]
        except IndexError:
            raise LayerNotFoundError(
                f"no candidate layer {layer}: there are {len(candidates)} (0 to"
                f" {len(candidates) - 1}); see onnx-gradcam inspect"
            ) from None
        found = replace(found, reason=f"candidate {layer} of inspect")
    else:
        found = _named_layer(graph, image, score, layer, maps)
    _refuse_unreached(graph, image, score, found, maps)
    return found


def _is_index(graph: Graph, layer: str) -> bool:
    return layer not in graph.names and layer.removeprefix("-").isdecimal()


def _penultimate(graph: Graph, image: str, score: Score, maps: FeatureMaps) -> Layer:
    candidates = _dominating(graph, image, score, maps)
    active = [c for c in candidates if c.op_type not in _PASSIVE] or candidates
    active = _without_projections(graph, active)
    if not active:
        return _off_the_main_path(graph, image, score, maps)
    reached = (c for c in reversed(active) if maps.reaches(c.tensor, score.tensor))
    chosen = next(reached, None)
    if chosen is None:
        raise UnsupportedModelError(
            "no feature map whose places in the image reach the score: nothing to draw a heat map"
            " from"
        )
    index = candidates.index(chosen)
    if chosen is not active[-1]:
        behind = active[active.index(chosen) + 1].tensor
        tensor = penultimate_tokens(graph, maps, chosen.tensor, behind)
        layer = layer_of(graph, maps, tensor)
        assert layer is not None, "it is laid out as the chosen one"
        return replace(
            layer,
            reason="what the last attention reads: behind it only the class token reaches the"
            f" score (output of {layer.op_type}; candidate {index} is the feature map before it)",
        )
    readers = [graph.nodes[i].op_type for i in graph.consumers.get(chosen.tensor, [])]
    return replace(
        chosen,
        reason=f"deepest of {len(candidates)} feature maps that all of the score passes through"
        f" (candidate {index}: output of {chosen.op_type}, read by {', '.join(readers)})",
    )


def _without_projections(graph: Graph, layers: list[Layer]) -> list[Layer]:
    """Return the layers without linear maps of tokens that an earlier layer holds as well."""
    kept: list[Layer] = []
    for layer in layers:
        before = kept[-1].arrangement.grid if kept else ()
        same = layer.arrangement.grid == before
        if not (same and is_projection(graph, layer.tensor, layer.arrangement)):
            kept.append(layer)
    return kept


def _off_the_main_path(graph: Graph, image: str, score: Score, maps: FeatureMaps) -> Layer:
    """Return the deepest residual sum, normalisation or activation on some path to the score.

    Raises:
        UnsupportedModelError: no tensor of the model is a feature map.
    """
    flow = data_flow(graph, image, score)
    for node in reversed(graph.nodes):
        tensor = node.output[0] if node.output else ""
        if tensor not in flow or node.op_type not in _MAIN or tensor == score.tensor:
            continue
        if node.op_type in _SUMS and not all(name in flow for name in node.input):
            continue  # a bias or a scale
        layer = layer_of(graph, maps, tensor)
        if layer is not None and maps.reaches(tensor, score.tensor):
            return replace(
                layer,
                reason="deepest feature map on a part of the paths to the score: no single one is"
                f" on all of them (output of {layer.op_type})",
            )
    raise UnsupportedModelError(
        "the model has no spatial feature map: nothing to draw a heat map from; name a layer with"
        " --layer if you know one"
    )


def _refuse_unreached(
    graph: Graph, image: str, score: Score, layer: Layer, maps: FeatureMaps
) -> None:
    """Refuse a layer of which only rows without a place, such as a class token, reach the score.

    Raises:
        UnsupportedModelError: with the nearest layer that works.
    """
    if maps.reaches(layer.tensor, score.tensor):
        return
    nearest = nearest_layer(graph, image, score, layer.tensor, maps)
    raise UnsupportedModelError(
        f"no change of layer {layer.tensor!r} at any place of the image reaches the score"
        f" {score.tensor!r} (only its class token does): its heat map would be empty{nearest}"
    )


def nearest_layer(
    graph: Graph, image: str, score: Score, tensor: str, maps: FeatureMaps | None = None
) -> str:
    """Return ``; the nearest layer that works is 'NAME'`` for messages, empty where none does."""
    maps = maps or FeatureMaps(graph, image)
    works = [
        c.tensor
        for c in find_candidates(graph, image, score, maps)
        if c.op_type not in _PASSIVE and c.tensor != tensor and maps.reaches(c.tensor, score.tensor)
    ]
    if not works:
        return ""
    here = graph.producer.get(tensor, len(graph.nodes))
    name = min(works, key=lambda other: abs(graph.producer[other] - here))
    return f"; the nearest layer that works is {name!r}"


def _named_layer(graph: Graph, image: str, score: Score, name: str, maps: FeatureMaps) -> Layer:
    tensor = dequantized(graph, _find_tensor(graph, name))
    if tensor in {i.name for i in graph.inputs} or tensor not in graph.producer:
        raise LayerNotFoundError(f"{name!r} is an input or a weight, not a layer; see inspect")
    flow = data_flow(graph, image, score)
    if tensor not in graph.leads_to(score.tensor) or score.tensor not in graph.depends_on([tensor]):
        raise UnsupportedModelError(
            f"the score {score.tensor!r} does not depend on layer {name!r}"
            + nearest_layer(graph, image, score, tensor, maps)
        )
    if tensor not in flow:
        raise UnsupportedModelError(f"layer {name!r} does not depend on the image {image!r}")
    shape = graph.shape(tensor)
    if shape is None:
        raise UnsupportedModelError(f"the shape of layer {name!r} is unknown")
    layer = layer_of(graph, maps, tensor)
    if layer is None:
        raise UnsupportedModelError(
            f"layer {name!r} of shape {format_shape(shape)} is no feature map: its elements have no"
            f" place in the image; see onnx-gradcam inspect"
            + nearest_layer(graph, image, score, tensor, maps)
        )
    if tensor == score.tensor:
        raise UnsupportedModelError(f"layer {name!r} is the score itself; choose an earlier one")
    return replace(layer, reason=f"asked for by name {name!r}")


def _find_tensor(graph: Graph, name: str) -> str:
    if name in graph.types or name in graph.producer:
        return name
    for node in graph.nodes:
        if node.name == name:
            return str(node.output[0])
    known = [*graph.producer, *(node.name for node in graph.nodes if node.name)]
    raise LayerNotFoundError(f"no layer {name!r}{nearest_names(name, known)}")


def find_dominators(graph: Graph, image: str, score: str, flow: set[str]) -> list[str]:
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
    """Return the index of the last node with weights, if all of the score is made of its output."""
    variable = graph.depends_on([i.name for i in graph.inputs])
    last = max((i for i, n in enumerate(graph.nodes) if _has_weights(n, variable)), default=None)
    if last is None:
        return None
    return last if any(graph.producer.get(name) == last for name in dominators) else None


def _has_weights(node: NodeProto, variable: set[str]) -> bool:
    return (
        node.op_type in _CLASSIFIERS
        and any(name in variable for name in node.input)
        and any(name and name not in variable for name in node.input)
    )
