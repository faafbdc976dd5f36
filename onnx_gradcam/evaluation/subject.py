"""An exported file as the metrics see it: images in, confidences and heat maps out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam import heat_maps, method_names
from onnx_gradcam.errors import UsageError, nearest_names
from onnx_gradcam.evaluation.prediction import (
    CONFIDENCES,
    Classes,
    Explain,
    Images,
    Maps,
    Values,
    confidence_name,
)
from onnx_gradcam.runtime import Explainer


class Subject:
    """A loaded file with channels-first float32 images, whatever its own layout and type.

    Attributes:
        explainer: the file.
        grid: extents of the target layer, known after the first explanation.
        confidence: a key of `CONFIDENCES`.
    """

    def __init__(
        self, explainer: Explainer, extra_inputs: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        """Take the file, and values for its other inputs, the same for all images."""
        self.explainer = explainer
        self.grid: tuple[int, ...] = ()
        self.confidence = "raw"
        self._extra = extra_inputs or {}

    def settle_confidence(self, images: Images, name: str | None = None) -> None:
        """Choose how scores become confidences, by name or to suit the scores of these images."""
        self.confidence = name or confidence_name(self._scores(images))

    def predict(self, images: Images) -> Values:
        """Return confidences ``(N, K)`` of images ``(N, C, *spatial)``."""
        return CONFIDENCES[self.confidence](self._scores(images))

    def explain(self, images: Images, classes: Any, method: str) -> Maps:
        """Return heat maps ``(N, *spatial)`` by a CAM method."""
        return self.explained(images, classes, method)[0]

    def explained(self, images: Images, classes: Any, method: str) -> tuple[Maps, Classes]:
        """Return heat maps and the classes explained: indices where labels or ranks were asked."""
        batch = self._as_input(images)
        extra = self.explainer.extra_inputs.for_each_class(self._extra, len(batch))
        found = self.explainer.explain(batch, classes, method, extra_inputs=extra)
        self.grid = found.raw_maps.shape[1:]
        return found.cams, found.classes

    def explaining(self, method: str) -> Explain:
        """Return the function that explains by a method, or by one of `BASELINES`."""
        if method in BASELINES:
            return lambda images, _classes: BASELINES[method](images, self.grid)
        return lambda images, classes: self.explain(images, classes, method)

    def _scores(self, images: Images) -> NDArray[np.float32]:
        batch = self._as_input(images)
        extra = self.explainer.extra_inputs.for_each_class(self._extra, len(batch))
        return self.explainer.predict(batch, extra_inputs=extra)

    def _as_input(self, images: Images) -> NDArray[Any]:
        """Return images in the model's layout and type; integers are rounded and clipped."""
        return self.explainer.image_input.from_channels_first(images)


def noise_maps(images: Images, grid: tuple[int, ...]) -> Maps:
    """Return maps that know nothing: uniform noise on the target layer's grid, made a heat map.

    Seeded by the image's content, so that an image has one such map, and another one has another.
    """
    raw = [np.random.default_rng(crc32(image.tobytes())).random(grid) for image in images]
    return heat_maps(np.array(raw), images.shape[2:])


def centre_maps(images: Images, grid: tuple[int, ...]) -> Maps:
    """Return maps that know photographers: a Gaussian in the centre, sigma a quarter of the side.

    The grid does not matter.
    """
    offsets = np.meshgrid(*(np.linspace(-2, 2, extent) for extent in images.shape[2:]))
    bell = np.exp(-0.5 * np.sum(np.square(offsets), axis=0)).T.astype(np.float32)
    return heat_maps(np.repeat(bell[None], len(images), axis=0), images.shape[2:])


BASELINES: dict[str, Callable[[Images, tuple[int, ...]], Maps]] = {
    "noise": noise_maps,
    "centre": centre_maps,
}
"""Maps that do not look at the model: a method that is not better than these explains nothing."""


def check_method(name: str) -> None:
    """Check that a name is one of a CAM method or of `BASELINES`.

    Raises:
        UsageError: it is neither; the nearest names are offered.
    """
    known = [*method_names(), *BASELINES]
    if name not in known:
        raise UsageError(
            f"no method {name!r}{nearest_names(name, known)} (methods: {', '.join(known)})"
        )
