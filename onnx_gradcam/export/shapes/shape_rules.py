"""Shapes that ONNX's inference gives up on: sizes known at run time only keep their symbols.

Each rule gets a node, the shapes of its inputs and what ONNX found, and returns the shape of the
first output as far as it is known. Formulas are those of the ONNX operator specifications.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from onnx import NodeProto

from onnx_gradcam.export.shapes.partial_values import Partial
from onnx_gradcam.export.shapes.sizes import Sizes
from onnx_gradcam.gradients.emitter import Array, Dim
from onnx_gradcam.gradients.registry import attribute_of

Shape = tuple[Dim, ...]


class Lookup(Protocol):
    """What the rules ask for."""

    sizes: Sizes

    def shape(self, name: str) -> Shape | None:
        """Return the shape of a tensor as far as it is known."""

    def value(self, name: str) -> Array | None:
        """Return a constant."""

    def partial_or_value(self, name: str) -> Partial | None:
        """Return a small tensor of sizes as far as it is known."""


Rule = Callable[[Lookup, NodeProto, Shape | None], Shape | None]


def _broadcast(lookup: Lookup, node: NodeProto, inferred: Shape | None) -> Shape | None:
    shapes = [lookup.shape(name) for name in node.input]
    known = [shape for shape in shapes if shape is not None]
    return lookup.sizes.broadcast(known) if len(known) == len(shapes) else inferred


def _sizes_of(lookup: Lookup, node: NodeProto, position: int) -> list[Dim] | None:
    """Return the sizes that an input holds."""
    if len(node.input) <= position or not node.input[position]:
        return None
    partial = lookup.partial_or_value(node.input[position])
    if partial is None or partial.ndim != 1:
        return None
    return [v if v is None or isinstance(v, str) else int(v) for v in partial.tolist()]


def _reshape(lookup: Lookup, node: NodeProto, inferred: Shape | None) -> Shape | None:
    """Reshape: 0 copies a size, -1 is what is left over."""
    target, before = _sizes_of(lookup, node, 1), lookup.shape(node.input[0])
    if target is None:
        return inferred
    keeps_zero = bool(attribute_of(node, "allowzero", 0))
    shape: list[Dim] = [
        (before[i] if before is not None and i < len(before) else None)
        if size == 0 and not keeps_zero
        else size
        for i, size in enumerate(target)
    ]
    if shape.count(-1) == 1 and before is not None:
        shape[shape.index(-1)] = _rest(lookup.sizes, before, [s for s in shape if s != -1])
    elif shape.count(None) == 1 and before is not None and -1 not in shape:
        shape[shape.index(None)] = _rest(lookup.sizes, before, [s for s in shape if s is not None])
    return tuple(None if size == -1 else size for size in shape)


def _rest(sizes: Sizes, before: Sequence[Dim], given: Sequence[Dim]) -> Dim:
    """Return the size that, with those given, makes up as many elements as before."""
    remaining, divisors = list(before), []
    for size in given:
        if size is not None and size in remaining:
            remaining.remove(size)
        else:
            divisors.append(size)
    return sizes.quotient(sizes.product(remaining), sizes.product(divisors))


def _expand(lookup: Lookup, node: NodeProto, inferred: Shape | None) -> Shape | None:
    target, before = _sizes_of(lookup, node, 1), lookup.shape(node.input[0])
    if target is None or before is None:
        return inferred
    return lookup.sizes.broadcast([before, tuple(target)])


def _constant_of_shape(lookup: Lookup, node: NodeProto, inferred: Shape | None) -> Shape | None:
    target = _sizes_of(lookup, node, 0)
    return inferred if target is None else tuple(target)


def _tile(lookup: Lookup, node: NodeProto, inferred: Shape | None) -> Shape | None:
    before, repeats = lookup.shape(node.input[0]), _sizes_of(lookup, node, 1)
    if before is None or repeats is None:
        return inferred
    pairs = zip(before, repeats, strict=True)
    return tuple(lookup.sizes.product(pair) for pair in pairs)


def _slice(lookup: Lookup, node: NodeProto, inferred: Shape | None) -> Shape | None:
    before = lookup.shape(node.input[0])
    if before is None:
        return inferred
    if len(node.input) == 1:
        starts, ends = attribute_of(node, "starts"), attribute_of(node, "ends")
        axes = attribute_of(node, "axes")
        steps: Any = None
    else:
        starts, ends = _sizes_of(lookup, node, 1), _sizes_of(lookup, node, 2)
        axes, steps = _sizes_of(lookup, node, 3), _sizes_of(lookup, node, 4)
        computed = axes is None or not all(isinstance(axis, int) for axis in axes)
        if len(node.input) > 3 and node.input[3] and computed:
            return inferred
        if len(node.input) > 4 and node.input[4] and steps is None:
            return inferred
    shape = list(before)
    rank = len(before)
    for axis in axes if axes is not None else range(len(starts or ())):
        shape[int(axis) % rank] = None
    if starts is None or ends is None:
        return tuple(shape) if axes is not None else inferred
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = int(axes[index]) % rank if axes is not None else index
        step = 1 if steps is None else steps[index]
        shape[axis] = _sliced(lookup.sizes, before[axis], start, end, step)
    return tuple(shape)


_ENDLESS = 2**31 - 1


def _sliced(sizes: Sizes, size: Dim, start: Dim, end: Dim, step: Dim) -> Dim:
    """Return the length of a slice; positions count from the end where they are negative."""
    if isinstance(size, int):
        if isinstance(start, int) and isinstance(end, int) and isinstance(step, int):
            return len(range(*slice(start, end, step).indices(size)))
        return None
    if size is None or step != 1:
        return None
    if isinstance(end, int) and end >= _ENDLESS:
        end = size
    if isinstance(start, int) and start < 0:
        return -start if end == size else None
    if isinstance(end, int) and end < 0:
        end = sizes.total(size, end)
    elif end != size:
        return None if end is None else sizes.result("slice", size, start, end)
    return sizes.difference(end, start)


def _concat(lookup: Lookup, node: NodeProto, inferred: Shape | None) -> Shape | None:
    shapes = [lookup.shape(name) for name in node.input]
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes) or len(set(map(len, known))) != 1:
        return inferred
    axis = attribute_of(node, "axis", 1) % len(known[0])
    result: list[Dim] = list(inferred or known[0])
    length: Dim = 0
    for shape in known:
        length = lookup.sizes.total(length, shape[axis])
    for index in range(len(result)):
        numbers = [s[index] for s in known if isinstance(s[index], int)]
        result[index] = numbers[0] if numbers else known[0][index]
    result[axis] = length
    return tuple(result)


def _flatten(lookup: Lookup, node: NodeProto, inferred: Shape | None) -> Shape | None:
    shape = lookup.shape(node.input[0])
    if shape is None:
        return inferred
    axis = attribute_of(node, "axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return lookup.sizes.product(shape[:axis]), lookup.sizes.product(shape[axis:])


def _matmul(lookup: Lookup, node: NodeProto, inferred: Shape | None) -> Shape | None:
    a, b = lookup.shape(node.input[0]), lookup.shape(node.input[1])
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return inferred
    return (*lookup.sizes.broadcast([a[:-2], b[:-2]]), a[-2], b[-1])


def _window(lookup: Lookup, node: NodeProto, inferred: Shape | None) -> Shape | None:
    """Conv and poolings: ``(in + pads - dilation * (kernel - 1) - 1) // stride + 1``."""
    before = lookup.shape(node.input[0])
    weights = _WEIGHTS.get(node.op_type)
    kernel = attribute_of(node, "kernel_shape")
    shape = None if weights is None else lookup.shape(node.input[weights])
    if kernel is None and shape is not None:
        kernel = shape[2:]
    if before is None or kernel is None or any(not isinstance(k, int) for k in kernel):
        return inferred
    channels: Dim = before[1] if weights is None else shape[0] if shape else None
    sizes, spatial = lookup.sizes, len(before) - 2
    ones, zeros = [1] * spatial, [0] * 2 * spatial
    strides = attribute_of(node, "strides", ones)
    dilations = attribute_of(node, "dilations", ones)
    pads = attribute_of(node, "pads", zeros)
    automatic = attribute_of(node, "auto_pad", "NOTSET")
    ceil_mode = attribute_of(node, "ceil_mode", 0)
    results = []
    for axis in range(spatial):
        size, stride, extent = before[2 + axis], strides[axis], dilations[axis] * (kernel[axis] - 1)
        if automatic.startswith("SAME"):
            up = size if stride == 1 else sizes.total(size, stride - 1)
            results.append(sizes.quotient(up, stride))
            continue
        padding = 0 if automatic == "VALID" else pads[axis] + pads[spatial + axis]
        if ceil_mode and stride != 1:
            begin = 0 if automatic == "VALID" else pads[axis]
            found = inferred[2 + axis] if inferred is not None else None
            results.append(_rounded_up(sizes, size, padding - extent - 1, stride, begin, found))
            continue
        steps = sizes.total(size, padding - extent - (1 if stride != 1 else 0))
        results.append(steps if stride == 1 else sizes.total(sizes.quotient(steps, stride), 1))
    if ceil_mode:
        return (before[0], channels, *results)
    return (before[0], channels, *_prefer_numbers((inferred or (None, None))[2:], results))


