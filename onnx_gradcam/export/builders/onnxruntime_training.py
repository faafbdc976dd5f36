"""The onnxruntime-training gradient builder: cut, prepare, build in a subprocess, lower.

In: the tail and the seed dL/d(score). Out: the name of dL/dA for each target A; nodes go
to the emitter. The package is used through its own process only, so it never meets the onnxruntime
of this one.
"""

from __future__ import annotations

import math

from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnx_gradcam.contract import PREFIX
from onnx_gradcam.export.builders.environment import BuilderStatus
from onnx_gradcam.export.builders.lowering import lower
from onnx_gradcam.export.builders.preparation import prepare_tail
from onnx_gradcam.export.builders.training_graph import GradientGraphError, build_gradient_graph
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.tail import Tail
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.quantization import straight_through

_SEED = f"{PREFIX}training/seed"
_WEIGHTED = f"{PREFIX}training/weighted_score"
_LOSS = f"{PREFIX}training/loss"

_EMBEDDED_ELEMENTS = 1024
"""Larger weights are handed over by type alone: the gradient graph does not depend on values."""


def build_with_training(
    graph: Graph, tail: Tail, emit: Emitter, seed: str, status: BuilderStatus
) -> list[str]:
    """Emit dL/dA for each target A from the gradient graph that onnxruntime-training builds.

    Args:
        graph: the forward model.
        tail: its part from the targets to the score.
        emit: where to write nodes.
        seed: dL/d(score), in the shape of the score.
        status: the installed builder.

    Returns:
        The name of dL/dA for each target, in the shape of A.

    Raises:
        UnsupportedModelError: an operator that it cannot differentiate, or that nothing lowers.
        GradientGraphError: quantization in the tail, which is constant to it.
    """
    roundings = straight_through(tail.nodes)
    if roundings:
        raise GradientGraphError(f"it does not differentiate {', '.join(roundings)}")
    prepared = prepare_tail(tail_model(graph, tail))
    built = build_gradient_graph(prepared, tail.targets, _LOSS, status)
    return lower(graph, tail, prepared, built, emit, seed)


def tail_model(graph: Graph, tail: Tail) -> ModelProto:
    """Return the tail as a model of its own with loss = sum(score * seed).

    Inputs are the roots, the seed, and every tensor that by-passes these; small constants are
    embedded.

    Raises:
        GradientGraphError: the type of a tensor is unknown.
    """
    nodes = list(tail.nodes)
    made = {o for node in nodes for o in node.output}
    read = dict.fromkeys(name for node in nodes for name in graph.reads(node))
    inputs = [_value_info(graph, name) for name in tail.roots]
    initializers = []
    for name in read:
        if name in made or name in tail.roots:
            continue
        value = graph.constant(name) if _is_small(graph, name) else None
        if value is not None:
            initializers.append(numpy_helper.from_array(value, name))
        else:
            inputs.append(_value_info(graph, name))
    score_type = graph.type_of(tail.score)
    assert score_type is not None, "find_score has looked at its shape"
    inputs.append(helper.make_tensor_value_info(_SEED, score_type.dtype, score_type.shape))
    nodes.append(helper.make_node("Mul", [tail.score, _SEED], [_WEIGHTED]))
    nodes.append(helper.make_node("ReduceSum", [_WEIGHTED], [_LOSS], keepdims=0))
    loss = helper.make_tensor_value_info(_LOSS, score_type.dtype, [])
    proto = helper.make_graph(nodes, "tail", inputs, [loss], initializers)
    model = helper.make_model(proto, opset_imports=list(graph.model.opset_import))
    model.ir_version = max(4, graph.model.ir_version)
    return model


def _is_small(graph: Graph, name: str) -> bool:
    shape = graph.shape(name)
    if shape is None:
        return True
    return math.prod(d for d in shape if isinstance(d, int)) <= _EMBEDDED_ELEMENTS


def _value_info(graph: Graph, name: str) -> ValueInfoProto:
    known = graph.type_of(name)
    if known is None or known.dtype == TensorProto.UNDEFINED:
        raise GradientGraphError(f"the type of {name!r} is unknown")
    return helper.make_tensor_value_info(name, known.dtype, known.shape)
