"""Operators that move values, in Slice, Gather, Pad, Expand, Reshape, Transpose.

Some are rewritten although the builder takes them, because it would get them wrong: it forgets
the unused outputs of Split, the axes of Pad and the broadcasting of Where.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnx_gradcam.export.builders.rules.site import Rule, Site
from onnx_gradcam.export.builders.training_graph import GradientGraphError
from onnx_gradcam.export.graph import describe
from onnx_gradcam.gradients.emitter import Dim


def dropout(at: Site) -> bool:
    """Dropout(x) -> Identity(x): a model for inference drops nothing."""
    training, mask = at.constant(at.input(2)), at.output(1)
    if at.input(2) and (training is None or bool(training)):
        return False
    if mask and (mask in at.graph.consumers or mask in at.graph.outputs):
        return False
    at.emit("Identity", at.x, into=at.y)
    return True


def split(at: Site) -> bool:
    """Split(x), some outputs of it without a gradient -> one Slice per output.

    Raises:
        GradientGraphError: the sizes of the parts are not known.
    """
    outputs = [name for name in at.node.output if name]
    if all(name in at.carriers for name in outputs):
        return False
    axis, sizes = at.attribute("axis", 0), _split_sizes(at)
    if sizes is None:
        raise GradientGraphError(
            f"the parts of {describe(at.node, at.opset)} have no known sizes, and not all of"
            " them are used; onnxruntime-training cannot differentiate it"
        )
    ends = np.cumsum(sizes).tolist()
    for name, size, end in zip(at.node.output, sizes, ends, strict=True):
        if name:
            at.emit("Slice", at.x, [end - size], [end], [axis], into=name)
    return True


def _split_sizes(at: Site) -> list[int] | None:
    given = at.attribute("split")
    if given is not None:
        return list(given)
    if at.input(1):
        return at.integers(at.input(1))
    shape, parts = at.shape(at.x), len(at.node.output)
    size = shape[at.attribute("axis", 0)] if shape else None
    if not isinstance(size, int):
        return None
    part = -(-size // parts)
    return [part] * (parts - 1) + [size - part * (parts - 1)]


def pad(at: Site) -> bool:
    """Pad(x) along some axes -> Pad along all; Pad by values of x -> Gather of them.

    Raises:
        GradientGraphError: the axes or the padding are not known.
    """
    mode = at.attribute("mode", "constant")
    if mode == "constant" and not at.input(3):
        return False
    shape, pads = at.shape(at.x), at.integers(at.input(1))
    axes = at.integers(at.input(3)) if at.input(3) else list(range(len(shape or ())))
    if shape is None or pads is None or axes is None:
        raise GradientGraphError(
            f"the padding of {describe(at.node, at.opset)} is only known at run time;"
            " onnxruntime-training cannot differentiate it"
        )
    rank = len(shape)
    begins, ends = dict.fromkeys(range(rank), 0), dict.fromkeys(range(rank), 0)
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        begins[axis % rank], ends[axis % rank] = begin, end
    if mode != "constant":
        return _gathered(at, shape, [(begins[a], ends[a]) for a in range(rank)], mode)
    widths = [*begins.values(), *ends.values()]
    at.emit("Pad", at.x, widths, *filter(None, [at.input(2)]), into=at.y, mode="constant")
    return True


def _gathered(at: Site, shape: Sequence[Dim], widths: Sequence[tuple[int, int]], mode: Any) -> bool:
    """Pad by the values at the edge, mirrored or wrapped, axis by axis."""
    padded = [axis for axis, width in enumerate(widths) if any(width)]
    current = at.x
    for axis in padded:
        size, width = shape[axis], widths[axis]
        if not isinstance(size, int) or min(width) < 0:
            return False
        indices = np.pad(np.arange(size), width, mode=mode)
        into = at.y if axis == padded[-1] else None
        current = at.emit("Gather", current, indices.tolist(), axis=axis, into=into)
    if not padded:
        at.emit("Identity", at.x, into=at.y)
    return True


def where(at: Site) -> bool:
    """Where(c, a, b), a or b broadcast -> Where(c, Expand(a), Expand(b))."""
    result = at.shape(at.y)
    condition, *branches = at.node.input
    broadcast = [
        at.constant(name) is None and (result is None or None in result or at.shape(name) != result)
        for name in branches
    ]
    if not any(broadcast):
        return False
    sizes = at.static_shape(at.y)
    shape = (
        at.filled(np.asarray(sizes, np.int64))
        if sizes is not None
        else at.emit("Shape", at.emit("Where", condition, *branches))
    )
    expanded = [
        at.emit("Expand", name, shape) if wanted else name
        for name, wanted in zip(branches, broadcast, strict=True)
    ]
    at.emit("Where", condition, *expanded, into=at.y)
    return True


def depth_to_space(at: Site) -> bool:
    """DepthToSpace(x) -> Reshape, Transpose, Reshape."""
    sizes, block = _image_sizes(at), at.attribute("blocksize")
    if sizes is None:
        return False
    channels, height, width = sizes[0] // block**2, *sizes[1:]
    if at.attribute("mode", "DCR") == "DCR":
        split_shape, order = [0, block, block, channels, height, width], [0, 3, 4, 1, 5, 2]
    else:
        split_shape, order = [0, channels, block, block, height, width], [0, 1, 4, 2, 5, 3]
    blocks = at.emit("Reshape", at.x, split_shape)
    moved = at.emit("Transpose", blocks, perm=order)
    at.emit("Reshape", moved, [0, channels, height * block, width * block], into=at.y)
    return True


def space_to_depth(at: Site) -> bool:
    """SpaceToDepth(x) -> Reshape, Transpose, Reshape."""
    sizes, block = _image_sizes(at), at.attribute("blocksize")
    if sizes is None:
        return False
    channels, height, width = sizes[0], sizes[1] // block, sizes[2] // block
    blocks = at.emit("Reshape", at.x, [0, channels, height, block, width, block])
    moved = at.emit("Transpose", blocks, perm=[0, 3, 5, 1, 2, 4])
    at.emit("Reshape", moved, [0, channels * block**2, height, width], into=at.y)
    return True


def _image_sizes(at: Site) -> list[int] | None:
    """Return C, H, W where they are known."""
    shape = at.shape(at.x)
    sizes = [d for d in (shape or ())[1:] if isinstance(d, int)]
    return sizes if len(sizes) == 3 else None


def resize(at: Site) -> bool:
    """Resize(x) with scales of some axes -> with scales of all; the builder forgets the axes.

    Raises:
        GradientGraphError: it is antialiased, which the builder forgets, too.
    """
    if at.attribute("antialias", 0):
        raise GradientGraphError(
            f"{describe(at.node, at.opset)} is antialiased;"
            " onnxruntime-training cannot differentiate it"
        )
    axes, rank, scales = at.attribute("axes"), at.rank(at.x), at.constant(at.input(2))
    if axes is None or rank is None or scales is None or not scales.size or at.input(1):
        return False
    full = np.ones(rank, np.float32)
    full[[axis % rank for axis in axes]] = scales
    kept = [a for a in at.node.attribute if a.name != "axes"]
    at.replace([at.x, "", at.filled(full)], [at.y])
    del at.nodes[-1].attribute[:]
    at.nodes[-1].attribute.extend(kept)
    return True


def scatter(at: Site) -> bool:
    """Leave a scatter as it is, if it replaces.

    Raises:
        GradientGraphError: it adds, or combines otherwise; the builder would take it to replace.
    """
    if at.attribute("reduction", "none") != "none":
        raise GradientGraphError(
            f"onnxruntime-training has no gradient for {describe(at.node, at.opset)} with"
            f" reduction={at.attribute('reduction')}"
        )
    return False


RULES: dict[str, Rule] = {
    "DepthToSpace": depth_to_space,
    "Dropout": dropout,
    "Pad": pad,
    "Resize": resize,
    "ScatterElements": scatter,
    "ScatterND": scatter,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Where": where,
}
