"""How a call wants its heat maps: method and smoothing, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx_gradcam.cam import Need, Painted, require
from onnx_gradcam.errors import UsageError
from onnx_gradcam.runtime.explanation import FloatArray, explain_maps
from onnx_gradcam.runtime.image_input import ImageInput

OFFERED = frozenset({Need.GRADIENTS, Need.SEED})
"""What an exported file has for the CAM methods."""


@dataclass(frozen=True)
class How:
    """The choices of one call, named as in `Explainer.explain` and `Explanation`."""

    method: str
    eigen_smooth: bool
    aug_smooth: bool
    seed: int

    def checked(self, declared: ImageInput) -> How:
        """Return these choices if the file can serve them.

        Raises:
            UsageError: no such method, or one that cannot be smoothed as asked; images that cannot
                be mirrored for `aug_smooth`.
            UnsupportedModelError: the method needs what the file does not offer.
        """
        require(self.method, OFFERED, eigen_smooth=self.eigen_smooth)
        if self.aug_smooth and declared.spatial_axes != 2:
            raise UsageError(f"aug_smooth mirrors pictures; the model takes {declared.describe()}")
        return self

    def paint(
        self,
        activations: FloatArray,
        gradients: FloatArray,
        size: tuple[int, ...],
        further: Mapping[Need, Any] | None = None,
    ) -> Painted:
        """Return the maps of one run; `further` holds what else the method needs.

        Raises:
            UnsupportedModelError: the target layer has other spatial axes than the image, or the
                gradients are not what the method can take.
        """
        return explain_maps(
            self.method,
            activations,
            gradients,
            size,
            eigen_smooth=self.eigen_smooth,
            seed=self.seed,
            further=further,
        )
