"""Where a QuantizeLinear clips: which bounds of its range can be exceeded, and how that is seen.

q = clip(round(x / s) + z) has the straight-through derivative 1 / s where nothing is clipped, and
0 elsewhere (Jacob et al., arXiv 1712.05877; Bengio et al., arXiv 1308.3432). Clipping is read off
the integer q, not off x: a reader of x keeps onnxruntime from fusing the nodes around it into one
quantized operator, which would change results and speed. So a value on a bound counts as clipped.

- A bound that x cannot exceed is not tested: the mean of numbers on the same grid, a Relu above
  the lower end. Found by intervals, from the operators before the node.
- Relu, Clip or HardSigmoid whose result only QuantizeLinear reads are part of the clipping, as
  they are in a fused operator: q = Q(kink) counts as cut off.
- Types of four bits or less have too few values to give two away, and float8 is no grid: there x
  is compared, with half a step of tolerance (fake_quantize of PyTorch). Nothing is fused there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto

from onnx_gradcam.gradients.emitter import Array
from onnx_gradcam.gradients.registry import attribute_of

Interval = tuple[float, float]

ANYTHING: Interval = (-math.inf, math.inf)

RANGES: dict[int, tuple[float, float]] = {
    TensorProto.UINT8: (0, 255),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT4: (-8, 7),
    TensorProto.FLOAT8E4M3FN: (-448, 448),
    TensorProto.FLOAT8E4M3FNUZ: (-240, 240),
    TensorProto.FLOAT8E5M2: (-57344, 57344),
    TensorProto.FLOAT8E5M2FNUZ: (-57344, 57344),
    TensorProto.FLOAT4E2M1: (-6, 6),
}
"""Smallest and largest value of the types that QuantizeLinear writes."""

_FINE = frozenset({TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16})
_INTEGERS = _FINE | {TensorProto.UINT4, TensorProto.INT4}

_SLACK = 1e-3
"""Of a step: rounding of float32 when a bound and a range are compared."""

_DEPTH = 12
"""So many operators back an interval is followed."""


@dataclass(frozen=True)
class Flow:
    """What is asked of the forward graph.

    Attributes:
        producer: the node that computes a tensor, None for inputs and weights.
        readers: the nodes that read a tensor.
        is_output: whether a tensor is an output of the model.
        value: value of a constant tensor, else None.
        dtype: element type of a tensor.
    """

    producer: Callable[[str], NodeProto | None]
    readers: Callable[[str], Sequence[NodeProto]]
    is_output: Callable[[str], bool]
    value: Callable[[str], Array | None]
    dtype: Callable[[str], int]


@dataclass(frozen=True)
class Bounds:
    """Between which numbers the derivative of a QuantizeLinear is not zero, both exclusive.

    Attributes:
        low: lower bound, None where it cannot be exceeded.
        high: upper bound, likewise.
        of_result: they are compared with q; else with x / s + z.
    """

    low: float | None
    high: float | None
    of_result: bool

    @property
    def of_input(self) -> Interval:
        """The same bounds for x / s + z: half a step inside those of q."""
        half = 0.5 if self.of_result else 0.0
        low = -math.inf if self.low is None else self.low + half
        return low, math.inf if self.high is None else self.high - half


def bounds(flow: Flow, node: NodeProto) -> Bounds:
    """Return the bounds of a QuantizeLinear."""
    dtype = flow.dtype(node.output[0])
    low, high = RANGES[dtype]
    half = 0.5 if dtype in _INTEGERS else 0.0
    reach = _reach(flow, node)
    test_low = reach[0] < low - 0.5 + _SLACK
    test_high = reach[1] > high + 0.5 - _SLACK
    if dtype not in _FINE:
        return Bounds(low - half if test_low else None, high + half if test_high else None, False)
    kinks = _folded_kinks(flow, node)
    steps = None if kinks is None else _on_grid(flow, node, kinks)
    if steps is not None:
        test_low, low = test_low or steps[0] >= low, max(low, steps[0])
        test_high, high = test_high or steps[1] <= high, min(high, steps[1])
    return Bounds(low if test_low else None, high if test_high else None, True)


def scalar_grid(flow: Flow, node: NodeProto) -> tuple[float, float] | None:
    """Return the constant scale and zero point of (De)QuantizeLinear; None if not one of each."""
    scale = flow.value(node.input[1])
    zero: Array | None = np.zeros(1)
    if len(node.input) > 2 and node.input[2]:
        zero = flow.value(node.input[2])
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return None
    return float(scale.reshape(-1)[0]), float(zero.astype(np.float64).reshape(-1)[0])


def is_folded(flow: Flow, node: NodeProto) -> bool:
    """Return whether QuantizeLinear alone reads an activation, and tests its kinks."""
    if _kinks(flow, node) is None or flow.is_output(node.output[0]):
        return False
    readers = flow.readers(node.output[0])
    return bool(readers) and all(
        reader.op_type == "QuantizeLinear"
        and flow.dtype(reader.output[0]) in _FINE
        and scalar_grid(flow, reader) is not None
        for reader in readers
    )


def on_the_grid(flow: Flow, node: NodeProto) -> str | None:
    """Return the dequantized value of a node's result that only QuantizeLinear reads, if any."""
    name = node.output[0]
    readers = flow.readers(name)
    if flow.is_output(name) or not readers or any(r.op_type != "QuantizeLinear" for r in readers):
        return None
    grid = scalar_grid(flow, readers[0])
    for reader in flow.readers(readers[0].output[0]):
        if (
            reader.op_type == "DequantizeLinear"
            and grid is not None
            and scalar_grid(flow, reader) == grid
        ):
            return str(reader.output[0])
    return None


