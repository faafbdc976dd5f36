"""Choose the gradient builder: onnxruntime-training where it is there and able, else reverse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnx_gradcam import __version__
from onnx_gradcam.errors import BuilderUnavailableError, UnsupportedModelError, UsageError
from onnx_gradcam.export.builders.environment import BuilderStatus, builder_status
from onnx_gradcam.export.builders.onnxruntime_training import build_with_training
from onnx_gradcam.export.builders.reverse import reverse_gradients
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.tail import Tail
from onnx_gradcam.gradients.emitter import Emitter

TRAINING = "onnxruntime-training"
REVERSE = "reverse"
BUILDERS = ("auto", TRAINING, REVERSE)


@dataclass(frozen=True)
class Built:
    """Gradients and where they came from.

    Attributes:
        gradients: name of dL/dA for each target A.
        emit: the emitter that holds its nodes.
        builder: ``onnxruntime-training`` or ``reverse``.
        version: version of the builder.
        reason: why this builder.
    """

    gradients: Sequence[str]
    emit: Emitter
    builder: str
    version: str
    reason: str


def check_builder(builder: str) -> BuilderStatus | None:
    """Return the state of onnxruntime-training unless the reverse builder is asked for.

    Raises:
        UsageError: no builder of that name.
        BuilderUnavailableError: onnxruntime-training is asked for and not usable.
    """
    if builder not in BUILDERS:
        raise UsageError(f"gradient builder {builder!r} is none of {', '.join(BUILDERS)}")
    if builder == REVERSE:
        return None
    status = builder_status()
    if builder == TRAINING and not status.available:
        fix = f"; {status.fix}" if status.fix else ""
        raise BuilderUnavailableError(f"{status.problem}{fix}")
    return status


def build_gradient(
    graph: Graph,
    tail: Tail,
    seeded_emitter: Callable[[], tuple[Emitter, str]],
    builder: str,
    status: BuilderStatus | None,
) -> Built:
    """Build dL/dA for each target with the builder asked for.

    ``auto`` falls back to reverse and says why.

    Args:
        graph: the forward model.
        tail: its part from the targets to the score.
        seeded_emitter: makes a fresh emitter that holds the seed, and the seed's name.
        builder: one of `BUILDERS`.
        status: what `check_builder` returned.

    Raises:
        UnsupportedModelError: the tail cannot be differentiated.
    """
    reason = "asked for"
    if status is not None and status.available:
        emit, seed = _of_known_shape(graph, tail, seeded_emitter)
        try:
            gradients = build_with_training(graph, tail, emit, seed, status)
        except UnsupportedModelError as error:
            if builder == TRAINING:
                raise
            reason = f"{TRAINING} cannot build this gradient: {error}"
        else:
            if builder == "auto":
                reason = "installed, and able to differentiate the tail"
            return Built(gradients, emit, TRAINING, status.version or "", reason)
    elif builder == "auto" and status is not None:
        reason = f"{TRAINING} is not usable: {status.problem}"
    emit, seed = _of_known_shape(graph, tail, seeded_emitter)
    gradients = reverse_gradients(graph, tail, emit, seed)
    return Built(gradients, emit, REVERSE, __version__, reason)


def _of_known_shape(
    graph: Graph, tail: Tail, seeded_emitter: Callable[[], tuple[Emitter, str]]
) -> tuple[Emitter, str]:
    """Return a fresh emitter and its seed, which has the shape of the score."""
    emit, seed = seeded_emitter()
    shape = graph.shape(tail.score)
    if shape:
        emit.declare(seed, emit.dtype(seed), (None, *shape[1:]))
    return emit, seed
