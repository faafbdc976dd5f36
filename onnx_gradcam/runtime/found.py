"""What one run of an exported file gives, a row for each map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam import Need
from onnx_gradcam.contract import (
    ACTIVATIONS_OUTPUT,
    BOXES_OUTPUT,
    CAM_OUTPUT,
    CLASSES_OUTPUT,
    GRADIENTS_OUTPUT,
    SCALES_OUTPUT,
    SCORE_OUTPUT,
)

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """M maps of N images; fields as in `Explanation`.

    Attributes:
        scores: float32 ``(M, K)``.
        classes: int64 ``(M,)``.
        activations: float32 ``(M, C, *spatial)``, None where the file has a CAM in their place.
        gradients: float32 ``(M, C, *spatial)``, None likewise.
        y: float32 ``(M,)``, None where it is the score of a class.
        boxes: int64 ``(M,)``, None without boxes.
        fused: outputs of a CAM in the graph, as they are, by name.
        further: what else the file gives for CAM methods, by need.
    """

    scores: FloatArray
    classes: NDArray[np.int64]
    activations: FloatArray | None
    gradients: FloatArray | None
    y: FloatArray | None = None
    boxes: NDArray[np.int64] | None = None
    fused: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    further: Mapping[Need, Any] = field(default_factory=dict)

    @property
    def explained(self) -> dict[str, Any]:
        """The fields that an `Explanation` takes."""
        return {name: value for name, value in vars(self).items() if name != "fused"}

    @property
    def known_maps(self) -> tuple[FloatArray, FloatArray]:
        """A and G, of a file that has them."""
        assert self.activations is not None, "methods that ask are refused without"
        assert self.gradients is not None, "likewise"
        return self.activations, self.gradients

    @classmethod
    def from_outputs(
        cls,
        scores: FloatArray,
        outputs: Mapping[str, NDArray[Any]],
        several: int,
        further: Mapping[Need, Any],
    ) -> Found:
        """Sort outputs of a session.

        Args:
            scores: ``(N, K)``.
            outputs: by name.
            several: T where outputs have an axis T behind N, else 0.
            further: what else there is, M of each.
        """
        images = len(scores)

        def rows(name: str, dtype: Any) -> NDArray[Any] | None:
            value = outputs.get(name)
            if value is None:
                return None
            if several:
                value = value.reshape(images * several, *value.shape[2:])
            return value.astype(dtype, copy=False)

        activations = outputs.get(ACTIVATIONS_OUTPUT)
        if activations is not None:
            activations = activations.astype(np.float32, copy=False)
        if several > 1:
            scores = np.repeat(scores, several, axis=0)
            activations = None if activations is None else np.repeat(activations, several, axis=0)
        gradients = rows(GRADIENTS_OUTPUT, np.float32) if images else activations
        classes = rows(CLASSES_OUTPUT, np.int64)
        assert classes is not None, "Explainer has looked for all outputs"
        return cls(
            scores,
            classes,
            activations,
            gradients,
            rows(SCORE_OUTPUT, np.float32),
            rows(BOXES_OUTPUT, np.int64),
            {n: outputs[n] for n in (CAM_OUTPUT, SCALES_OUTPUT) if n in outputs},
            further,
        )
