"""The inputs that say which y is explained: names, shapes, and defaults where they are optional.

In: the objective and how the class is given. Out: `AddedInput`s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnx_gradcam.contract import (
    BOX_INPUT,
    CLASS_INPUT,
    EMBEDDING_INPUT,
    MASK_INPUT,
    WEIGHTS_INPUT,
)
from onnx_gradcam.export.attach import AddedInput, ClassInput
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.objective import Objective
from onnx_gradcam.export.score import Score
from onnx_gradcam.gradients.emitter import Dim, Emitter

SEVERAL = "cam_maps_per_image"
"""Symbolic size of the axis T of outputs: how many y of each image are explained."""


@dataclass(frozen=True)
class _Input:
    """Element type, the axes behind N, whether T is among them, and the default's value."""

    dtype: int
    axes: Callable[[Score, Graph], list[Dim]]
    several: bool
    default: float | None


def _place_axes(score: Score, graph: Graph) -> list[Dim]:
    shape = graph.shape(score.tensor) or ()
    return [
        size if isinstance(size := shape[axis], int) else f"cam_place_{axis}"
        for axis in score.places
    ]


_INPUTS = {
    CLASS_INPUT: _Input(TensorProto.INT64, lambda _score, _graph: [], True, -1),
    WEIGHTS_INPUT: _Input(TensorProto.FLOAT, lambda score, _graph: [score.num_classes], True, 0),
    MASK_INPUT: _Input(TensorProto.FLOAT, _place_axes, False, 0),
    BOX_INPUT: _Input(TensorProto.INT64, lambda _score, _graph: [], True, -1),
    EMBEDDING_INPUT: _Input(
        TensorProto.FLOAT, lambda score, _graph: [score.num_classes], True, None
    ),
}


def seed_inputs(
    objective: Objective, class_input: ClassInput, score: Score, graph: Graph
) -> list[AddedInput]:
    """Return the inputs of an objective; none of a class where it is fixed.

    Those without a default that means something, and all with ``required``, must be fed.
    """
    names = [n for n in objective.inputs if class_input.fixed is None or n != CLASS_INPUT]
    return [_added(name, objective, class_input, score, graph) for name in names]


def _added(
    name: str, objective: Objective, class_input: ClassInput, score: Score, graph: Graph
) -> AddedInput:
    spec = _INPUTS[name]
    # each input has symbols of its own: N or one, T or one, whatever the others have
    several = [f"{name}_per_image"] if spec.several and objective.several else []
    axes = spec.axes(score, graph)
    default: NDArray[Any] | None = None
    if spec.default is not None and class_input.mode != "required":
        sizes = [1, *[1] * len(several), *(size if isinstance(size, int) else 1 for size in axes)]
        dtype = np.int64 if spec.dtype == TensorProto.INT64 else np.float32
        default = np.full(sizes, spec.default, dtype)
    return AddedInput(name, spec.dtype, [f"{name}_batch", *several, *axes], default)


def declare_inputs(emit: Emitter, objective: Objective) -> None:
    """Tell an emitter the element types of the inputs."""
    for name in objective.inputs:
        emit.declare(name, _INPUTS[name].dtype)
