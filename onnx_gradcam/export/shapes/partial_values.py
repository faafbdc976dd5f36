"""Small tensors that are computed from sizes, as far as they are known: numbers and symbols.

Exporters write sizes as arithmetic on Shape (Gather, Add, Div, Concat, ...). Here each element of
such a tensor is a number, a symbol of `sizes`, or None; operators follow the ONNX specification.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from onnx_gradcam.export.shapes.sizes import Sizes
from onnx_gradcam.gradients.emitter import Array, Dim
from onnx_gradcam.gradients.registry import attribute_of

Partial = NDArray[np.object_]
"""Elements are numbers, symbols (of sizes, so not negative), or None."""

LARGEST = 1024
"""Tensors of more elements are not followed."""


class Lookup(Protocol):
    """What the rules ask for."""

    sizes: Sizes

    def partial_or_value(self, name: str) -> Partial | None:
        """Return a partial value, or a small constant as one."""

    def value(self, name: str) -> Array | None:
        """Return a constant."""

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """Return the shape of a tensor as far as it is known."""

    def is_float(self, name: str) -> bool:
        """Return whether a tensor is known to hold floats."""


Rule = Callable[[Lookup, NodeProto], Partial | None]


def as_objects(values: Any) -> Partial:
    """Return an array of Python numbers, symbols and None."""
    array = np.asarray(values)
    result = np.empty(array.shape, dtype=object)
    result[...] = array.astype(object)
    return result


def _shape(lookup: Lookup, node: NodeProto) -> Partial | None:
    shape = lookup.shape(node.input[0])
    if shape is None:
        return None
    part = shape[attribute_of(node, "start", 0) : attribute_of(node, "end")]
    result = np.empty(len(part), dtype=object)
    result[:] = part
    return result


def _size(lookup: Lookup, node: NodeProto) -> Partial | None:
    shape = lookup.shape(node.input[0])
    return None if shape is None else _scalar(lookup.sizes.product(shape))


def _scalar(value: object) -> Partial:
    result = np.empty((), dtype=object)
    result[()] = value
    return result


def _cast(lookup: Lookup, node: NodeProto) -> Partial | None:
    data = lookup.partial_or_value(node.input[0])
    kind = _KINDS.get(attribute_of(node, "to"))
    if data is None or kind is None:
        return None
    return _map(lambda v: v if isinstance(v, str) and kind is not bool else _to(kind, v), data)


_KINDS: Mapping[int, Callable[[Any], object]] = {
    TensorProto.INT64: int,
    TensorProto.INT32: int,
    TensorProto.FLOAT: float,
    TensorProto.DOUBLE: float,
    TensorProto.BOOL: bool,
}


def _to(kind: Callable[[Any], object], value: object) -> object:
    return None if value is None or isinstance(value, str) else kind(value)


def _map(function: Callable[..., object], *arrays: Partial) -> Partial:
    broadcast = np.broadcast_arrays(*arrays)
    result = np.empty(broadcast[0].shape, dtype=object)
    for index in np.ndindex(result.shape):
        result[index] = function(*(array[index] for array in broadcast))
    return result


def _unchanged(lookup: Lookup, node: NodeProto) -> Partial | None:
    return lookup.partial_or_value(node.input[0])


def _gather(lookup: Lookup, node: NodeProto) -> Partial | None:
    data, index = lookup.partial_or_value(node.input[0]), lookup.value(node.input[1])
    if data is None or index is None:
        return None
    return as_objects(np.take(data, index.astype(np.intp), axis=attribute_of(node, "axis", 0)))


def _slice(lookup: Lookup, node: NodeProto) -> Partial | None:
    data = lookup.partial_or_value(node.input[0])
    if data is None or data.ndim != 1:
        return None
    if len(node.input) == 1:
        bounds: list[Any] = [attribute_of(node, "starts"), attribute_of(node, "ends"), [1]]
    else:
        steps = lookup.value(node.input[4]) if len(node.input) > 4 else np.array([1])
        bounds = [*(lookup.value(name) for name in node.input[1:3]), steps]
    if any(b is None for b in bounds):
        return None
    start, stop, step = (int(b[0]) for b in bounds)
    if stop < -len(data):  # a step backwards to the very beginning
        return data[start::step]
    return data[start:stop:step]


def _concat(lookup: Lookup, node: NodeProto) -> Partial | None:
    parts = [lookup.partial_or_value(name) for name in node.input]
    known = [p for p in parts if p is not None]
    if len(known) != len(parts):
        return None
    return np.concatenate(known, axis=attribute_of(node, "axis"))


def _reshaped(lookup: Lookup, node: NodeProto) -> Partial | None:
    """Give Reshape, Squeeze and Unsqueeze the shape that type inference found for the result."""
    data, shape = lookup.partial_or_value(node.input[0]), lookup.shape(node.output[0])
    if data is None or shape is None or not all(isinstance(size, int) for size in shape):
        return None
    return data.reshape([size for size in shape if isinstance(size, int)])


def _expand(lookup: Lookup, node: NodeProto) -> Partial | None:
    data, shape = lookup.partial_or_value(node.input[0]), lookup.shape(node.output[0])
    if data is None or shape is None or not all(isinstance(size, int) for size in shape):
        return None
    return np.broadcast_to(data, [size for size in shape if isinstance(size, int)])


def _constant_of_shape(lookup: Lookup, node: NodeProto) -> Partial | None:
    shape = lookup.value(node.input[0])
    if shape is None:
        return None
    from onnx import numpy_helper

    given = attribute_of(node, "value")
    value = 0.0 if given is None else numpy_helper.to_array(given).reshape(-1)[0]
    return as_objects(np.full(shape.astype(np.int64), value))


def _where(lookup: Lookup, node: NodeProto) -> Partial | None:
    parts = [lookup.partial_or_value(name) for name in node.input]
    if any(p is None for p in parts):
        return None

    def choose(condition: object, a: object, b: object) -> object:
        if condition is None:
            return a if a == b else None
        return a if condition else b

    return _map(choose, *(p for p in parts if p is not None))


def _range(lookup: Lookup, node: NodeProto) -> Partial | None:
    bounds = [lookup.value(name) for name in node.input]
    if any(b is None for b in bounds):
        return None
    values = np.arange(*(b.reshape(-1)[0] for b in bounds if b is not None))
    return as_objects(values) if values.size <= LARGEST else None


def _product(lookup: Lookup, node: NodeProto) -> Partial | None:
    data = lookup.partial_or_value(node.input[0])
    if data is None or data.ndim != 1 or lookup.is_float(node.input[0]):
        return None
    total = _scalar(lookup.sizes.product(data.tolist()))
    return total.reshape([1]) if attribute_of(node, "keepdims", 1) else total


def _elementwise(function: Callable[..., object]) -> Rule:
    """Return the rule of an operator that computes each element by itself."""

    def rule(lookup: Lookup, node: NodeProto) -> Partial | None:
        parts = [lookup.partial_or_value(name) for name in node.input]
        known = [p for p in parts if p is not None]
        if len(known) != len(parts):
            return None
        floats = lookup.is_float(node.output[0])

        def element(*values: object) -> object:
            if any(v is None for v in values):
                return None
            return function(lookup.sizes, floats, *values)

        return _map(element, *known)

    return rule


def _symbolic(*values: object) -> bool:
    return any(isinstance(v, str) for v in values)


def _add(sizes: Sizes, floats: bool, a: Any, b: Any) -> object:
    if not _symbolic(a, b):
        return a + b
    return sizes.total(_whole(a), _whole(b))


def _sub(sizes: Sizes, floats: bool, a: Any, b: Any) -> object:
    if not _symbolic(a, b):
        return a - b
    return sizes.difference(_whole(a), _whole(b)) if isinstance(a, str) else None


def _mul(sizes: Sizes, floats: bool, a: Any, b: Any) -> object:
    if not _symbolic(a, b):
        return a * b
    numbers = [_whole(a), _whole(b)]
    if any(isinstance(n, int) and n < 0 for n in numbers):
        return None
    return sizes.product(numbers)


def _div(sizes: Sizes, floats: bool, a: Any, b: Any) -> object:
    if b == 0:
        return None
    if not _symbolic(a, b):
        return a / b if floats else int(a / b) if abs(a) < 2**52 else a // b
    above, below = _whole(a), _whole(b)
    if above is None or below is None or (isinstance(below, int) and below < 0):
        return None
    result = sizes.quotient(above, below)
    exact = result is not None and sizes.product([result, below]) == above
    return result if exact or not floats else None


def _whole(value: Any) -> Dim:
    if isinstance(value, str):
        return value
    return int(value) if float(value).is_integer() else None


def _neg(sizes: Sizes, floats: bool, a: Any) -> object:
    return None if _symbolic(a) else -a


def _rounded(function: Callable[[Any], Any]) -> Callable[..., object]:
    def element(sizes: Sizes, floats: bool, a: Any) -> object:
        return a if _symbolic(a) else float(function(a))

    return element


def _mod(sizes: Sizes, floats: bool, a: Any, b: Any) -> object:
    if not _symbolic(a, b):
        return None if b == 0 or floats else a % b
    return 0 if a == b else None


def _extreme(choose: Callable[..., Any]) -> Callable[..., object]:
    def element(sizes: Sizes, floats: bool, *values: Any) -> object:
        if not _symbolic(*values):
            return choose(values)
        return values[0] if len(set(values)) == 1 else None

    return element


def _equal(sizes: Sizes, floats: bool, a: Any, b: Any) -> object:
    if not _symbolic(a, b):
        return bool(a == b)
    if a == b:
        return True
    negative = any(not isinstance(v, str) and v < 0 for v in (a, b))
    return False if negative else None


def _compared(holds: Callable[[Any, Any], bool]) -> Callable[..., object]:
    def element(sizes: Sizes, floats: bool, a: Any, b: Any) -> object:
        return None if _symbolic(a, b) else bool(holds(a, b))

    return element


RULES: Mapping[str, Rule] = {
    "Add": _elementwise(_add),
    "And": _elementwise(_compared(lambda a, b: a and b)),
    "Cast": _cast,
    "Ceil": _elementwise(_rounded(np.ceil)),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _elementwise(_div),
    "Equal": _elementwise(_equal),
    "Expand": _expand,
    "Floor": _elementwise(_rounded(np.floor)),
    "Gather": _gather,
    "Greater": _elementwise(_compared(lambda a, b: a > b)),
    "GreaterOrEqual": _elementwise(_compared(lambda a, b: a >= b)),
    "Identity": _unchanged,
    "Less": _elementwise(_compared(lambda a, b: a < b)),
    "LessOrEqual": _elementwise(_compared(lambda a, b: a <= b)),
    "Max": _elementwise(_extreme(max)),
    "Min": _elementwise(_extreme(min)),
    "Mod": _elementwise(_mod),
    "Mul": _elementwise(_mul),
    "Neg": _elementwise(_neg),
    "Not": _elementwise(lambda sizes, floats, a: None if _symbolic(a) else not a),
    "Or": _elementwise(_compared(lambda a, b: a or b)),
    "Range": _range,
    "ReduceProd": _product,
    "Reshape": _reshaped,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Squeeze": _reshaped,
    "Sub": _elementwise(_sub),
    "Unsqueeze": _reshaped,
    "Where": _where,
}
"""Operators that exporters compute sizes with."""
