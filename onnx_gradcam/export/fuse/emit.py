"""The output ``cam``: a raw map by a method, ReLU, and where asked for another size and [0, 1].

What a map looks like that shows nothing is decided here, as `onnx_gradcam.cam.painting` does in
NumPy. An image whose raw map holds NaN or infinity gets zeros. Where maps are stretched to [0, 1],
one that is nowhere positive or the same everywhere, to rounding, gets zeros as well; the scale
tells them apart. Without stretching such a map is what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import TensorProto

from onnx_gradcam.cam.painting import CONTRAST
from onnx_gradcam.cam.postprocess import EPSILON
from onnx_gradcam.contract import (
    ACTIVATIONS_OUTPUT,
    CAM_OUTPUT,
    GRADIENTS_OUTPUT,
    PREFIX,
    SCALES_OUTPUT,
)
from onnx_gradcam.errors import UsageError
from onnx_gradcam.export.attach import AddedOutput
from onnx_gradcam.export.fuse.methods import FUSABLE, Site
from onnx_gradcam.export.fuse.options import INPUT, MAP, Fusion
from onnx_gradcam.export.fuse.resize import resize
from onnx_gradcam.export.fuse.spread import before_spreading
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.shapes.sizes import is_invented
from onnx_gradcam.export.spatial.layouts import image_layout, lacks_channels
from onnx_gradcam.export.target_layer import Layer
from onnx_gradcam.gradients.emitter import Dim, Emitter
from onnx_gradcam.gradients.reduction import reduced
from onnx_gradcam.gradients.sizes import Size, size_of, sizes_of

FUSED_GRADIENTS = PREFIX + "fused/gradients"
"""G as the CAM reads it where that is not `GRADIENTS_OUTPUT`: before it is spread over space."""


@dataclass(frozen=True)
class Image:
    """The image input: its name, and which of its axes are the spatial ones."""

    name: str
    axes: Sequence[int]

    @classmethod
    def of(cls, graph: Graph, name: str, layer: Layer, layout: str | None) -> Image:
        """Find the spatial axes, as the loader does.

        Args:
            graph: the model.
            name: of the image input.
            layer: whose layout decides where the shape of the image does not.
            layout: ``NCHW`` or ``NHWC`` where the preprocessing says so.
        """
        shape = graph.shape(name)
        rank = len(layer.channels_first) if shape is None else len(shape)
        if shape is not None and lacks_channels(graph, name):
            return cls(name, range(1, rank))
        if layout is None and shape is not None:
            open_ends = not isinstance(shape[1], int) and not isinstance(shape[-1], int)
            layout = layer.layout if open_ends else image_layout(shape)
        last = layout is not None and layout.endswith("C")
        return cls(name, range(1, rank - 1) if last else range(2, rank))


def emit_cam(
    emit: Emitter,
    fusion: Fusion,
    shape: Sequence[Dim],
    image: Image,
    *,
    classes: Sequence[Dim] = (),
) -> list[AddedOutput]:
    """Emit the CAM of A and G, and return the outputs that it adds.

    Args:
        emit: has emitted A and G as `ACTIVATIONS_OUTPUT` and `GRADIENTS_OUTPUT`.
        fusion: what to emit.
        shape: of A, ``(N, C, *spatial)``, as far as it is known.
        image: where the size of the image is read.
        classes: ``()`` for G of A's shape, ``(T,)`` for G ``(N, T, C, *spatial)``.

    Raises:
        UsageError: a size of other axes than A.
        UnsupportedModelError: the CAM cannot be resized in this opset.
    """
    with emit.scope("fused"):
        site = _site(emit, shape, several=bool(classes))
        sizes = _wanted(emit, fusion, shape, image)
        raw = FUSABLE[fusion.method](site)
        maps = _Maps(emit, len(shape) - 2, sizes_of(emit, ACTIVATIONS_OUTPUT, range(2, len(shape))))
        extents: list[Dim] = [None if is_invented(size) else size for size in shape[2:]]
        if sizes is not None:
            extents = [size if isinstance(size, int) else None for size in sizes]
        rows = [shape[0], *(classes or (1,))]
        outputs = [AddedOutput(CAM_OUTPUT, TensorProto.FLOAT, [*rows, *extents])]
        if not fusion.normalise:
            cam = maps.sized(maps.positive(raw), sizes)
        else:
            cam, scales = maps.normalised(raw, sizes)
            emit.node("Identity", [scales], output=SCALES_OUTPUT)
            outputs.append(AddedOutput(SCALES_OUTPUT, TensorProto.FLOAT, [*rows, 2]))
        emit.node("Identity", [cam], output=CAM_OUTPUT)
    return outputs


def _site(emit: Emitter, shape: Sequence[Dim], several: bool) -> Site:
    emit.declare(ACTIVATIONS_OUTPUT, emit.dtype(ACTIVATIONS_OUTPUT), shape)
    spread = before_spreading(emit, GRADIENTS_OUTPUT, shape)
    if spread is not None:
        spread = emit.node("Identity", [spread], output=FUSED_GRADIENTS)
        spread = emit.cast(spread, TensorProto.FLOAT)
    return Site(
        emit,
        emit.cast(ACTIVATIONS_OUTPUT, TensorProto.FLOAT),
        emit.cast(GRADIENTS_OUTPUT, TensorProto.FLOAT),
        shape,
        classes=several,
        spread=spread,
    )


def _wanted(
    emit: Emitter, fusion: Fusion, shape: Sequence[Dim], image: Image
) -> Sequence[Size] | None:
    """Return the extents that are asked for, None for those of A.

    Raises:
        UsageError: they are of other axes.
    """
    spatial = len(shape) - 2
    if fusion.size == MAP:
        return None
    extents: Sequence[Size]
    if fusion.size == INPUT:
        extents = [size_of(emit, image.name, axis) for axis in image.axes]
    else:
        extents = [int(size) for size in fusion.size]
    if len(extents) != spatial:
        raise UsageError(
            f"a CAM with {spatial} spatial axes cannot be given the size {fusion.size!r} of"
            f" {len(extents)}"
        )
    return extents


@dataclass(frozen=True)
class _Maps:
    """What is done with maps ``(N, T, *spatial)``.

    Attributes:
        emit: where to write nodes.
        spatial: the number of spatial axes.
        sizes: their extents.
    """

    emit: Emitter
    spatial: int
    sizes: Sequence[Size]

    @property
    def space(self) -> list[int]:
        """The spatial axes."""
        return list(range(2, 2 + self.spatial))

    def positive(self, raw: str) -> str:
        """Return relu(raw), 0 for a map that is not finite (from opset 9 on, which has Where)."""
        emit = self.emit
        finite = emit.less(self._nan_or_zero(raw), 1.0)
        return emit.where(finite, emit.unary("Relu", raw), 0.0)

    def sized(self, maps: str, sizes: Sequence[Size] | None) -> str:
        """Return maps resized; as they are for no sizes."""
        return maps if sizes is None else resize(self.emit, maps, self.sizes, sizes)

    def normalised(self, raw: str, sizes: Sequence[Size] | None) -> tuple[str, str]:
        """Return maps in [0, 1], and what 0 and 1 stand for, ``(N, T, 2)``.

        Normalise, resize, normalise, with the constants of `onnx_gradcam.cam.heat_maps`.
        """
        emit = self.emit
        positive, broken = emit.unary("Relu", raw), self._nan_or_zero(raw)
        low, high = self._least(positive), self._largest(positive)
        extent = emit.sub(high, low)
        shows = emit.greater(emit.add(extent, broken), emit.mul(high, CONTRAST))
        stretched = _stretched(emit, emit.sub(positive, low), extent)
        if sizes is None:  # the least is 0, the largest is known
            again = _stretched(emit, stretched, _stretched(emit, extent, extent))
            cam = emit.where(shows, again, 0.0)
        else:
            resized = self.sized(emit.where(shows, stretched, 0.0), sizes)
            shifted = emit.sub(resized, self._least(resized))
            cam = _stretched(emit, shifted, self._largest(shifted))
        ends = emit.concat([emit.add(end, broken) for end in (low, high)], 1 + self.spatial)
        return cam, emit.reshape(ends, [0, 0, 2])

    def _nan_or_zero(self, raw: str) -> str:
        """Return NaN for each map that holds NaN or infinity, else 0, ``(N, T, 1, ...)``."""
        return self.emit.reduce_sum(self.emit.sub(raw, raw), self.space)

    def _least(self, maps: str) -> str:
        return reduced(self.emit, "ReduceMin", maps, self.space)

    def _largest(self, maps: str) -> str:
        return reduced(self.emit, "ReduceMax", maps, self.space)


def _stretched(emit: Emitter, values: str, largest: str) -> str:
    """Return values / (largest + epsilon)."""
    return emit.div(values, emit.add(largest, float(EPSILON)))
