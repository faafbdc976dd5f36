"""How a call wants its heat maps: method and smoothing, checked before any work."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from onnx_gradcam.cam import RERUNS, Need, Painted, get_method, require
from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.runtime.explanation import FloatArray, explain_maps
from onnx_gradcam.runtime.fused import FusedCam
from onnx_gradcam.runtime.image_input import ImageInput

OFFERED = frozenset({Need.GRADIENTS, Need.SEED})
"""What every exported file has for the CAM methods."""


@dataclass(frozen=True)
class How:
    """The choices of one call, named as in `Explainer.explain` and `Explanation`."""

    method: str
    eigen_smooth: bool
    aug_smooth: bool
    seed: int

    def checked(
        self, declared: ImageInput, offered: Collection[Need], fused: FusedCam | None = None
    ) -> How:
        """Return these choices if the file can serve them.

        Args:
            declared: the image input.
            offered: what the file has for the methods.
            fused: the CAM of a file that offers nothing else.

        Raises:
            UsageError: no such method, or one that cannot be smoothed as asked; images that cannot
                be mirrored for `aug_smooth`.
            UnsupportedModelError: the method needs what the file does not offer.
        """
        if fused is None:
            self._check_needs(offered)
        else:
            fused.check(self.method, eigen_smooth=self.eigen_smooth)
        if self.aug_smooth and declared.spatial_axes != 2:
            raise UsageError(f"aug_smooth mirrors pictures; the model takes {declared.describe()}")
        return self

    def _check_needs(self, offered: Collection[Need]) -> None:
        """Check that a file offers what the method needs.

        Raises:
            UsageError: no such method, or one that cannot be smoothed as asked.
            UnsupportedModelError: it does not.
        """
        missing = RERUNS.intersection(get_method(self.method).needs)
        if missing and not RERUNS.intersection(offered):
            raise UnsupportedModelError(
                f"CAM method {self.method!r} needs {' and '.join(sorted(missing))}, for which parts"
                " of the model are cut out of its file; open it with onnx_gradcam.load, not from a"
                " session"
            )
        require(self.method, offered, eigen_smooth=self.eigen_smooth)

    def paint(
        self,
        activations: FloatArray | None,
        gradients: FloatArray | None,
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
