"""The loader of exported files: `load` gives an `Explainer`, which gives `Explanation`s."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnx_gradcam.cam import method_names
from onnx_gradcam.contract import (
    ACTIVATIONS_OUTPUT,
    CLASS_INPUT,
    CLASSES_OUTPUT,
    GRADIENTS_OUTPUT,
    ExportMetadata,
)
from onnx_gradcam.errors import NotExportedError, UnsupportedModelError, UsageError
from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.runtime.classes import HIGHEST, ClassIds, ClassResolver
from onnx_gradcam.runtime.explanation import Explanation, FloatArray
from onnx_gradcam.runtime.extra_inputs import ExtraInputs, Values
from onnx_gradcam.runtime.feeds import BatchRunner
from onnx_gradcam.runtime.how import OFFERED, How
from onnx_gradcam.runtime.image_input import ImageInput
from onnx_gradcam.runtime.options import ExplainOptions, checked_names
from onnx_gradcam.runtime.photo import PhotoSource, read_photo
from onnx_gradcam.runtime.preprocess import preprocess
from onnx_gradcam.runtime.session import ModelSource, Options, open_session
from onnx_gradcam.runtime.smoothing import average, other_versions


def load(
    model: ModelSource,
    device: str = "auto",
    providers: Sequence[str | tuple[str, Options]] | None = None,
    provider_options: Options | Sequence[Options] | None = None,
    session_options: Any = None,
) -> Explainer:
    """Open a file that ``onnx-gradcam export`` wrote.

    Args:
        model: path or bytes.
        device: ``auto`` (CUDA where it comes up, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.
        providers: onnxruntime's own list, instead of `device`; each one must come up.
        provider_options: one mapping for the device, or one per entry of `providers`.
        session_options: an ``onnxruntime.SessionOptions``, used as it is.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        ProviderError: a provider that was asked for is not there.
        InvalidModelError: corrupt, empty or no ONNX file, or external data missing.
        NotExportedError: a valid model that carries no explanation.
        UsageError: no such file, or arguments that contradict each other.
    """
    session = open_session(model, device, providers, provider_options, session_options)
    name = str(model) if isinstance(model, (str, os.PathLike)) else "the model"
    return Explainer(session, name)


class Explainer:
    """A loaded file: scores and heat maps for images. One may be shared by threads.

    Attributes:
        metadata: what the file says about itself.
        image_input: name, shape, layout and dtype of the images.
        extra_inputs: what the model takes beside them.
        preprocessing: the stored recipe for photos, or None.
    """

    def __init__(self, session: Any, name: str = "the model") -> None:
        """Wrap an ``onnxruntime.InferenceSession`` of an exported file.

        Args:
            session: the session.
            name: how to call the model in errors.

        Raises:
            NotExportedError: the model carries no explanation, or not all of it.
        """
        self.metadata = ExportMetadata.from_props(
            session.get_modelmeta().custom_metadata_map, source=name
        )
        stored = self.metadata.preprocessing
        self.preprocessing = None if stored is None else Preprocessing.from_dict(stored)
        self._session = session
        self._classes = ClassResolver(
            self.metadata.num_classes, self.labels, self.metadata.class_input
        )
        inputs = {node.name: node for node in session.get_inputs()}
        overridable = {node.name for node in session.get_overridable_initializers()}
        takes_class = CLASS_INPUT in inputs or CLASS_INPUT in overridable
        missing = {*self.metadata.outputs, self.metadata.score_output} - {
            node.name for node in session.get_outputs()
        }
        if missing or self.metadata.image_input not in inputs:
            lost = sorted(missing) or [self.metadata.image_input]
            raise NotExportedError(
                f"{name} has lost {', '.join(lost)} since its export; export it again"
            )
        if not takes_class and self._classes.fixed is None:
            raise NotExportedError(
                f"{name} offers no input {CLASS_INPUT!r} (an ir_version below 4 makes it a"
                " constant); export it again"
            )
        self.image_input = ImageInput.from_session(
            inputs.pop(self.metadata.image_input),
            self.preprocessing.layout if self.preprocessing else None,
            self.metadata.target_layout,
            self.metadata.spatial_axes,
        )
        inputs.pop(CLASS_INPUT, None)
        self.extra_inputs = ExtraInputs(inputs, overridable - {CLASS_INPUT})
        self._runner = BatchRunner(session, self.image_input, self.extra_inputs)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The K class names, or None."""
        return None if self.metadata.labels is None else tuple(self.metadata.labels)

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return self.metadata.num_classes

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, in order of preference."""
        return tuple(self._session.get_providers())

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the CAM methods that the file can serve."""
        return method_names(OFFERED)

    def predict(self, x: ArrayLike, *, extra_inputs: Values | None = None) -> FloatArray:
        """Return the scores, float32 ``(N, K)``: the model's own output for the classes.

        onnxruntime computes the whole graph, so this takes as long as the model part of `explain`.

        Args:
            x: images ``(N, C, H, W)`` or in the model's own layout; one image may come without
                the batch axis.
            extra_inputs: values for the model's other inputs, by name.

        Raises:
            UsageError: images or extra inputs that do not fit the model.
        """
        batch = self.image_input.fit(x)
        classes = self._class_feed(np.full(len(batch), HIGHEST, np.int64))
        (scores,) = self._runner.run([self.metadata.score_output], batch, classes, extra_inputs)
        return self._as_scores(scores, len(batch))

    def explain(
        self,
        x: ArrayLike,
        classes: ClassIds | None = None,
        method: str = "gradcam",
        **options: Unpack[ExplainOptions],
    ) -> Explanation:
        """Return heat maps for a batch of images.

        Args:
            x: images ``(N, C, H, W)`` or in the model's own layout, preprocessed; one image may
                come without the batch axis.
            classes: the class to explain: an index, -k for the k-th highest score, a label, a
                sequence of one per image, or None for the highest score of each image (for the
                fixed class of a file exported with ``--class-input fixed:K``).
            method: name of the CAM method, one of `methods`.
            options: see `ExplainOptions`.

        Raises:
            ClassNotFoundError: class index out of range, or an unknown label.
            UsageError: images, classes or extra inputs that do not fit; NaN in the images; an
                unknown method, or one that cannot be smoothed as asked.
            UnsupportedModelError: a method that the file cannot serve.
        """
        how = self._how(method, options)
        batch = self.image_input.fit(x)
        chosen = self._classes.per_image(classes, len(batch))
        return self._explain(batch, chosen, how, options.get("extra_inputs"))

    def explain_classes(
        self,
        x: ArrayLike,
        classes: ClassIds | None = None,
        method: str = "gradcam",
        **options: Unpack[ExplainOptions],
    ) -> Explanation:
        """Return heat maps for one or several classes of one prepared image.

        Args:
            x: the image as in `explain`, with a batch axis of one or without.
            classes: one class or a sequence of them; None for the highest score.
            method: name of the CAM method.
            options: see `ExplainOptions`.

        Raises:
            ClassNotFoundError: class index out of range, or an unknown label.
            UsageError: not one image, or what `explain` refuses.
            UnsupportedModelError: a method that the file cannot serve.
        """
        how = self._how(method, options)
        image = self.image_input.fit(x)
        if len(image) != 1:
            raise UsageError(f"{len(image)} images; explain takes several")
        return self._explain_each(image, classes, how, options)

    def explain_image(
        self,
        photo: PhotoSource,
        classes: ClassIds | None = None,
        method: str = "gradcam",
        **options: Unpack[ExplainOptions],
    ) -> Explanation:
        """Return heat maps for one or several classes of one photo.

        The photo goes through the preprocessing stored in the file. N of the explanation is the
        number of classes; it carries the photo and the geometry of the crop, see
        `Explanation.photo_cams`.

        Args:
            photo: path, encoded bytes, or a uint8 RGB array ``(H, W, 3)``.
            classes: one class or a sequence of them, as in `explain`; None for the highest score.
            method: name of the CAM method.
            options: see `ExplainOptions`.

        Raises:
            ImageError: not an image.
            ClassNotFoundError: class index out of range, or an unknown label.
            UsageError: the file holds no preprocessing, the photo does not fit the model, or what
                `explain` refuses.
            UnsupportedModelError: a method that the file cannot serve.
        """
        how = self._how(method, options)
        if self.preprocessing is None:
            raise UsageError(
                "the file holds no preprocessing for photos; export the model again with"
                " --preprocess PRESET, or prepare the array and use explain"
            )
        if self.image_input.spatial_axes != 2:
            raise UsageError(
                f"the model takes no photos but {self.image_input.describe()}; prepare the array"
                " and use explain"
            )
        pixels = read_photo(photo)
        image, geometry = preprocess(
            pixels, self.preprocessing, self.image_input.layout, self.image_input.dtype
        )
        if not self.image_input.has_channels:
            image = _without_channels(image, self.image_input)
        fitted = self.image_input.fit(image)
        return self._explain_each(fitted, classes, how, options, photo=pixels, geometry=geometry)

    def _how(self, method: str, options: ExplainOptions) -> How:
        checked_names(options)
        smooth = options.get("eigen_smooth", False), options.get("aug_smooth", False)
        return How(method, *smooth, options.get("seed", 0)).checked(self.image_input)

    def _explain_each(
        self,
        image: NDArray[Any],
        classes: ClassIds | None,
        how: How,
        options: ExplainOptions,
        **photo: Any,
    ) -> Explanation:
        """Return the explanation of each of the classes of one image ``(1, ...)``."""
        chosen = self._classes.several(classes)
        batch = np.repeat(image, len(chosen), axis=0)
        given = options.get("extra_inputs") or {}
        extra = self.extra_inputs.for_each_class(given, len(chosen))
        return self._explain(batch, chosen, how, extra, **photo)

    def _explain(
        self,
        batch: NDArray[Any],
        classes: NDArray[np.int64],
        how: How,
        extra_inputs: Values | None,
        **photo: Any,
    ) -> Explanation:
        size = self.image_input.spatial(batch.shape)
        scores, activations, gradients, explained = self._run(batch, classes, extra_inputs)
        painted = how.paint(activations, gradients, size)
        if how.aug_smooth:
            maps = [painted]
            for version in other_versions(batch, self.image_input):
                _, a, g, _ = self._run(version, explained, extra_inputs)  # of the same classes
                maps.append(how.paint(a, g, size))
            painted = average(maps)
        return Explanation(
            scores=self._as_scores(scores, len(batch)),
            classes=explained,
            cams=painted.cams,
            raw_maps=painted.raw,
            activations=activations,
            gradients=gradients,
            notes=painted.notes,
            labels=self.labels,
            **vars(how),
            **photo,
        )

    def _run(
        self, batch: NDArray[Any], classes: NDArray[np.int64], extra_inputs: Values | None
    ) -> tuple[NDArray[Any], FloatArray, FloatArray, NDArray[np.int64]]:
        """Return scores, activations, gradients and the classes explained."""
        names = [self.metadata.score_output, ACTIVATIONS_OUTPUT, GRADIENTS_OUTPUT, CLASSES_OUTPUT]
        scores, activations, gradients, explained = self._runner.run(
            names, batch, self._class_feed(classes), extra_inputs
        )
        activations = activations.astype(np.float32, copy=False)
        gradients = gradients.astype(np.float32, copy=False)
        if not len(batch):  # the file may leave open different extents of the two
            gradients = activations
        return scores, activations, gradients, explained.astype(np.int64, copy=False)

    def _class_feed(self, classes: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return what to feed as cam_class; None for a file with a fixed class."""
        return classes if self._classes.fixed is None else None

    def _as_scores(self, scores: NDArray[Any], images: int) -> FloatArray:
        if scores.size != images * self.num_classes:
            raise UnsupportedModelError(
                f"output {self.metadata.score_output!r} of shape {scores.shape} is not one score"
                f" for each of {self.num_classes} classes and {images} images"
            )
        floats = scores.reshape(images, self.num_classes).astype(np.float32, copy=False)
        if self.metadata.score_scale == 1 and self.metadata.score_zero_point == 0:
            return floats
        return (floats - self.metadata.score_zero_point) * np.float32(self.metadata.score_scale)


def _without_channels(image: NDArray[Any], declared: ImageInput) -> NDArray[Any]:
    """Return a grey picture ``(1, H, W)`` as ``(H, W)``.

    Raises:
        UsageError: it has colours.
    """
    if image.shape[0] != 1:
        raise UsageError(
            f"the model takes grey pictures {declared.describe()}; export it again with a"
            ' preprocessing of "color": "GRAY"'
        )
    return np.asarray(image[0])
