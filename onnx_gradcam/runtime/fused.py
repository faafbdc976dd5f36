"""Files that give their CAM alone, computed in the graph: no activations, no gradients.

In: the outputs ``cam`` and ``cam_scales``. Out: the same `Painted` maps that NumPy would make of A
and G, as far as a map without them allows: of the method that was chosen at export, raw maps
without their negative part, and notes that tell apart what the file does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam import Painted, get_method, heat_maps, note_on
from onnx_gradcam.cam.painting import CONTRAST
from onnx_gradcam.contract import ACTIVATIONS_OUTPUT, CAM_OUTPUT, SCALES_OUTPUT, ExportMetadata
from onnx_gradcam.errors import UnsupportedModelError

WAY_OUT = "export the model again with --outputs all"

NOT_FINITE = "the raw map holds NaN or infinite values"
NOTHING_POSITIVE = "the raw map is nowhere positive"
ZERO = f"{NOTHING_POSITIVE}, or not finite"


@dataclass(frozen=True)
class FusedCam:
    """The CAM that a file computes.

    Attributes:
        method: its method.
        normalised: whether it is stretched to [0, 1], with a scale beside it.
    """

    method: str
    normalised: bool

    @classmethod
    def alone_in(cls, metadata: ExportMetadata) -> FusedCam | None:
        """Return the CAM of a file that offers no activations; None for other files."""
        if metadata.fused is None or ACTIVATIONS_OUTPUT in metadata.outputs:
            return None
        return cls(str(metadata.fused["method"]), bool(metadata.fused["normalised"]))

    def check(self, method: str, *, eigen_smooth: bool) -> None:
        """Refuse what cannot be had from the map alone.

        Raises:
            UsageError: no such method.
            UnsupportedModelError: another method than that of the file, or smoothing.
        """
        if get_method(method).name != self.method:
            raise UnsupportedModelError(
                f"CAM method {method!r} needs activations, which the file does not offer: it holds"
                f" the map of {self.method} alone; {WAY_OUT}"
            )
        if eigen_smooth:
            raise UnsupportedModelError(
                "eigen_smooth needs activations, which the file does not offer: it holds the map"
                f" of {self.method} alone; {WAY_OUT}"
            )

    def paint(self, outputs: Mapping[str, NDArray[Any]], size: tuple[int, ...]) -> Painted:
        """Return raw maps, heat maps of the image's size, and notes, a row for each map.

        Args:
            outputs: ``cam`` ``(N, T, *spatial)`` and, where it is normalised, ``cam_scales``.
            size: the image's extents.
        """
        cam = _rows(outputs[CAM_OUTPUT])
        cams = cam if self.normalised and cam.shape[1:] == size else heat_maps(cam, size)
        if not self.normalised:
            notes = tuple(ZERO if not one.any() else note_on(one) for one in cam)
            raw = cam
        else:
            scales = _rows(outputs[SCALES_OUTPUT])
            notes = tuple(_note(float(low), float(high)) for low, high in scales)
            low, high = (end.reshape(-1, *[1] * (cam.ndim - 1)) for end in scales.T)
            raw = low + cam * (high - low)
        cams = np.array(cams)
        cams[[bool(note) for note in notes]] = 0
        return Painted(raw, cams, notes)


def _rows(values: NDArray[Any]) -> NDArray[Any]:
    """Return ``(N, T, ...)`` as ``(N T, ...)``."""
    images, several, *rest = values.shape
    return values.reshape(images * several, *rest)


def _note(low: float, high: float) -> str:
    """Return why a map of this scale shows nothing; empty where it shows something."""
    if not np.isfinite([low, high]).all():
        return NOT_FINITE
    if high <= 0:
        return NOTHING_POSITIVE
    if high - low <= CONTRAST * high:
        return f"the raw map is {high:.3g} everywhere, to rounding"
    return ""
