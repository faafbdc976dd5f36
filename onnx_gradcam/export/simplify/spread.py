"""A gradient spread over positions: by a product, which onnxruntime does faster than Expand.

Expand copies each value in pieces that double in size; a product with a tensor of equal numbers
goes row by row. A factor that comes right before, such as that of a mean, becomes these numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import DTypeLike
from onnx import NodeProto, TensorProto

from onnx_gradcam.export.simplify.added import drop_dead
from onnx_gradcam.gradients.emitter import Dim, Emitter

_TYPES: dict[int, DTypeLike] = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64}

_MOST = 1 << 16
"""Numbers in such a tensor: it is stored in the file."""


def multiply_out(emit: Emitter, wanted: Collection[str]) -> None:
    """Rewrite every Expand over positions whose number is known, once all nodes are written.

    Args:
        emit: holds the nodes.
        wanted: results that are read elsewhere; they keep their names.
    """
    expands = [node for node in emit.nodes if node.op_type == "Expand"]
    spread = {node.output[0]: extents for node in expands if (extents := _extents(emit, node))}
    if not spread:
        return
    makers = {name: node for node in emit.nodes for name in node.output}
    old = list(emit.nodes)
    emit.nodes.clear()
    for node in old:
        extents = spread.get(node.output[0])
        if extents is None:
            emit.nodes.append(node)
            continue
        name, factor = _factor(emit, makers.get(node.input[0]))
        equal = np.full(extents, factor, _TYPES[emit.dtype(node.output[0])])
        with emit.scope("gradient/spread"):
            result = emit.node("Mul", [name or node.input[0], emit.constant(equal)])
        assert emit.nodes[-1].output[0] == result, "the product is written last"
        emit.nodes[-1].output[0] = node.output[0]
    drop_dead(emit, wanted)


def _extents(emit: Emitter, node: NodeProto) -> list[int] | None:
    """Return the shape of the equal numbers, None where it is unknown or there is nothing to win.

    The axes that are stretched are the last ones, and what is before them is not.
    """
    before, after = emit.shape(node.input[0]), emit.shape(node.output[0])
    if before is None or after is None or emit.dtype(node.output[0]) not in _TYPES:
        return None
    if len(before) != len(after) or len(before) < 3:
        return None
    stretched = _stretched(before, after)
    if not stretched or not 1 < np.prod(stretched) <= _MOST:
        return None
    return [*[1] * (len(before) - len(stretched)), *stretched]


def _stretched(before: Sequence[Dim], after: Sequence[Dim]) -> list[int]:
    """Return the extents of the last axes that are stretched, empty where others are as well."""
    same = 0
    while same < len(before) and before[same] is not None and before[same] == after[same]:
        same += 1
    known = [size for size in after[same:] if isinstance(size, int)]
    if len(known) < len(after) - same or any(size != 1 for size in before[same:]):
        return []
    return known


def _factor(emit: Emitter, maker: NodeProto | None) -> tuple[str | None, float]:
    """Return x and c of a product x c with a number, else None and 1."""
    if maker is None or maker.op_type != "Mul":
        return None, 1.0
    for x, c in (maker.input, reversed(maker.input)):
        value = emit.value(c)
        stretches = emit.shape(x) is None or emit.shape(x) != emit.shape(maker.output[0])
        if value is not None and value.size == 1 and not stretches:
            return x, float(value.reshape(-1)[0])
    return None, 1.0
