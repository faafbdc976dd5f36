"""The gradient graph of a tail, as onnxruntime-training builds it.

In: a prepared tail (`preparation`), the names of the targets and of the loss. Out: the tail with
the nodes that compute d loss / d A for each target A, many of them training-only operators, which
`lowering` replaces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from onnx import ModelProto

from onnx_gradcam.errors import BuilderUnavailableError, UnsupportedModelError
from onnx_gradcam.export.builders.state import BuilderStatus
from onnx_gradcam.export.builders.training_process import WorkerError, run_worker

OPSETS = range(13, 22)
"""Opsets of the default domain that the builder differentiates rightly.

Measured: it loads no newer ones; below 13 it refuses a Concat along an axis of unknown size, and
below 11 it refuses Gemm and takes Clip for the identity.
"""

NEWEST_IR = 10

_INSTEAD = "choose a later layer with --layer, or --gradient-builder reverse"
_UNREGISTERED = re.compile(r"has not been registered: (?P<op>\S+) for node (?P<node>.*)")
_UNREACHABLE = re.compile(r"Cannot compute the partial derivative for '.*' as it's unreachable")
_GRADIENT_OF = re.compile(r"::Get(?P<op>\w+)Gradient::")
_STATUS = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : (?P<said>.*)", re.DOTALL)
_SOURCE_PLACE = re.compile(r"/onnxruntime_src/\S+ (?:.*?\) (?:const )?)?")


class GradientGraphError(UnsupportedModelError):
    """onnxruntime-training cannot differentiate the tail; the message says why."""


def build_gradient_graph(
    tail: ModelProto,
    targets: Sequence[str],
    loss: str,
    status: BuilderStatus,
    *,
    timeout: float = 600.0,
) -> ModelProto:
    """Return the tail with the gradient of its loss added.

    The result computes ``<target>_grad`` for each target. It reads ``<loss>_grad``,
    an initializer of value 1 for a loss whose shape is known to be ``[]``, else made by no node.
    Its forward nodes keep their tensor names; a MaxPool may have gained its Indices output, and
    Constant nodes have become initializers. Its training-only operators are in the domain
    ``com.microsoft``, two of them (MaxPoolGrad, AveragePoolGrad) in the default one.

    Args:
        tail: opset 13 to 21, IR up to 10, as `prepare_tail` returns it; not changed.
        targets: the tensors to differentiate by: graph inputs, or what nodes compute.
        loss: the graph output to differentiate, a float scalar.
        status: the builder to use.
        timeout: seconds to wait for it.

    Raises:
        GradientGraphError: the builder refuses the tail, crashes, or takes too long.
        BuilderUnavailableError: the builder is not there or does not load.
    """
    if not status.available or status.path is None or status.python is None:
        raise BuilderUnavailableError("; ".join(filter(None, (status.problem, status.fix))))
    request = _request(tail)
    try:
        response = run_worker(
            status.path,
            status.python,
            {"targets": list(targets), "loss": loss},
            request,
            timeout=timeout,
        )
    except WorkerError as error:
        raise GradientGraphError(
            f"onnxruntime-training {error} on the tail from {targets[0]!r}; {_INSTEAD}"
        ) from None
    if response.kind == "import":
        raise BuilderUnavailableError(
            f"onnxruntime-training in {status.path} does not load in {status.python}"
            f" ({_one_line(response.error)}); run: onnx-gradcam setup-builder --force"
        )
    if not response.ok:
        raise GradientGraphError(f"{_refusal(response.error, tail, targets)}; {_INSTEAD}")
    built = _parsed(response.model)
    made = {name for node in built.graph.node for name in node.output}
    lost = [name for name in targets if f"{name}_grad" not in made]
    if lost:
        raise GradientGraphError(f"onnxruntime-training built no gradient of {lost[0]!r}")
    return built


def _request(tail: ModelProto) -> bytes:
    """Return the bytes of the tail, every node with a name of its own.

    The builder names what it refuses, and refuses two nodes of one name.

    Raises:
        GradientGraphError: not of an opset or IR version that the builder takes, or over 2 GB.
    """
    opset = next((o.version for o in tail.opset_import if o.domain in {"", "ai.onnx"}), 0)
    if opset not in OPSETS or tail.ir_version > NEWEST_IR:
        raise GradientGraphError(
            f"the tail has opset {opset} and IR {tail.ir_version}; onnxruntime-training takes"
            f" opset {OPSETS.start} to {OPSETS.stop - 1} and IR up to {NEWEST_IR}"
        )
    named = ModelProto()
    named.CopyFrom(tail)
    taken = {""}
    for node in named.graph.node:
        if node.name in taken:
            node.name = next(filter(None, node.output), "")
        taken.add(node.name)
    try:
        return bytes(named.SerializeToString())
    except Exception as error:  # protobuf's back ends raise different types
        raise GradientGraphError(f"the tail cannot be handed over ({_one_line(error)})") from None


def _parsed(model: bytes) -> ModelProto:
    """Return the model that came back.

    Raises:
        GradientGraphError: it is none.
    """
    built = ModelProto()
    try:
        built.ParseFromString(model)
    except Exception:  # protobuf's back ends raise different types
        raise GradientGraphError("onnxruntime-training returned no readable model") from None
    return built


def _refusal(error: str, tail: ModelProto, targets: Sequence[str]) -> str:
    """Return what the builder's message means, naming the operator and node where it does."""
    unregistered = _UNREGISTERED.search(error)
    if unregistered:
        op_type, node = unregistered["op"], unregistered["node"].strip()
        return f"onnxruntime-training has no gradient for {op_type} (node {node!r})"
    if _UNREACHABLE.search(error):
        names = ", ".join(map(repr, targets))
        return f"no differentiable path leads from {names} to the score"
    status = _STATUS.search(error)
    message = _one_line(status["said"] if status else _SOURCE_PLACE.sub("", error))
    within = _GRADIENT_OF.search(error)
    if within is None:
        return f"onnxruntime-training cannot differentiate the tail: {message}"
    nodes = [node for node in tail.graph.node if node.op_type == within["op"]]
    names = ", ".join(repr(node.name or node.output[0]) for node in nodes[:5])
    return f"onnxruntime-training cannot differentiate {within['op']} (node {names}): {message}"


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
