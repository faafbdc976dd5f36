"""The model's own output as one score per class: ``(N, K)`` whatever its shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.contract import ExportMetadata
from onnx_gradcam.errors import UnsupportedModelError, UsageError

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class ScoreReader:
    """Reads `ExportMetadata.score_output` of one file."""

    metadata: ExportMetadata

    def read(self, output: NDArray[Any], images: int) -> FloatArray:
        """Return scores, float32 ``(N, K)``.

        Of a classifier the model's own numbers, of one logit or probability those of both sides;
        of a segmenter the share of the places that each class wins; of a detector the highest
        score of each class over all boxes.

        Raises:
            UnsupportedModelError: the output has not one score for each class and image.
        """
        if not images:
            return np.zeros((0, self.metadata.num_classes), np.float32)
        read = _READ.get(self.metadata.objective, _flat)(self.metadata, output, images)
        return read.astype(np.float32, copy=False)

    def check_boxes(self, output: NDArray[Any], asked: NDArray[np.int64] | None) -> None:
        """Check that the boxes asked for exist; the graph itself does not.

        Raises:
            UsageError: one does not.
        """
        if asked is None or not len(output):
            return
        axis = self.metadata.output_axis or 1
        count = output.size // len(output) // output.shape[axis]
        wrong = asked[(asked < -count) | (asked >= count)]
        if wrong.size:
            raise UsageError(f"box {wrong[0]} is out of range: 0 to {count - 1}")


def _flat(meta: ExportMetadata, output: NDArray[Any], images: int) -> NDArray[Any]:
    count = 1 if meta.objective == "binary" else meta.num_classes
    if output.size != images * count:
        raise UnsupportedModelError(
            f"output {meta.score_output!r} of shape {output.shape} is not one score"
            f" for each of {count} classes and {images} images"
        )
    floats = output.reshape(images, count).astype(np.float32, copy=False)
    if meta.score_scale == 1 and meta.score_zero_point == 0:
        return floats
    return (floats - meta.score_zero_point) * np.float32(meta.score_scale)


def _both_sides(meta: ExportMetadata, output: NDArray[Any], images: int) -> NDArray[Any]:
    positive = _flat(meta, output, images)
    negative = 1 - positive if meta.activation == "Sigmoid" else -positive
    return np.concatenate([negative, positive], axis=1)


def _shares(meta: ExportMetadata, output: NDArray[Any], images: int) -> NDArray[Any]:
    if meta.output_axis is None:
        winners = output.reshape(images, -1)
    elif meta.num_classes == 1:
        won = output > (0.5 if meta.activation == "Sigmoid" else 0)
        return np.asarray(won.reshape(images, -1).mean(axis=1, keepdims=True))
    else:
        winners = output.argmax(axis=meta.output_axis).reshape(images, -1)
    return np.stack([(winners == k).mean(axis=1) for k in range(meta.num_classes)], axis=1)


def _best_boxes(meta: ExportMetadata, output: NDArray[Any], images: int) -> NDArray[Any]:
    moved = np.moveaxis(output, meta.output_axis or 1, 1)
    start = meta.output_channel
    classes = moved[:, start : start + meta.num_classes]
    return np.asarray(classes.reshape(images, meta.num_classes, -1).max(axis=2))


_READ: dict[str, Callable[[ExportMetadata, NDArray[Any], int], NDArray[Any]]] = {
    "binary": _both_sides,
    "segmentation": _shares,
    "detection": _best_boxes,
}
