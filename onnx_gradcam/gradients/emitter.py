"""Write ONNX nodes in the form that the model's opset demands.

Formulas speak to the `Emitter` in operations (`reduce_sum`, `pad`, `where`); it appends the nodes
and returns the name of the result. Whether axes are an attribute or an input, whether an operator
exists yet, and how constants are typed is decided here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from onnx import TensorProto, helper

from onnx_gradcam.gradients.node_writer import Array as Array
from onnx_gradcam.gradients.node_writer import Dim as Dim
from onnx_gradcam.gradients.node_writer import NodeWriter
from onnx_gradcam.gradients.node_writer import TensorType as TensorType

STEEPEST = 2.0**64
"""Thresholds from here on are compared with; HardSigmoids as steep as this are steps."""

TO_THE_END = 2**31 - 1
"""As the end of a slice: up to the last element."""


class Emitter(NodeWriter):
    """Appends nodes to a list; every method returns the name of the tensor it produced."""

    def zeros_like(self, x: str) -> str:
        """Return zeros in the shape and element type of x."""
        if self.opset < 9:
            return self.mul(x, 0.0)
        value = helper.make_tensor("value", self.dtype(x), [1], [0])
        shape = self.shape_tensor(x)
        return self.node("ConstantOfShape", [shape], dtype=self.dtype(x), value=value)

    # -- arithmetic --------------------------------------------------------------------------

    def _operand(self, value: str | float, like: str) -> str:
        return value if isinstance(value, str) else self.filled(value, like)

    def add(self, a: str, b: str | float) -> str:
        """Return a + b."""
        return self.node("Add", [a, self._operand(b, a)])

    def sub(self, a: str | float, b: str) -> str:
        """Return a - b."""
        return self.node("Sub", [self._operand(a, b), b], dtype=self.dtype(b))

    def mul(self, a: str, b: str | float) -> str:
        """Return a * b."""
        return self.node("Mul", [a, self._operand(b, a)])

    def div(self, a: str | float, b: str | float) -> str:
        """Return a / b."""
        like = a if isinstance(a, str) else b
        assert isinstance(like, str)
        return self.node("Div", [self._operand(a, like), self._operand(b, like)])

    def pow(self, a: str, exponent: float | str) -> str:
        """Return a ** exponent."""
        return self.node("Pow", [a, self._operand(exponent, a)])

    def unary(self, op_type: str, x: str) -> str:
        """Return op(x) for an operator that never changed its form."""
        return self.node(op_type, [x])

    def neg(self, x: str) -> str:
        """Return -x."""
        return self.node("Neg", [x])

    def sum(self, values: Sequence[str]) -> str:
        """Return the elementwise sum of one or more tensors of equal shape."""
        total = values[0]
        for value in values[1:]:
            total = self.add(total, value)
        return total

    # -- comparison and selection ------------------------------------------------------------

    def less(self, a: str, b: str | float) -> str:
        """Return a < b as bool."""
        return self.node("Less", [a, self._operand(b, a)])

    def greater(self, a: str, b: str | float) -> str:
        """Return a > b as bool."""
        return self.node("Greater", [a, self._operand(b, a)])

    def cast(self, x: str, dtype: int) -> str:
        """Return x in another element type (an onnx.TensorProto number)."""
        if self.dtype(x) == dtype and x in self._types:
            return x
        return self.node("Cast", [x], dtype=dtype, to=dtype)

    def where(self, condition: str, a: str | float, b: str | float) -> str:
        """Return a where the condition holds, else b; by arithmetic before opset 9."""
        like = a if isinstance(a, str) else b
        assert isinstance(like, str)
        if self.opset >= 9:
            operands = [condition, self._operand(a, like), self._operand(b, like)]
            return self.node("Where", operands, dtype=self.dtype(like))
        mask = self.cast(condition, self.dtype(like))
        if not isinstance(b, str) and b == 0:
            return self.mul(mask, a)
        if not isinstance(a, str) and a == 0:
            return self.mul(self.sub(1.0, mask), b)
        return self.add(self.mul(mask, a), self.mul(self.sub(1.0, mask), b))

    def masked(self, gradient: str, condition: str) -> str:
        """Return the gradient where the condition holds, else zero."""
        return self.where(condition, gradient, 0.0)

    def above(self, x: str, threshold: float = 0.0) -> str:
        """Return 1 where x > threshold, else 0, in the type of x; see `_step`."""
        return self._step(x, threshold, 1.0)

    def below(self, x: str, threshold: float = 0.0) -> str:
        """Return 1 where x < threshold, else 0, in the type of x; see `_step`."""
        return self._step(x, threshold, -1.0)

    def _step(self, x: str, threshold: float, sign: float) -> str:
        """Return 1 where sign x > sign threshold, else 0: a HardSigmoid so steep that it steps.

        Times a gradient this is what Where would give, in less time on onnxruntime's
        CPU provider. The slope is a power of two, so that slope (x - threshold) rounds as x -
        threshold does: between neighbours the step is sharp. Of the numbers above 0 only those
        below 1e-38, which are denormal, are no clear 1. Types other than float32 are compared.
        """
        if self.dtype(x) != TensorProto.FLOAT or not abs(threshold) < STEEPEST:
            compare = self.greater if sign > 0 else self.less
            return self.cast(compare(x, threshold), self.dtype(x))
        slope = sign * 2.0 ** (126 - max(0, math.frexp(threshold)[1]))
        return self.node("HardSigmoid", [x], hint="Step", alpha=slope, beta=-slope * threshold)

    def line(self, x: str, slope: float, offset: float) -> str:
        """Return slope x + offset, which the caller knows to lie in [0, 1].

        Of float32 as a HardSigmoid: one pass, in whichever layout onnxruntime keeps x.
        """
        if self.dtype(x) == TensorProto.FLOAT:
            return self.node("HardSigmoid", [x], alpha=float(slope), beta=float(offset))
        scaled = self.neg(x) if slope == -1 else self.mul(x, slope)
        return self.add(scaled, offset) if offset else scaled

    # -- reductions --------------------------------------------------------------------------

    def _reduce(self, op_type: str, since: int, x: str, axes: Sequence[int], keepdims: bool) -> str:
        if self.opset >= since:
            return self.node(op_type, [x, self.ints(axes)], keepdims=int(keepdims))
        return self.node(op_type, [x], axes=list(axes), keepdims=int(keepdims))

    def reduce_sum(self, x: str, axes: Sequence[int], keepdims: bool = True) -> str:
        """Return the sum over `axes`."""
        return self._reduce("ReduceSum", 13, x, axes, keepdims)

    def reduce_mean(self, x: str, axes: Sequence[int], keepdims: bool = True) -> str:
        """Return the mean over `axes`."""
        return self._reduce("ReduceMean", 18, x, axes, keepdims)

    def reduce_max(self, x: str, axes: Sequence[int], keepdims: bool = True) -> str:
        """Return the largest value over `axes`."""
        return self._reduce("ReduceMax", 18, x, axes, keepdims)

    # -- shapes ------------------------------------------------------------------------------

    def shape_tensor(self, x: str) -> str:
        """Return the shape of x as int64 ``(rank,)``: a constant where it is static."""
        shape = self.shape(x)
        if shape is not None and all(isinstance(d, int) for d in shape):
            return self.ints([d for d in shape if isinstance(d, int)])
        return self.node("Shape", [x])

    def reshape(self, x: str, shape: Sequence[int] | str) -> str:
        """Return x in another shape; in a list 0 keeps the size of that axis, -1 infers it."""
        return self.node("Reshape", [x, shape if isinstance(shape, str) else self.ints(shape)])

    def reshape_like(self, x: str, reference: str) -> str:
        """Return x in the shape of `reference`, through one symbolic axis where possible."""
        shape = self.shape(reference)
        if shape is not None:
            sizes = [d if isinstance(d, int) else -1 for d in shape]
            if sizes.count(-1) <= 1 and 0 not in sizes:
                return self.reshape(x, sizes)
        return self.reshape(x, self.shape_tensor(reference))

    def expand_like(self, x: str, reference: str) -> str:
        """Return x broadcast to the shape of `reference`."""
        if self.opset >= 8:
            return self.node("Expand", [x, self.shape_tensor(reference)])
        return self.add(x, self.mul(reference, 0.0))

    def expand(self, x: str, shape: str) -> str:
        """Return x of the same rank broadcast to an int64 shape tensor."""
        if self.opset >= 8:
            return self.node("Expand", [x, shape])
        return self.node("Tile", [x, self.node("Div", [shape, self.node("Shape", [x])])])

    def transpose(self, x: str, perm: Sequence[int]) -> str:
        """Return x with its axes permuted; x itself when nothing moves."""
        if list(perm) == sorted(perm):
            return x
        return self.node("Transpose", [x], perm=list(perm))

    def unsqueeze(self, x: str, axes: Iterable[int]) -> str:
        """Return x with new axes of size one."""
        if self.opset >= 13:
            return self.node("Unsqueeze", [x, self.ints(list(axes))])
        return self.node("Unsqueeze", [x], axes=list(axes))

    def squeeze(self, x: str, axes: Sequence[int]) -> str:
        """Return x without the given axes of size one."""
        if self.opset >= 13:
            return self.node("Squeeze", [x, self.ints(axes)])
        return self.node("Squeeze", [x], axes=list(axes))

    def concat(self, values: Sequence[str], axis: int) -> str:
        """Return the tensors joined along an axis."""
        return self.node("Concat", values, axis=axis)

    def slice(
        self, x: str, starts: Sequence[int] | str, ends: Sequence[int] | str, axes: Sequence[int]
    ) -> str:
        """Return x[start:end] along `axes`; starts and ends may be int64 tensors from opset 10.

        Raises:
            ValueError: they are such tensors, and not constant, before that.
        """
        if self.opset >= 10:
            bounds = [v if isinstance(v, str) else self.ints(v) for v in (starts, ends)]
            return self.node("Slice", [x, *bounds, self.ints(axes)])
        if isinstance(starts, str) or isinstance(ends, str):
            fixed = [self.value(v) if isinstance(v, str) else v for v in (starts, ends)]
            if fixed[0] is None or fixed[1] is None:
                raise ValueError("Slice with computed bounds needs opset 10")
            starts, ends = ([int(i) for i in v] for v in fixed if v is not None)
        return self.node("Slice", [x], starts=list(starts), ends=list(ends), axes=list(axes))

    def pad(self, x: str, pads: Sequence[int], value: float = 0.0) -> str:
        """Return x padded, begins then ends of all axes; negative numbers crop.

        Cropping is written as a Slice: not every runtime takes negative paddings.
        """
        x = self._crop(x, [max(0, -p) for p in pads])
        pads = [max(0, p) for p in pads]
        if not any(pads):
            return x
        if self.opset >= 11:
            inputs = [x, self.ints(pads)] + ([self.filled(value, x)] if value else [])
            return self.node("Pad", inputs, mode="constant")
        return self.node("Pad", [x], mode="constant", pads=list(pads), value=float(value))

    def _crop(self, x: str, crop: Sequence[int]) -> str:
        rank = len(crop) // 2
        axes = [i for i in range(rank) if crop[i] or crop[rank + i]]
        if not axes:
            return x
        ends = [-crop[rank + i] or TO_THE_END for i in axes]
        return self.slice(x, [crop[i] for i in axes], ends, axes)

    def reversed(self, x: str, axis: int, size: int) -> str:
        """Return x with one axis of known size in reverse order."""
        if size == 1:
            return x
        return self.node("Gather", [x, self.ints(range(size - 1, -1, -1))], axis=axis)

    # -- products ----------------------------------------------------------------------------

    def matmul(self, a: str, b: str) -> str:
        """Return the (batched) matrix product."""
        return self.node("MatMul", [a, b])

    def conv(self, x: str, weight: str, **attributes: Any) -> str:
        """Return Conv(x, weight) without bias."""
        return self.node("Conv", [x, weight], **attributes)