def _rounded_up(sizes: Sizes, size: Dim, room: int, stride: int, begin: int, inferred: Dim) -> Dim:
    """Return the number of windows of ceil_mode: none starts in the end padding.

    So onnxruntime has it, and the specification since opset 19, but ONNX's inference counts one
    more in some opsets. Then the size is left open: its checker would refuse the right number.
    """
    if isinstance(size, int):
        count = min(-(-(size + room) // stride), (size + begin - 1) // stride) + 1
        if inferred in {None, count}:
            return count
    return sizes.result("ceil", size, room, stride, begin)


_WEIGHTS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}
"""Position of the weights among the inputs."""


def _prefer_numbers(first: Sequence[Dim], second: Sequence[Dim]) -> list[Dim]:
    if len(first) != len(second):
        return list(second)
    return [a if isinstance(a, int) else b for a, b in zip(first, second, strict=True)]


def _transposed(lookup: Lookup, node: NodeProto, inferred: Shape | None) -> Shape | None:
    """ConvTranspose: ``stride * (in - 1) + more + dilation * (kernel - 1) + 1 - pads``."""
    before, weights = lookup.shape(node.input[0]), lookup.shape(node.input[1])
    explicit = attribute_of(node, "output_shape") is None and (
        attribute_of(node, "auto_pad", "NOTSET") == "NOTSET"
    )
    if before is None or weights is None or not explicit:
        return inferred
    sizes, spatial = lookup.sizes, len(before) - 2
    ones, zeros = [1] * spatial, [0] * 2 * spatial
    strides, dilations = attribute_of(node, "strides", ones), attribute_of(node, "dilations", ones)
    pads, more = attribute_of(node, "pads", zeros), attribute_of(node, "output_padding", zeros)
    channels = sizes.product([weights[1], attribute_of(node, "group", 1)])
    results = []
    for axis in range(spatial):
        kernel = weights[2 + axis]
        if not isinstance(kernel, int):
            return inferred
        offset = more[axis] + dilations[axis] * (kernel - 1) + 1 - pads[axis] - pads[spatial + axis]
        scaled = sizes.product([before[2 + axis], strides[axis]])
        results.append(sizes.total(scaled, offset - strides[axis]))
    return (before[0], channels, *_prefer_numbers((inferred or (None, None))[2:], results))


def _resize(lookup: Lookup, node: NodeProto, inferred: Shape | None) -> Shape | None:
    before, axes = lookup.shape(node.input[0]), attribute_of(node, "axes")
    if before is None or axes is not None:
        return inferred
    sizes = _sizes_of(lookup, node, 3)
    if sizes is not None and len(sizes) == len(before):
        return tuple(sizes)
    position = 1 if node.op_type == "Upsample" or len(node.input) == 2 else 2
    given = lookup.value(node.input[position]) if len(node.input) > position else None
    scales = attribute_of(node, "scales") if given is None else given.tolist()
    if not scales or len(scales) != len(before):
        return inferred
    return tuple(
        math.floor(size * scale)
        if isinstance(size, int)
        else lookup.sizes.product([size, int(scale)])
        if float(scale).is_integer()
        else lookup.sizes.result("scaled", size, float(scale))
        for size, scale in zip(before, scales, strict=True)
    )


def _pad(lookup: Lookup, node: NodeProto, inferred: Shape | None) -> Shape | None:
    before = lookup.shape(node.input[0])
    pads = attribute_of(node, "pads") if len(node.input) == 1 else _sizes_of(lookup, node, 1)
    if before is None or pads is None or len(pads) != 2 * len(before):
        return inferred
    rank = len(before)
    return tuple(
        lookup.sizes.total(lookup.sizes.total(size, pads[i]), pads[rank + i])
        for i, size in enumerate(before)
    )


def _blocks(lookup: Lookup, node: NodeProto, inferred: Shape | None) -> Shape | None:
    """DepthToSpace and SpaceToDepth."""
    shape, block = lookup.shape(node.input[0]), attribute_of(node, "blocksize")
    if shape is None or len(shape) != 4:
        return inferred
    sizes = lookup.sizes
    grow, shrink = sizes.product, sizes.quotient
    if node.op_type == "DepthToSpace":
        channels = shrink(shape[1], block * block)
        return (shape[0], channels, *(grow([size, block]) for size in shape[2:]))
    return (shape[0], grow([shape[1], block * block]), *(shrink(s, block) for s in shape[2:]))


def _like_first(lookup: Lookup, node: NodeProto, inferred: Shape | None) -> Shape | None:
    return lookup.shape(node.input[0]) or inferred


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        ("Add", "And", "BitShift", "Div", "Equal", "Greater", "GreaterOrEqual", "Less"), _broadcast
    ),
    **dict.fromkeys(("LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow"), _broadcast),
    **dict.fromkeys(("Sub", "Sum", "Where", "Xor"), _broadcast),
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), _window),
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv"), _window),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "ConvTranspose": _transposed,
    "DepthToSpace": _blocks,
    "Expand": _expand,
    "Flatten": _flatten,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "MeanVarianceNormalization": _like_first,
    "Pad": _pad,
    "PRelu": _like_first,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _blocks,
    "Tile": _tile,
    "Upsample": _resize,
}
