"""The outputs of FullGrad: maps of input and biases at each resolution, and their sum.

In: the graph, and dy/dz for the image and for each output z of an operator that has a bias. Out:
for each resolution the maps |x dy/dx| and |b dy/dz|, stretched to [0, 1] channel by channel and
added up; and x . dy/dx + sum b . dy/dz over everything, which equals y.

Source: Srinivas and Fleuret, arXiv 1905.00780, equations 2 and 3; what is stretched and added, and
in which order, as in pytorch-grad-cam 1.5.7. Enlarging a sum of maps is the sum of enlarged maps,
so that the sum over channels can be taken in the graph, and the outputs stay small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx_gradcam.contract import ACCOUNTED_OUTPUT, BIASES_OUTPUT, layer_output
from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.export.attach import AddedOutput, channels_first
from onnx_gradcam.export.full_gradient.biases import Bias, find_biases
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.objective import Objective
from onnx_gradcam.export.shapes.sizes import is_invented
from onnx_gradcam.export.spatial.feature_maps import FeatureMaps
from onnx_gradcam.export.spatial.layouts import layout_of_image, spatial_sizes
from onnx_gradcam.export.tail import cut_tail
from onnx_gradcam.export.target_layer import Layer, layer_of
from onnx_gradcam.gradients.emitter import TO_THE_END, Dim, Emitter

LINEAR = frozenset({"class", "binary", "segmentation", "detection"})
"""Objectives that are sums of scores."""

EPSILON = 1e-7
"""Added to the maximum before dividing by it, as in `cam.postprocess`."""


@dataclass(frozen=True)
class FullGradient:
    """What FullGrad needs of a network.

    Attributes:
        image: the image input.
        layout: of the image, one letter per axis, e.g. ``NCHW``.
        size: its spatial sizes, None for those that are unknown.
        biases: all biases.
        layers: those of their tensors that are feature maps; the others have no place in the image
            and count in the sum alone.
    """

    image: str
    layout: str
    size: tuple[Dim, ...]
    biases: Sequence[Bias]
    layers: Mapping[str, Layer]

    @property
    def targets(self) -> list[str]:
        """The tensors that the score is differentiated by, the image first."""
        return [self.image, *(bias.tensor for bias in self.biases)]


def plan_full_gradient(graph: Graph, image: str, score: str, objective: Objective) -> FullGradient:
    """Return what FullGrad needs of a network.

    Args:
        graph: the forward model, as gradients see it.
        image: its image input.
        score: the score tensor.
        objective: what y is: a sum of scores, of one class per image.

    Raises:
        UsageError: several classes in one run, or a y that is no sum of scores.
        UnsupportedModelError: operators that leave a part of the score unaccounted for, an image
            that no gradient flows to.
    """
    if objective.several:
        raise UsageError("the full gradient is of one class per image: leave out --several")
    if objective.kind not in LINEAR:
        raise UsageError(
            f"biases do not account for the objective {objective.kind}, which is no sum of scores;"
            " leave the full gradient out"
        )
    layout, shape = layout_of_image(graph, image), graph.shape(image)
    if layout is None or shape is None or not graph.is_float(image):
        raise UnsupportedModelError(
            f"FullGrad multiplies the image {image!r} with its gradient, and that is no float"
            " tensor of known rank; leave the full gradient out"
        )
    biases = find_biases(graph, cut_tail(graph, image, score))
    maps = FeatureMaps(graph, image)
    found = ((bias.tensor, layer_of(graph, maps, bias.tensor)) for bias in biases)
    layers = {tensor: layer for tensor, layer in found if layer is not None}
    return FullGradient(image, layout, _known(spatial_sizes(shape, layout)), biases, layers)


def emit_full_gradient(
    emit: Emitter, full: FullGradient, gradients: Mapping[str, str], batch: Dim
) -> list[AddedOutput]:
    """Emit the outputs and return them, in order.

    Args:
        emit: where to write nodes.
        full: what to make them of.
        gradients: the name of dy/dz for each of its targets.
        batch: the batch size, as outputs declare it.
    """
    maps: dict[tuple[Dim, ...], list[str]] = {}
    sums: list[str] = []
    named = {bias.tensor: bias.value for bias in full.biases}
    for tensor in full.targets:
        with emit.scope(f"full_gradient/{tensor}"):
            value = named[tensor](emit) if tensor in named else tensor
            product = emit.mul(gradients[tensor], value)
            rank = len(emit.shape(tensor) or ())
            assert rank, f"the rank of {tensor} is known: it has a gradient"
            sums.append(emit.reduce_sum(product, range(1, rank), keepdims=False))
            if tensor == full.image:
                maps[full.size] = [_image_map(emit, product, full.layout)]
            elif tensor in full.layers:
                layer = full.layers[tensor]
                size = _known(layer.channels_first[2:])
                key: tuple[Dim, ...] = (*size, tensor) if None in size else size
                maps.setdefault(key, []).append(channels_first(emit, product, layer))
    outputs = []
    with emit.scope("full_gradient"):
        for number, (key, same) in enumerate(maps.items()):
            name, size = layer_output(BIASES_OUTPUT, number), key[: len(full.size)]
            total = emit.sum([_stretched(emit, product, len(size)) for product in same])
            emit.node("Reshape", [total, _map_shape(emit, same[0], size)], output=name)
            outputs.append(AddedOutput(name, emit.dtype(total), [batch, 1, *size]))
        emit.node("Identity", [emit.sum(sums)], output=ACCOUNTED_OUTPUT)
    return [*outputs, AddedOutput(ACCOUNTED_OUTPUT, emit.dtype(sums[0]), [batch])]


def _known(sizes: Sequence[Dim]) -> tuple[Dim, ...]:
    return tuple(None if is_invented(size) else size for size in sizes)


def _image_map(emit: Emitter, product: str, layout: str) -> str:
    """Return a tensor in the layout of the image as ``(N, C, *spatial)``."""
    if "C" not in layout:
        return emit.unsqueeze(product, [1])
    spatial = [axis for axis, letter in enumerate(layout) if letter not in "NC"]
    return emit.transpose(product, [0, layout.index("C"), *spatial])


def _map_shape(emit: Emitter, like: str, size: Sequence[Dim]) -> str:
    """Return the shape ``(N, 1, *spatial)`` as a tensor; 0 is the size that there is."""
    known = [extent for extent in size if isinstance(extent, int)]
    if len(known) == len(size):
        return emit.ints([0, 1, *known])
    spatial = emit.slice(emit.shape_tensor(like), [2], [TO_THE_END], [0])
    return emit.concat([emit.ints([0, 1]), spatial], 0)


def _stretched(emit: Emitter, product: str, spatial_axes: int) -> str:
    """Return the sum over channels of abs(product) stretched to [0, 1], ``(N, 1, places)``.

    It is a product of matrices: ten times as fast in onnxruntime as dividing and then adding up.
    """
    spatial = range(2, 2 + spatial_axes)
    size = emit.unary("Abs", product)
    low, high = (_extreme(emit, op_type, size, spatial) for op_type in ("ReduceMin", "ReduceMax"))
    factor = emit.div(1.0, emit.add(emit.sub(high, low), EPSILON))
    rows = emit.reshape(emit.sub(size, low), [0, 0, -1])
    return emit.matmul(emit.reshape(factor, [0, 1, -1]), rows)


def _extreme(emit: Emitter, op_type: str, x: str, axes: Sequence[int]) -> str:
    if emit.opset >= 18:
        return emit.node(op_type, [x, emit.ints(axes)], keepdims=1)
    return emit.node(op_type, [x], axes=list(axes), keepdims=1)
