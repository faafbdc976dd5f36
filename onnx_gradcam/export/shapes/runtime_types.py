"""Types that only onnxruntime knows: of results of operators that no schema here describes.

In: a model and names of tensors. Out: their types, as far as onnxruntime infers them when it
loads the part of the model before them, or finds out by running it once. Used as a last resort,
and never on more than `LARGEST` bytes of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from onnx_gradcam.export.files.external_data import byte_length
from onnx_gradcam.export.sessions import open_session
from onnx_gradcam.export.shapes.type_protos import outer_reads
from onnx_gradcam.export.verification.probe_inputs import (
    DTYPES,
    InputSpec,
    ValueRange,
    candidate_shapes,
    draw,
)
from onnx_gradcam.gradients.emitter import Array, TensorType

LARGEST = 2**28
"""Weights of more bytes than this are not loaded to find a type."""

_TRIED = 6
"""Input shapes that a run is tried with."""


def ask_runtime(
    model: ModelProto, tensor_values: Callable[[TensorProto], Array], names: Sequence[str]
) -> dict[str, TensorType]:
    """Return the types of tensors that onnxruntime can tell; none where it cannot run them.

    Args:
        model: the model; it is not changed.
        tensor_values: fetches the values of an initializer.
        names: the tensors asked for.
    """
    part = _before(model, tensor_values, names)
    if part is None:
        return {}
    try:
        session = open_session(part.SerializeToString(), optimise=False)
    except Exception:  # no kernel, no onnxruntime: then nothing is known
        return {}
    found: dict[str, TensorType] = {}
    for node in session.get_outputs():
        dtype = _ELEMENT_TYPES.get(node.type)
        if dtype is not None and node.shape:  # an empty shape may be that of an unknown rank
            found[node.name] = TensorType(dtype, tuple(node.shape))
    if len(found) < len(names):
        found |= _by_running(session, found)
    return found


_ELEMENT_TYPES = {
    name: onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for name, dtype in DTYPES.items()
}


def _before(
    model: ModelProto, tensor_values: Callable[[TensorProto], Array], names: Sequence[str]
) -> ModelProto | None:
    """Return the nodes that compute tensors, with their weights inside; None for too many."""
    wanted = set(names)
    nodes = []
    for node in reversed(model.graph.node):
        if any(output in wanted for output in node.output):
            wanted.update([*node.input, *outer_reads(node)])
            nodes.append(node)
    weights = [t for t in model.graph.initializer if t.name in wanted]
    try:
        if sum(map(byte_length, weights)) > LARGEST:
            return None
        values = [onnx.numpy_helper.from_array(tensor_values(t), t.name) for t in weights]
    except Exception:  # strings, or external data that is not there
        return None
    part = ModelProto(ir_version=max(4, model.ir_version), opset_import=model.opset_import)
    part.functions.extend(model.functions)
    part.graph.name = "before"
    part.graph.node.extend(nodes[::-1])
    part.graph.initializer.extend(values)
    held = {t.name for t in weights}
    part.graph.input.extend(i for i in model.graph.input if i.name in wanted and i.name not in held)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return part


def _by_running(session: Any, found: dict[str, TensorType]) -> dict[str, TensorType]:
    """Return what a run shows: element types and ranks, and sizes where the inputs have theirs."""
    specs = tuple(InputSpec(n.name, n.type, tuple(n.shape)) for n in session.get_inputs())
    names = [node.name for node in session.get_outputs() if node.name not in found]
    if not specs:
        return {}
    image = max(specs, key=lambda spec: len(spec.shape)).name
    for tried, shapes in enumerate(candidate_shapes(specs, image, 1)):
        if tried == _TRIED:
            break
        try:
            values = session.run(names, draw(specs, shapes, image, ValueRange(0, 1), 0))
        except Exception:  # the next shape may fit
            continue
        static = all(isinstance(size, int) for spec in specs for size in spec.shape)
        return {
            name: TensorType(
                onnx.helper.np_dtype_to_tensor_dtype(value.dtype),
                value.shape if static else (None,) * value.ndim,
            )
            for name, value in zip(names, values, strict=True)
            if hasattr(value, "dtype")
        }
    return {}