def same_grid(flow: Flow, node: NodeProto) -> bool:
    """Return whether a node reads and writes numbers of one grid: its result is exact on it."""
    readers = flow.readers(node.output[0])
    before = flow.producer(node.input[0])
    if before is None or before.op_type != "DequantizeLinear" or not readers:
        return False
    grid = scalar_grid(flow, before)
    return grid is not None and all(scalar_grid(flow, reader) == grid for reader in readers)


# -- intervals ---------------------------------------------------------------------------------


def _reach(flow: Flow, node: NodeProto) -> Interval:
    """Return between which numbers x / s + z lies."""
    grid = scalar_grid(flow, node)
    if grid is None:
        return ANYTHING
    low, high = _interval(flow, node.input[0], _DEPTH)
    return low / grid[0] + grid[1], high / grid[0] + grid[1]


def _interval(flow: Flow, name: str, depth: int) -> Interval:
    node = flow.producer(name)
    if node is None:
        value = flow.value(name)
        if value is None or not value.size or value.dtype.kind != "f":
            return ANYTHING
        return float(value.min()), float(value.max())
    if depth == 0 or node.domain not in {"", "ai.onnx"}:
        return ANYTHING
    if node.op_type == "DequantizeLinear":
        return _dequantized(flow, node, depth)
    kinks = _kinks(flow, node)
    if kinks is not None:
        before = ANYTHING if node.op_type == "HardSigmoid" else _at(flow, node, 0, depth)
        return max(before[0], kinks[0]), max(min(before[1], kinks[1]), kinks[0])
    if node.op_type in _FIXED:
        return _FIXED[node.op_type]
    if node.op_type in _WITHIN:
        return _at(flow, node, 0, depth)
    if node.op_type == "AveragePool":
        low, high = _at(flow, node, 0, depth)
        padded = attribute_of(node, "count_include_pad", 0)
        return (min(low, 0.0), max(high, 0.0)) if padded else (low, high)
    if node.op_type in {"Concat", "Max", "Min"}:
        each = [_at(flow, node, i, depth) for i in range(len(node.input))]
        return min(low for low, _ in each), max(high for _, high in each)
    if node.op_type == "Add":
        each = [_at(flow, node, i, depth) for i in range(2)]
        return sum(low for low, _ in each), sum(high for _, high in each)
    return ANYTHING


_FIXED: dict[str, Interval] = {
    "Sigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
}

_WITHIN = frozenset(
    {
        *("DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GlobalAveragePool"),
        *("GlobalMaxPool", "Identity", "MaxPool", "ReduceMax", "ReduceMean", "ReduceMin"),
        *("Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose"),
        "Unsqueeze",
    }
)
"""Operators whose results lie between the smallest and the largest element of their input."""


def _at(flow: Flow, node: NodeProto, index: int, depth: int) -> Interval:
    return _interval(flow, node.input[index], depth - 1)


def _dequantized(flow: Flow, node: NodeProto, depth: int) -> Interval:
    grid = scalar_grid(flow, node)
    limits = RANGES.get(flow.dtype(node.input[0]))
    if grid is None or limits is None:
        return ANYTHING
    scale, zero = grid
    low, high = ((limit - zero) * scale for limit in limits)
    before = flow.producer(node.input[0])
    if before is not None and before.op_type == "QuantizeLinear":
        if scalar_grid(flow, before) != grid:
            return low, high
        inner = _interval(flow, before.input[0], depth - 1)
        low = max(low, _rounded(inner[0], scale))
        high = min(high, _rounded(inner[1], scale))
    return low, high


# -- activations that are part of the clipping ---------------------------------------------------


def _kinks(flow: Flow, node: NodeProto) -> Interval | None:
    """Return the values that an activation cuts off at, None for other operators."""
    if node.domain not in {"", "ai.onnx"}:
        return None
    if node.op_type == "Relu":
        return 0.0, math.inf
    if node.op_type == "HardSigmoid":
        return 0.0, 1.0
    if node.op_type != "Clip":
        return None
    found = [-math.inf, math.inf]
    for index, name in enumerate(("min", "max")):
        given = attribute_of(node, name)
        if len(node.input) > index + 1 and node.input[index + 1]:
            value = flow.value(node.input[index + 1])
            if value is None or value.size != 1:
                return None
            given = value.reshape(-1)[0]
        if given is not None:
            found[index] = float(given)
    return found[0], found[1]


def _folded_kinks(flow: Flow, node: NodeProto) -> Interval | None:
    before = flow.producer(node.input[0])
    return _kinks(flow, before) if before is not None and is_folded(flow, before) else None


def _on_grid(flow: Flow, node: NodeProto, interval: Interval) -> Interval | None:
    grid = scalar_grid(flow, node)
    if grid is None:
        return None
    scale, zero = grid
    low, high = (_rounded(value, scale) / scale + zero for value in interval)
    return round(low) if math.isfinite(low) else low, round(high) if math.isfinite(high) else high


def _rounded(value: float, scale: float) -> float:
    """Return the multiple of the scale that a value is rounded to, as float32 finds it."""
    if math.isinf(value):
        return value
    return float(np.rint(np.float32(value) / np.float32(scale))) * scale
