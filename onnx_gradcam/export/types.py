"""Types and shapes of all tensors: ONNX shape inference, helped where it does not follow.

In: a model. Out: tensor -> `TensorType`, and the constants that were found on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.constants import Constants
from onnx_gradcam.gradients.emitter import Array, Dim, TensorType

_SKELETON_LIMIT = 1024
"""Initializers above this many elements are left out of shape inference: no shape is in them."""

_ROUNDS = 64
"""Shape inference is repeated at most so often with the sizes that were worked out."""


def infer_types(
    model: ModelProto, tensor_values: Callable[[TensorProto], Array]
) -> tuple[dict[str, TensorType], Constants]:
    """Return the types of all tensors as far as they are known, and the constants.

    ONNX's inference follows shapes that are computed by Shape, Gather and Concat, but not through
    all arithmetic: such results are evaluated here, put in place of their nodes, and the
    inference is repeated, until nothing new is found.

    Raises:
        UnsupportedModelError: shape inference refuses the model.
    """
    skeleton = _skeleton(model)
    initializers = {t.name: t for t in model.graph.initializer}
    producers = {o: n for n in model.graph.node for o in n.output if o}
    pending = _integer_results(model)
    found: dict[str, Array] = {}
    for _ in range(_ROUNDS):
        types = _types(_infer(skeleton), initializers)
        constants = Constants(model, producers, initializers, tensor_values, types, found)
        new = {}
        for name in pending:
            if name not in found and (value := constants.value(name)) is not None:
                new[name] = value
        shapes = _reshaped(skeleton, constants, types)
        if not new and not shapes:
            break
        found |= new
        _substitute(skeleton, new)
        _declare(skeleton, shapes)
    return types, constants


def _declare(skeleton: ModelProto, values: list[ValueInfoProto]) -> None:
    """Put types in place of what the model declares of the same tensors."""
    names = {value.name for value in values}
    kept = [value for value in skeleton.graph.value_info if value.name not in names]
    del skeleton.graph.value_info[:]
    skeleton.graph.value_info.extend([*kept, *values])


def _reshaped(
    skeleton: ModelProto, constants: Constants, types: dict[str, TensorType]
) -> list[ValueInfoProto]:
    """Return the results of Reshape whose shape is known better than inference found it."""
    outputs = {v.name for v in skeleton.graph.output}
    results = []
    for node in skeleton.graph.node:
        if node.op_type != "Reshape" or len(node.input) < 2 or node.output[0] in outputs:
            continue
        before, known = types.get(node.input[0]), types.get(node.output[0])
        if before is None or (known is not None and _is_known(known.shape)):
            continue
        target = constants.partial_or_value(node.input[1])
        if target is None or target.ndim != 1:
            continue
        shape = _reshape_result(list(target), before.shape)
        if known is None or known.shape is None or _unknown(shape) < _unknown(known.shape):
            results.append(helper.make_tensor_value_info(node.output[0], before.dtype, shape))
    return results


def _reshape_result(target: list[Dim], before: tuple[Dim, ...] | None) -> list[Dim]:
    """Return the sizes of Reshape(x, target): 0 copies, and -1 is what is left over."""
    shape: list[Dim] = [
        (before[i] if before is not None and i < len(before) else None) if size == 0 else size
        for i, size in enumerate(target)
    ]
    if shape.count(-1) == 1 and before is not None:
        rest, given = list(before), [size for size in shape if size != -1]
        for size in list(given):
            if not isinstance(size, int) and size is not None and size in rest:
                rest.remove(size)
                given.remove(size)
        shape[shape.index(-1)] = _quotient(rest, given)
    return [None if size == -1 else size for size in shape]


def _quotient(numerator: list[Dim], denominator: list[Dim]) -> Dim:
    """Return the product of sizes over another one: a number, one symbol, or None."""
    symbols = [size for size in numerator if not isinstance(size, int)]
    below = [size for size in denominator if isinstance(size, int)]
    if len(below) != len(denominator) or len(symbols) > 1 or 0 in below:
        return None
    above = math.prod(size for size in numerator if isinstance(size, int))
    if not symbols:
        return above // math.prod(below)
    return symbols[0] if above == math.prod(below) else None


def _unknown(shape: Sequence[Dim]) -> int:
    return sum(1 for size in shape if size is None or str(size).startswith("unk__"))


def _is_known(shape: tuple[Dim, ...] | None) -> bool:
    return shape is not None and not _unknown(shape)


def _integer_results(model: ModelProto) -> list[str]:
    """Return the results of nodes that compute with the result of a Shape node."""
    reached = {n.output[0] for n in model.graph.node if n.op_type == "Shape"}
    order = []
    for node in model.graph.node:
        if node.op_type in _ARITHMETIC and any(name in reached for name in node.input):
            reached.add(node.output[0])
            order.append(node.output[0])
    return order


_ARITHMETIC = frozenset(
    {
        *("Add", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Floor"),
        *("Gather", "Greater", "Identity", "Less", "Max", "Min", "Mod", "Mul", "Neg", "Not"),
        *("Range", "ReduceProd", "ReduceSum", "Reshape", "ScatterND", "Slice", "Squeeze", "Sub"),
        *("Transpose", "Unsqueeze", "Where"),
    }
)
"""Operators that exporters compute sizes with."""


def _substitute(skeleton: ModelProto, values: dict[str, Array]) -> None:
    """Put constants in place of the nodes that compute them."""
    kept = [n for n in skeleton.graph.node if not any(o in values for o in n.output)]
    del skeleton.graph.node[:]
    skeleton.graph.node.extend(kept)
    skeleton.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in values.items())


def _skeleton(model: ModelProto) -> ModelProto:
    """Return the model with large initializers turned into inputs, to be cheap to copy."""
    copy = ModelProto()
    copy.ir_version = max(4, model.ir_version)  # so that initializers need not be inputs
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    graph = copy.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    declared = {i.name for i in graph.input}
    for tensor in model.graph.initializer:
        small = math.prod(tensor.dims) <= _SKELETON_LIMIT
        if small and tensor.data_location != TensorProto.EXTERNAL:
            graph.initializer.append(tensor)
        elif tensor.name not in declared:
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    return copy


def _infer(model: ModelProto) -> ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UnsupportedModelError(f"shape inference fails on the model: {reason}") from error


def _types(model: ModelProto, initializers: dict[str, TensorProto]) -> dict[str, TensorType]:
    types = {name: TensorType(t.data_type, tuple(t.dims)) for name, t in initializers.items()}
    graph = model.graph
    for tensor in graph.initializer:
        types.setdefault(tensor.name, TensorType(tensor.data_type, tuple(tensor.dims)))
    for value in (*graph.input, *graph.value_info, *graph.output):
        known = _type_of(value)
        if known is not None and value.name not in types:
            types[value.name] = known
    return types


def _type_of(value: ValueInfoProto) -> TensorType | None:
    if not value.type.HasField("tensor_type"):
        return None
    tensor = value.type.tensor_type
    if not tensor.elem_type:
        return None
    if not tensor.HasField("shape"):
        return TensorType(tensor.elem_type)
    dims: list[Dim] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value"):
            dims.append(dim.dim_value)
        else:
            dims.append(dim.dim_param or None)
    return TensorType(tensor.elem_type, tuple(dims))
