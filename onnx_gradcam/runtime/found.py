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
    CLASSES_OUTPUT,
    GRADIENTS_OUTPUT,
    SCORE_OUTPUT,
)

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """M maps of N images; fields as in `Explanation`.

    Attributes:
        scores: float32 ``(M, K)``.
        classes: int64 ``(M,)``.
        activations: float32 ``(M, C, *spatial)``.
        gradients: float32 ``(M, C, *spatial)``.
        y: float32 ``(M,)``, None where it is the score of a class.
        boxes: int64 ``(M,)``, None without boxes.
        further: what else the file gives for CAM methods, by need.
    """

    scores: FloatArray
    classes: NDArray[np.int64]
    activations: FloatArray
    gradients: FloatArray
    y: FloatArray | None = None
    boxes: NDArray[np.int64] | None = None
    further: Mapping[Need, Any] = field(default_factory=dict)

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

        activations = outputs[ACTIVATIONS_OUTPUT].astype(np.float32, copy=False)
        if several > 1:
            activations, scores = (np.repeat(v, several, axis=0) for v in (activations, scores))
        gradients = rows(GRADIENTS_OUTPUT, np.float32) if images else activations
        classes = rows(CLASSES_OUTPUT, np.int64)
        assert gradients is not None, "Explainer has looked for all outputs"
        assert classes is not None, "likewise"
        return cls(
            scores,
            classes,
            activations,
            gradients,
            rows(SCORE_OUTPUT, np.float32),
            rows(BOXES_OUTPUT, np.int64),
            further,
        )
