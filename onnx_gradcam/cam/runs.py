"""What methods see of the model where they run it again: the head behind A, or all of it.

Flows in: changed activations, images or weights. Flows out: scores y of what is explained, and
gradients. The loader implements all (`onnx_gradcam.runtime.reruns`); methods only know these.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam.components import Maps

Rows = NDArray[np.intp]
"""int ``(M,)``: which image of the batch each of M changed ones comes from."""


class HeadRuns(Protocol):
    """The layers between A and the score, for the N images of a batch."""

    @property
    def scores(self) -> NDArray[np.float32]:
        """float32 ``(N,)``: y of what is explained, before softmax, unchanged."""
        ...

    @property
    def other_rows(self) -> Maps:
        """float32 ``(N, R, C)``: rows of A without a place on the map, R = 0 where none are.

        They are class and register tokens.
        """
        ...

    def __call__(
        self, activations: Maps, rows: Rows, other_rows: Maps | None = None
    ) -> NDArray[np.float32]:
        """Return y, float32 ``(M,)``, for changed activations.

        Args:
            activations: ``(M, C, *spatial)``.
            rows: which image each of them is of.
            other_rows: changed rows without a place, ``(M, R, C)``; None leaves them as they are.
        """
        ...


class ModelRuns(Protocol):
    """The whole model, for the N images of a batch.

    Methods hand over at most `blocks.BLOCK` changed images at a time, and their values may lie
    outside the range of the images (noise is added, IS-CAM multiplies by more than 1): where the
    model takes integers, they are for the loader to round and clip.
    """

    @property
    def images(self) -> NDArray[np.float32]:
        """float32 ``(N, channels, *size)``: channels first whatever the model's own layout."""
        ...

    @property
    def classes(self) -> NDArray[np.int64]:
        """int64 ``(N,)``: what is explained."""
        ...

    @property
    def scores(self) -> NDArray[np.float32]:
        """float32 ``(N, K)``: y of all classes, before softmax, unchanged."""
        ...

    def __call__(self, images: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
        """Return y of all classes, float32 ``(M, K)``, for changed images of the same size."""
        ...

    def explain(self, images: NDArray[np.float32], rows: Rows) -> tuple[Maps, Maps]:
        """Return A and G, ``(M, C, *spatial)``, of changed images, for the class explained."""
        ...


class WeightedRuns(Protocol):
    """The file once more, for a weighted sum of classes in place of one, for the same N images."""

    @property
    def classes(self) -> NDArray[np.int64]:
        """int64 ``(N,)``: what is explained."""
        ...

    @property
    def scores(self) -> NDArray[np.float32]:
        """float32 ``(N, K)``: y of all classes, before softmax."""
        ...

    def __call__(self, weights: NDArray[np.float32]) -> Maps:
        """Return dy/dA ``(N, C, *spatial)`` of y = sum_k w_k y_k, for weights ``(N, K)``."""
        ...
