"""Sizes that may be known at run time only, and the operations that take them.

A `Size` is a number, or a `Length`: an int64 tensor ``(1,)`` computed from Shape. Formulas add,
subtract, multiply and divide both alike; nodes are written for a Length alone, and only once its
value is used. Lengths are not negative, so that a division rounds down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import groupby

from onnx import TensorProto, helper

from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import FormulaError


class Length:
    """A size that is known at run time only.

    Args:
        emit: where to write nodes.
        write: writes the nodes that compute the int64 tensor ``(1,)`` and returns its name.
    """

    def __init__(self, emit: Emitter, write: Callable[[], str]) -> None:
        """Write nothing yet."""
        self.emit = emit
        self._write = write

    @cached_property
    def name(self) -> str:
        """The tensor; its nodes are written when this is first asked for."""
        return self._write()

    def __add__(self, other: Size) -> Length:
        """Return the sum."""
        return self if other == 0 else self._with("Add", self, other)

    __radd__ = __add__

    def __sub__(self, other: Size) -> Length:
        """Return the difference."""
        return self if other == 0 else self._with("Sub", self, other)

    def __rsub__(self, other: int) -> Length:
        """Return the difference from a number."""
        return self._with("Sub", other, self)

    def __mul__(self, other: Size) -> Length:
        """Return the product."""
        return self if other == 1 else self._with("Mul", self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Length:
        """Return the quotient, rounded down; both must not be negative."""
        return self if other == 1 else self._with("Div", self, other)

    def _with(self, op_type: str, left: Size, right: Size) -> Length:
        return Length(self.emit, lambda: self.emit.node(op_type, vectors(self.emit, left, right)))


Size = int | Length


def vectors(emit: Emitter, *sizes: Size) -> list[str]:
    """Return each size as an int64 tensor ``(1,)``."""
    return [emit.ints([size]) if isinstance(size, int) else size.name for size in sizes]


def vector(emit: Emitter, sizes: Sequence[Size]) -> str:
    """Return the sizes as one int64 tensor ``(len,)``."""
    parts: list[str] = []
    for known, run in groupby(sizes, lambda size: isinstance(size, int)):
        if known:
            parts.append(emit.ints([size for size in run if isinstance(size, int)]))
        else:
            parts += vectors(emit, *run)
    return parts[0] if len(parts) == 1 else emit.concat(parts, 0)


def size_of(emit: Emitter, x: str, axis: int) -> Size:
    """Return the size of a tensor along an axis that is not negative."""
    shape = emit.shape(x)
    if shape is not None:
        known = shape[axis]
        if isinstance(known, int):
            return known
    return element(emit, lambda: emit.node("Shape", [x]), axis)


def sizes_of(emit: Emitter, x: str, axes: Sequence[int]) -> list[Size]:
    """Return the sizes of a tensor along axes that are not negative."""
    return [size_of(emit, x, axis) for axis in axes]


def element(emit: Emitter, vector: Callable[[], str], index: int) -> Length:
    """Return one element of an int64 tensor of one axis."""
    return Length(emit, lambda: emit.slice(vector(), [index], [index + 1], [0]))


def product_of(sizes: Sequence[Size]) -> Size:
    """Return the product of sizes."""
    known, total = 1, None
    for size in sizes:
        if isinstance(size, int):
            known *= size
        else:
            total = size if total is None else total * size
    return known if total is None else total * known


def larger(a: Size, b: Size) -> Size:
    """Return the larger of two sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return _chosen(a, b, swap=False)


