"""What an explanation holds, and what can be had from it without running the model again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam import RERUNS, Need, Painted, fuse, get_method, paint, painted
from onnx_gradcam.cam.attention import TokenMaps
from onnx_gradcam.cam.postprocess import rectified
from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.runtime.fused import WAY_OUT
from onnx_gradcam.runtime.layers import FloatArray as FloatArray
from onnx_gradcam.runtime.layers import LayerMaps
from onnx_gradcam.runtime.on_device import OnDevice, fetched, reads_late

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from onnx_gradcam.runtime.photo import Photo
    from onnx_gradcam.runtime.preprocess import CropGeometry


@reads_late("activations", "gradients")
@dataclass(frozen=True, eq=False)
class Explanation:
    """Heat maps of N images, or of N classes of one photo.

    Of a session on a device, activations and gradients lie there until they are read.

    Attributes:
        scores: float32 ``(N, K)``, the model's own output (probabilities where it ends in a
            softmax); quantized integers as the numbers they stand for.
        classes: int64 ``(N,)``, the class that was explained; -1 where it was weights or an
            embedding.
        cams: float32 ``(N, H, W)`` in [0, 1] at the input's size (one to three spatial axes);
            zeros where there is a note.
        raw_maps: float32 ``(N, h, w)`` of either sign, before ReLU, normalisation and resize; with
            `aug_smooth` the mean of those of all versions; of several target layers, the first. Of
            a file that holds the CAM alone: the positive part, at the size that the file computes.
        activations: float32 ``(N, C, h, w)``, A of the (first) target layer; None for such a file.
        gradients: float32 ``(N, C, h, w)``, dy^c/dA; None for such a file.
        method: name of the CAM method.
        y: float32 ``(N,)``, what was explained: the value of the objective; None for the score of
            a class, see `class_scores`.
        boxes: int64 ``(N,)``, the box that was explained; None for models without boxes.
        objective: what y is, e.g. ``class``, see docs/objectives.md.
        labels: the K class names, None where the file holds none.
        photo: uint8 RGB ``(height, width, 3)``, the whole photo; None unless `explain_image` made
            this.
        geometry: which part of the photo the model saw; None likewise.
        eigen_smooth: whether the map is the first principal component of its summands.
        aug_smooth: whether it is the average over versions of the image; activations and gradients
            are those of the image itself.
        seed: of a method that draws at random.
        settings: of the method, beside its defaults.
        further: what else the file gave for CAM methods, by need: attention outputs.
        notes: N texts: why a map shows nothing (NaN, constant, nowhere positive), else empty.
        layers: what each target layer shows, in the order asked for; the heat map is of all.
        fuse_layers: how their heat maps became one, ``mean`` or ``max``.
    """

    scores: FloatArray
    classes: NDArray[np.int64]
    cams: FloatArray
    raw_maps: FloatArray
    activations: FloatArray | None
    gradients: FloatArray | None
    method: str
    y: FloatArray | None = None
    boxes: NDArray[np.int64] | None = None
    objective: str = "class"
    labels: tuple[str, ...] | None = None
    photo: Photo | None = None
    geometry: CropGeometry | None = None
    eigen_smooth: bool = False
    aug_smooth: bool = False
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    further: Mapping[Need, Any] = field(default_factory=dict)
    layers: tuple[LayerMaps, ...] = ()
    fuse_layers: str = "mean"

    def __len__(self) -> int:
        """Return N."""
        return len(self.classes)

    @property
    def class_scores(self) -> FloatArray:
        """float32 ``(N,)``: the model's score of the class that was explained, else `y`.

        `y` where the objective is not that of a class, and for weighted classes.
        """
        if self.objective != "class" and self.y is not None:
            return self.y
        classes = self.classes.clip(min=0)
        own: FloatArray = np.take_along_axis(self.scores, classes[:, None], axis=1)[:, 0]
        return own if self.y is None else np.where(self.classes < 0, self.y, own)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The N names of what was explained; ``class 7`` without labels."""
        return tuple(self._name(row) for row in range(len(self)))

    def _name(self, row: int) -> str:
        index = int(self.classes[row])
        if index < 0:
            return "embedding" if self.objective == "similarity" else "weighted classes"
        name = self.labels[index] if self.labels else f"class {index}"
        return name if self.boxes is None else f"{name}, box {self.boxes[row]}"

    @property
    def scales(self) -> FloatArray:
        """float32 ``(N, 2)``: the values of the raw map that 0 and 1 of the heat map stand for.

        Heat maps have a scale each; to compare images or classes, compare raw maps or these. Of
        several target layers these are of the first one.
        """
        shown = rectified(self.raw_maps) if get_method(self.method).rectified else self.raw_maps
        axes = tuple(range(1, shown.ndim))
        if not shown.size:
            return np.zeros((len(shown), 2), np.float32)
        return np.stack([shown.min(axis=axes), shown.max(axis=axes)], axis=1)

    def of_photo(self, rows: slice, photo: Photo, geometry: CropGeometry) -> Explanation:
        """Return what some rows hold, as `explain_image` would have it for their photo.

        Args:
            rows: those of the photo.
            photo: uint8 RGB ``(height, width, 3)``.
            geometry: which part of it the model saw.
        """
        values = {name: getattr(self, name) for name in _PER_ROW}
        own: dict[str, Any] = {n: v if v is None else v[rows] for n, v in values.items()}
        layers = tuple(
            replace(layer, **{name: getattr(layer, name)[rows] for name in _PER_ROW_OF_LAYER})
            for layer in self.layers
        )
        return replace(
            self,
            **own,
            further={need: _taken(value, rows) for need, value in self.further.items()},
            layers=layers,
            photo=photo,
            geometry=geometry,
        )

    def photo_cams(self) -> FloatArray:
        """Return the heat maps laid on the whole photo, float32 ``(N, height, width)``.

        They are zero outside the crop that the model saw.

        Raises:
            UsageError: this explanation was not made from a photo.
        """
        if self.geometry is None:
            raise UsageError("only explanations made by explain_image have a photo")
        return self.geometry.to_photo(self.cams)

    def with_method(
        self,
        method: str,
        *,
        eigen_smooth: bool = False,
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> Explanation:
        """Return the same explanation by another CAM method; the model is not run again.

        So it is without `aug_smooth`, also where this one is with it.

        Raises:
            UsageError: an unknown method, one that cannot be smoothed, or one that runs parts of
                the model again.
            UnsupportedModelError: the method needs what the file does not offer.
        """
        again = RERUNS.intersection(get_method(method).needs)
        if again:
            raise UsageError(
                f"CAM method {method!r} needs {' and '.join(sorted(again))}, and an explanation"
                f" runs nothing; ask the explainer: explain(x, method={method!r})"
            )
        size = self.cams.shape[1:]
        options: dict[str, Any] = {"eigen_smooth": eigen_smooth, "seed": seed}
        options |= {"further": self.further, "settings": settings}
        own = self.layers or (self,)
        if not get_method(method).sees_activations:
            own = own[:1]
        each = [explain_maps(method, o.activations, o.gradients, size, **options) for o in own]
        joint = fuse(each, size, self.fuse_layers)
        return replace(
            self,
            method=method,
            eigen_smooth=eigen_smooth,
            aug_smooth=False,
            seed=seed,
            settings=settings or {},
            raw_maps=joint.raw,
            cams=joint.cams,
            notes=joint.notes,
            layers=tuple(
                replace(layer, raw_maps=one.raw, notes=one.notes)
                for layer, one in zip(self.layers, each, strict=False)
            ),
        )

    def plot(
        self,
        rows: int | Iterable[int] | None = None,
        *,
        method: str | Sequence[str] | None = None,
        columns: int | None = None,
        ax: Any = None,
        photo: bool | None = None,
        alpha: float = 0.65,
        colormap: str = "inferno",
    ) -> Figure:
        """Return a ``matplotlib.figure.Figure`` of heat maps, over the photo where there is one.

        Needs the extra ``[notebook]``.

        Args:
            rows: which heat maps, one or several; None for the first twelve.
            method: another CAM method, or several to compare: each row is shown by all of them.
                They are computed from the same activations and gradients, see `with_method`.
            columns: pictures beside each other; None for four, or for those of one row where
                several methods are compared.
            ax: draw on these axes, one for each heat map, instead of on a figure of their own.
            photo: show the photo as well; None to do so where there is one, except on given axes.
            alpha: largest opacity of the colours over a photo, 0 to 1.
            colormap: one of `onnx_gradcam.render.COLORMAPS`.

        Raises:
            MissingDependencyError: matplotlib is not installed.
            UsageError: rows that are not there, axes of another number, no such method or colour
                map, or a method that runs the model again.
            UnsupportedModelError: a method that needs what the file does not offer.
        """
        from onnx_gradcam import notebook

        shown: dict[str, Any] = {"photo": photo, "alpha": alpha, "colormap": colormap}
        return notebook.plot(self, rows, method=method, columns=columns, ax=ax, **shown)

    def __repr__(self) -> str:
        """Return what was explained, in one line."""
        return self._shown("text") or object.__repr__(self)

    def _repr_html_(self) -> str | None:
        """Return what notebooks show; None where that fails, since nothing may fail here."""
        page: str | None = self._shown("html")
        return page

    def _repr_png_(self) -> bytes | None:
        """Return what notebooks show that know no HTML; None likewise."""
        data: bytes | None = self._shown("png")
        return data

    def _shown(self, form: str) -> Any:
        try:
            from onnx_gradcam import notebook

            return getattr(notebook, form)(self)
        except Exception:  # also that of an explanation put together by hand
            return None


_PER_ROW_OF_LAYER = ("activations", "gradients", "raw_maps", "notes")
_PER_ROW = (*_PER_ROW_OF_LAYER, "scores", "classes", "cams", "y", "boxes")


def _taken(value: Any, rows: slice) -> Any:
    """Return some rows of what a file gives for CAM methods: an array, several, or `TokenMaps`."""
    if isinstance(value, list):
        return [one[rows] for one in value]
    if isinstance(value, TokenMaps):
        return replace(value, values=value.values[rows])
    return value[rows]


def explain_maps(
    method: str,
    activations: NDArray[Any] | OnDevice | None,
    gradients: NDArray[Any] | OnDevice | None,
    size: tuple[int, ...],
    *,
    eigen_smooth: bool = False,
    seed: int = 0,
    further: Mapping[Need, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Painted:
    """Return raw maps, heat maps of the image's size, and notes.

    Raises:
        UnsupportedModelError: the target layer has other spatial axes than the image, or there
            are no activations.
    """
    if activations is None or gradients is None:
        raise UnsupportedModelError(
            f"CAM method {method!r} needs activations, and the file holds a map alone; {WAY_OUT}"
        )
    if activations.ndim - 2 != len(size) or not size:
        raise UnsupportedModelError(
            f"activations of shape {activations.shape} cannot be laid on an image of size {size};"
            " export the model with another --layer"
        )
    if isinstance(activations, OnDevice) and isinstance(gradients, OnDevice) and not eigen_smooth:
        raw = activations.home.maps.raw(method, activations, gradients)
        if raw is not None:
            return painted(method, raw, size)
    options: dict[str, Any] = {"eigen_smooth": eigen_smooth, "seed": seed, "further": further}
    arrays = fetched(activations), fetched(gradients)
    return paint(method, *arrays, size, settings=settings, **options)
