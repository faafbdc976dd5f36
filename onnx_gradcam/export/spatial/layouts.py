"""Which axis of a feature map is which: batch, channels, space.

Convolutions, poolings and batch normalisations of ONNX are channels-first; elementwise operators
keep the layout of their input, Transpose permutes it, everything else ends what is known.
"""

from __future__ import annotations

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.gradients.emitter import Dim
from onnx_gradcam.gradients.registry import attribute_of

NCHW = {3: "NCW", 4: "NCHW", 5: "NCDHW"}
"""The channels-first layout per rank."""

_CHANNELS_FIRST = frozenset(
    {
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "DepthToSpace",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GroupNormalization",
        "InstanceNormalization",
        "LRN",
        "LpPool",
        "MaxPool",
        "QLinearConv",
        "SpaceToDepth",
    }
)

_LOSES_AXES = frozenset(
    {"Flatten", "Gather", "GatherND", "Gemm", "MatMul", "Reshape", "Squeeze", "Unsqueeze", "Einsum"}
)


def tensor_layouts(graph: Graph, image: str) -> dict[str, str]:
    """Return the layout of every tensor for which it is known, e.g. ``{"relu": "NCHW"}``."""
    layouts: dict[str, str] = {}
    shape = graph.shape(image)
    if shape is not None and (len(shape) in NCHW or lacks_channels(graph, image)):
        layouts[image] = layout_of_image(graph, image) or NCHW[len(shape)]
    for node in graph.nodes:
        if not node.output or not node.output[0]:
            continue
        rank = len(graph.shape(node.output[0]) or ())
        layout: str | None = None
        if node.op_type in _CHANNELS_FIRST:
            layout = NCHW.get(rank)
        elif node.op_type == "Transpose" and node.input[0] in layouts:
            before = layouts[node.input[0]]
            perm = attribute_of(node, "perm", list(range(len(before)))[::-1])
            layout = "".join(before[i] for i in perm)
        elif node.op_type == "MatMul":
            layout = _of_product(layouts.get(node.input[0]))
        elif node.op_type not in _LOSES_AXES:
            known = [layouts[i] for i in node.input if i in layouts and len(layouts[i]) == rank]
            layout = known[0] if known else None
        if layout is not None and len(layout) == rank:
            layouts.update((name, layout) for name in node.output if name)
    return layouts


def _of_product(layout: str | None) -> str | None:
    """Return the layout after a product with weights, which replaces the last axis."""
    return layout if layout is not None and layout.endswith("C") else None


def layout_of_image(graph: Graph, image: str) -> str | None:
    """Return the layout of the image, None where nothing is known of its rank."""
    shape = graph.shape(image)
    if shape is None:
        return None
    if lacks_channels(graph, image):
        return "N" + "DHW"[-(len(shape) - 1) :]
    return image_layout(shape)


def lacks_channels(graph: Graph, image: str) -> bool:
    """Return whether a grey picture or a sound has no axis of channels.

    The first convolution or pooling tells: its input has one axis more than the image then, of
    size one.
    """
    before = _first_window(graph, image)
    return before is not None and before[1] == 1


def lacks_batch(graph: Graph, image: str) -> bool:
    """Return whether the image has no axis of images: the first convolution's input has it."""
    before, shape = _first_window(graph, image), graph.shape(image)
    return before is not None and before[0] == 1 != before[1] and before[1:] == shape


def _first_window(graph: Graph, image: str) -> tuple[Dim, ...] | None:
    """Return the shape that the first convolution or pooling reads, of one axis more, else None."""
    shape = graph.shape(image)
    reached = {image}
    for node in graph.nodes if shape is not None else []:
        if not any(name in reached for name in node.input):
            continue
        if node.op_type in _CHANNELS_FIRST and node.input[0] in reached:
            before = graph.shape(node.input[0]) or ()
            return before if len(before) == len(shape or ()) + 1 > 2 else None
        if node.op_type in _KEEPS_CHANNELS:
            reached.update(node.output)
    return None


_KEEPS_CHANNELS = frozenset(
    {
        *("Add", "Cast", "Clip", "DequantizeLinear", "Div", "Expand", "Identity", "Mul", "Pad"),
        *("QuantizeLinear", "Reshape", "Sub", "Transpose", "Unsqueeze"),
    }
)
"""What exporters write between an image and its first convolution."""


def image_layout(shape: tuple[Dim, ...]) -> str | None:
    """Guess the layout of the image: channels last when only the last axis is 1, 3 or 4 long."""
    first = NCHW.get(len(shape))
    few = {1, 3, 4}
    if first is not None and shape[-1] in few and shape[1] not in few:
        return "N" + first[2:] + "C"
    return first


def spatial_sizes(shape: tuple[Dim, ...], layout: str) -> list[Dim]:
    """Return the sizes of the spatial axes of a shape."""
    return [size for size, axis in zip(shape, layout, strict=True) if axis not in "NC"]