def smaller(a: Size, b: Size) -> Size:
    """Return the smaller of two sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return _chosen(a, b, swap=True)


def _chosen(a: Size, b: Size, *, swap: bool) -> Length:
    """Return the larger of two sizes, or the smaller one: Max takes integers from opset 12 on.

    Raises:
        FormulaError: the opset is below 9, where integers cannot be compared.
    """
    emit = next(size.emit for size in (a, b) if isinstance(size, Length))
    need(emit, 9, "a size known at run time only")

    def write() -> str:
        left, right = vectors(emit, a, b)
        if emit.opset >= 12:
            return emit.node("Min" if swap else "Max", [left, right])
        condition = emit.less(right, left) if swap else emit.less(left, right)
        return emit.where(condition, right, left)

    return Length(emit, write)


def need(emit: Emitter, opset: int, what: str) -> None:
    """Refuse what an opset does not have.

    Raises:
        FormulaError: the emitter's opset is older.
    """
    if emit.opset < opset:
        raise FormulaError(f"{what} needs opset {opset} (fix the input's size, or convert it)")


# -- operations on tensors -----------------------------------------------------------------------


def reshape(emit: Emitter, x: str, sizes: Sequence[Size]) -> str:
    """Return x in another shape; 0 keeps a size, -1 and a single Length are inferred."""
    inferred = sum(1 for size in sizes if isinstance(size, Length) or size == -1)
    if inferred <= 1:
        return emit.reshape(x, [size if isinstance(size, int) else -1 for size in sizes])
    return emit.reshape(x, vector(emit, sizes))


def cut(
    emit: Emitter, x: str, starts: Sequence[Size], ends: Sequence[Size], axes: Sequence[int]
) -> str:
    """Return x[start:end] along axes.

    Raises:
        FormulaError: a bound is computed, and the opset is below 10.
    """
    if not all(isinstance(bound, int) for bound in (*starts, *ends)):
        need(emit, 10, "a Slice of a size known at run time only")
    return emit.slice(x, vector(emit, starts), vector(emit, ends), axes)


def pad(emit: Emitter, x: str, pads: Sequence[Size], value: float = 0.0) -> str:
    """Return x padded, begins then ends of all axes; negative numbers crop, a Length pads.

    Raises:
        FormulaError: a padding is computed, and the opset is below 9.
    """
    known = [size for size in pads if isinstance(size, int)]
    if len(known) == len(pads):
        return emit.pad(x, known, value)
    cropped = emit.pad(x, [min(0, size) if isinstance(size, int) else 0 for size in pads])
    widths = [max(0, size) if isinstance(size, int) else size for size in pads]
    if emit.opset >= 11:
        inputs = [cropped, vector(emit, widths)] + ([emit.filled(value, x)] if value else [])
        return emit.node("Pad", inputs, mode="constant")
    need(emit, 9, "a padding computed at run time")
    return _joined_with_constants(emit, cropped, widths, value)


def _joined_with_constants(emit: Emitter, x: str, widths: Sequence[Size], value: float) -> str:
    """Return x padded by Concat, axis by axis: before opset 11 Pad takes no computed widths."""
    rank = len(widths) // 2
    fill = helper.make_tensor("value", emit.dtype(x), [1], [value])

    def border(axis: int, width: Size) -> list[str]:
        if width == 0:
            return []
        shape = emit.node("Shape", [x])
        sizes: list[Size] = [element(emit, lambda: shape, a) for a in range(rank)]
        sizes[axis] = width
        lengths = vector(emit, sizes)
        return [emit.node("ConstantOfShape", [lengths], dtype=emit.dtype(x), value=fill)]

    for axis in range(rank):
        parts = [*border(axis, widths[axis]), x, *border(axis, widths[rank + axis])]
        x = x if len(parts) == 1 else emit.concat(parts, axis)
    return x


def one_hot(emit: Emitter, index: str, size: Size, like: str) -> str:
    """Return ``(*index, size)``: one where the position along the new axis is the index, else zero.

    Args:
        emit: where to write nodes.
        index: int64, not negative; its last axis has size one, and becomes the new axis.
        size: how many positions there are.
        like: a tensor of the element type wanted.

    Raises:
        FormulaError: the size is known at run time only, and the opset is below 9.
    """
    equal = emit.node("Equal", [index, positions(emit, size)])
    return emit.cast(equal, emit.dtype(like))


def positions(emit: Emitter, size: Size) -> str:
    """Return 0, 1, 2, ... as an int64 tensor ``(size,)``.

    Raises:
        FormulaError: the size is known at run time only, and the opset is below 9.
    """
    if isinstance(size, int):
        return emit.ints(range(size))
    need(emit, 9, "a size known at run time only")
    one = helper.make_tensor("value", TensorProto.INT64, [1], [1])
    ones = emit.node("ConstantOfShape", [size.name], dtype=TensorProto.INT64, value=one)
    return emit.reshape(emit.node("NonZero", [ones]), [-1])
