"""What is exported and how: everything that is settled before the gradient is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnx_gradcam.export.attach import ClassInput
from onnx_gradcam.export.attention.outputs import AttentionOutputs
from onnx_gradcam.export.files.model_file import LoadedModel
from onnx_gradcam.export.full_gradient.outputs import FullGradient
from onnx_gradcam.export.fuse import Fusion
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.objective import Objective
from onnx_gradcam.export.score import Score
from onnx_gradcam.export.tail import Tail
from onnx_gradcam.export.target_layer import Layer
from onnx_gradcam.preprocessing import Preprocessing


@dataclass(frozen=True)
class Job:
    """What is exported, and where to; everything but the gradient.

    `forward` is the graph as the gradient sees it, without half precision; `tail` its part from all
    `targets`, and from what `full` needs, to the score.
    """

    loaded: LoadedModel
    graph: Graph
    forward: Graph
    scores: Score
    image: str
    targets: tuple[Layer, ...]
    tail: Tail
    attention: AttentionOutputs
    class_input: ClassInput
    objective: Objective
    second_order: bool
    full: FullGradient | None
    preprocessing: Preprocessing | None
    labels: list[str] | None
    source: Path | None
    output: Path
    force: bool
    verify: bool
    inputs: Mapping[str, NDArray[Any]] | None
    fusion: Fusion | None = None
    gate: bool = False

    @property
    def target(self) -> Layer:
        """The first target layer."""
        return self.targets[0]
