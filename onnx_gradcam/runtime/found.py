"""What one run of an exported file gives, a row for each map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    layer_output,
)
from onnx_gradcam.runtime.layers import FloatArray, LayerPair
from onnx_gradcam.runtime.on_device import fetched


@dataclass(frozen=True)
class Found:
    """M maps of N images; fields as in `Explanation`.

    Attributes:
        scores: float32 ``(M, K)``.
        classes: int64 ``(M,)``.
        layers: activations and gradients, float32 ``(M, C, *spatial)``, of each target layer, on a
            device maybe (`OnDevice`); none where the file has a CAM in their place.
        y: float32 ``(M,)``, None where it is the score of a class.
        boxes: int64 ``(M,)``, None without boxes.
        fused: outputs of a CAM in the graph, as they are, by name.
        further: what else the file gives for CAM methods, by need.
    """

    scores: FloatArray
    classes: NDArray[np.int64]
    layers: Sequence[LayerPair]
    y: FloatArray | None = None
    boxes: NDArray[np.int64] | None = None
    fused: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    further: Mapping[Need, Any] = field(default_factory=dict)

    @property
    def explained(self) -> dict[str, Any]:
        """The fields that an `Explanation` takes."""
        activations, gradients = self.layers[0] if self.layers else (None, None)
        maps = {"activations": activations, "gradients": gradients}
        others = ("scores", "classes", "y", "boxes", "further")
        return maps | {name: getattr(self, name) for name in others}

    @property
    def known_maps(self) -> tuple[FloatArray, FloatArray]:
        """A and G of the first layer, of a file that has them."""
        assert self.layers, "methods that ask are refused without"
        activations, gradients = self.layers[0]
        return fetched(activations), fetched(gradients)

    @classmethod
    def from_outputs(
        cls,
        scores: FloatArray,
        outputs: Mapping[str, NDArray[Any]],
        several: int,
        further: Mapping[Need, Any],
        layers: Sequence[int] = (0,),
    ) -> Found:
        """Sort outputs of a session.

        Args:
            scores: ``(N, K)``.
            outputs: by name.
            several: T where outputs have an axis T behind N, else 0.
            further: what else there is, M of each.
            layers: the target layers to take, counted from 0.
        """
        images = len(scores)

        def rows(name: str, dtype: Any) -> NDArray[Any] | None:
            value = outputs.get(name)
            if value is None:
                return None
            if several:
                value = value.reshape(images * several, *value.shape[2:])
            return value.astype(dtype, copy=False)

        def pair(layer: int) -> LayerPair:
            activations = outputs[layer_output(ACTIVATIONS_OUTPUT, layer)]
            activations = activations.astype(np.float32, copy=False)
            if several > 1:
                activations = np.repeat(activations, several, axis=0)
            if not images:  # the file may leave open different extents of the two
                return activations, activations
            gradients = rows(layer_output(GRADIENTS_OUTPUT, layer), np.float32)
            assert gradients is not None, "Explainer has looked for all outputs"
            return activations, gradients

        classes = rows(CLASSES_OUTPUT, np.int64)
        assert classes is not None, "likewise"
        return cls(
            np.repeat(scores, several, axis=0) if several > 1 else scores,
            classes,
            [pair(layer) for layer in layers] if ACTIVATIONS_OUTPUT in outputs else [],
            rows(SCORE_OUTPUT, np.float32),
            rows(BOXES_OUTPUT, np.int64),
            {n: outputs[n] for n in (CAM_OUTPUT, SCALES_OUTPUT) if n in outputs},
            further,
        )
