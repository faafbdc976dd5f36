"""How a call wants its heat maps: method and smoothing, checked before any work."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from onnx_gradcam.cam import RERUNS, Need, Painted, check_fusion, fuse, get_method, require
from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.runtime.explanation import explain_maps
from onnx_gradcam.runtime.fused import FusedCam
from onnx_gradcam.runtime.image_input import ImageInput
from onnx_gradcam.runtime.layers import FloatArray, LayerPair

OFFERED = frozenset({Need.GRADIENTS, Need.SEED})
"""What every exported file has for the CAM methods."""

OF_EACH_LAYER = OFFERED
"""What there is for each of several target layers in one run; the rest goes with the first."""


@dataclass(frozen=True)
class How:
    """The choices of one call, named as in `Explainer.explain` and `Explanation`."""

    method: str
    eigen_smooth: bool
    aug_smooth: bool
    seed: int
    layers: tuple[int, ...] = (0,)
    fuse_layers: str = "mean"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def runs_again(self) -> bool:
        """Whether the method runs the model, or a part of it, again."""
        return not RERUNS.isdisjoint(get_method(self.method).needs)

    @classmethod
    def of(cls, method: str, options: Mapping[str, Any], layers: tuple[int, ...]) -> How:
        """Return the choices among the options of a call (`ExplainOptions`)."""
        names = {"eigen_smooth": False, "aug_smooth": False, "seed": 0, "fuse_layers": "mean"}
        chosen = {name: options.get(name, default) for name, default in names.items()}
        settings = dict(options.get("settings") or {})
        return cls(method, layers=layers, settings=settings, **chosen)

    def checked(
        self, declared: ImageInput, offered: Collection[Need], fused: FusedCam | None = None
    ) -> How:
        """Return these choices if the file can serve them.

        Of a method that knows no target layer, what comes with it is that of the first one.

        Args:
            declared: the image input.
            offered: what the file has for the methods.
            fused: the CAM of a file that offers nothing else.

        Raises:
            UsageError: no such method, or one that cannot be smoothed as asked; images that cannot
                be mirrored for `aug_smooth`; another layer for a method that takes the first; no
                such way to fuse them.
            UnsupportedModelError: the method needs what the file does not offer.
        """
        if fused is None:
            self._check_needs(offered)
        else:
            fused.check(self.method, eigen_smooth=self.eigen_smooth)
        if self.aug_smooth and declared.spatial_axes != 2:
            raise UsageError(f"aug_smooth mirrors pictures; the model takes {declared.describe()}")
        check_fusion(self.fuse_layers)
        method = get_method(self.method)
        if not method.sees_activations:
            return replace(self, layers=self.layers[:1])
        for_one = sorted({*method.needs} - OF_EACH_LAYER)
        if for_one and self.layers != (0,):
            raise UsageError(
                f"CAM method {self.method!r} needs {' and '.join(for_one)} and goes with the first"
                " target layer of the file alone; choose that with layers=0 (--layer 0)"
            )
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
        smooth = self.eigen_smooth
        require(self.method, offered, eigen_smooth=smooth, settings=self.settings)

    def paint_layers(
        self,
        layers: Sequence[LayerPair],
        size: tuple[int, ...],
        further: Mapping[Need, Any] | None = None,
    ) -> list[Painted]:
        """Return the maps of one run for each layer: of its activations and gradients.

        Raises:
            UnsupportedModelError: see `paint`.
        """
        return [self.paint(*layer, size, further) for layer in layers]

    def joined(self, painted: Sequence[Painted], size: tuple[int, ...]) -> Painted:
        """Return the maps of several layers made one."""
        return fuse(painted, size, self.fuse_layers)

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
            settings=self.settings,
        )
