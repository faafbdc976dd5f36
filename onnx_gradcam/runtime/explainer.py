"""The loader of exported files: `load` gives an `Explainer`, which gives `Explanation`s."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnx_gradcam.cam import Need, Painted, method_names
from onnx_gradcam.contract import (
    ADDED_INPUTS,
    BOX_INPUT,
    GATE_INPUT,
    MASK_INPUT,
    SEED_INPUTS,
    ExportMetadata,
)
from onnx_gradcam.errors import NotExportedError, UsageError
from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.runtime.classes import ClassIds, ClassResolver
from onnx_gradcam.runtime.explanation import Explanation
from onnx_gradcam.runtime.extra_inputs import ExtraInputs, Values
from onnx_gradcam.runtime.feeds import OPEN, BatchRunner
from onnx_gradcam.runtime.found import Found
from onnx_gradcam.runtime.further import further_given, further_outputs
from onnx_gradcam.runtime.fused import FusedCam
from onnx_gradcam.runtime.graph_run import device_run
from onnx_gradcam.runtime.how import OFFERED, How
from onnx_gradcam.runtime.image_input import ImageInput
from onnx_gradcam.runtime.layers import FloatArray, chosen_layers, layer_maps, layer_outputs
from onnx_gradcam.runtime.options import ExplainOptions, checked_names
from onnx_gradcam.runtime.parts import Parts
from onnx_gradcam.runtime.photo import PhotoSource
from onnx_gradcam.runtime.prediction import Prediction
from onnx_gradcam.runtime.prepared import PreparedPhoto, prepare_photo
from onnx_gradcam.runtime.reruns import Reruns
from onnx_gradcam.runtime.same_seeds import same_classes, seed_rows
from onnx_gradcam.runtime.scores import ScoreReader
from onnx_gradcam.runtime.seeds import SeedReader, Seeds
from onnx_gradcam.runtime.session import ModelSource, OpenedModel, Options, open_model
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
        provider_options: one mapping for the device, or one per entry of `providers`;
            ``{"enable_cuda_graph": True}`` replays runs as CUDA graphs, see docs/gpu.md.
        session_options: an ``onnxruntime.SessionOptions``, used as it is.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        ProviderError: a provider that was asked for is not there.
        InvalidModelError: corrupt, empty or no ONNX file, or external data missing.
        NotExportedError: a valid model that carries no explanation.
        UnsupportedModelError: an operator that this onnxruntime has not, or CUDA graphs of a model
            that has open shapes or does not run on the device alone.
        UsageError: no such file, or arguments that contradict each other.
    """
    opened = open_model(model, device, providers, provider_options, session_options)
    name = str(model) if isinstance(model, (str, os.PathLike)) else "the model"
    return Explainer(opened.session, name, opened)


class Explainer:
    """A loaded file: scores and heat maps for images. One may be shared by threads.

    Attributes:
        metadata: what the file says about itself.
        image_input: name, shape, layout and dtype of the images.
        extra_inputs: what the model takes beside them.
        preprocessing: the stored recipe for photos, or None.
    """

    def __init__(
        self, session: Any, name: str = "the model", opened: OpenedModel | None = None
    ) -> None:
        """Wrap an ``onnxruntime.InferenceSession`` of an exported file.

        Args:
            session: the session.
            name: how to call the model in errors.
            opened: what the session came from, so that parts of the model can be run by
                themselves; `load` knows it. Without it, some methods cannot be served.

        Raises:
            NotExportedError: the model carries no explanation, or not all of it.
        """
        self.metadata = ExportMetadata.from_props(
            session.get_modelmeta().custom_metadata_map, source=name
        )
        stored = self.metadata.preprocessing
        self.preprocessing = None if stored is None else Preprocessing.from_dict(stored)
        self._session = session
        self._labels = None if self.metadata.labels is None else tuple(self.metadata.labels)
        self._layers = [layer.target for layer in self.metadata.layers]
        self._outputs = [self.metadata.score_output, *self.metadata.outputs]
        classes = ClassResolver(self.num_classes, self.labels, self.metadata.class_input)
        self._scores = ScoreReader(self.metadata)
        inputs = {node.name: node for node in session.get_inputs()}
        optional = {node.name: node for node in session.get_overridable_initializers()}
        gates = {GATE_INPUT} if self.metadata.gate else set()
        lost_inputs = {*self.metadata.fed_inputs, *gates} - {*inputs, *optional}
        missing = {*self._outputs, *layer_outputs(range(1, len(self._layers)))}
        missing -= {node.name for node in session.get_outputs()}
        if missing or self.metadata.image_input not in inputs:
            lost = ", ".join(sorted(missing) or [self.metadata.image_input])
            raise NotExportedError(f"{name} has lost {lost} since its export; export it again")
        if lost_inputs:
            lost = f"{min(lost_inputs)!r} (an ir_version below 4 makes it a constant)"
            raise NotExportedError(f"{name} offers no input {lost}; export it again")
        self.image_input = ImageInput.from_session(
            inputs.pop(self.metadata.image_input),
            self.preprocessing.layout if self.preprocessing else None,
            self.metadata.target_layout,
            self.metadata.spatial_axes,
        )
        required = {n: node for n, node in inputs.items() if n not in ADDED_INPUTS}
        asked = {n: node for n, node in inputs.items() if n in SEED_INPUTS}
        mask = (asked | optional).get(MASK_INPUT)
        self._seeds = SeedReader(self.metadata, classes, asked, mask and mask.shape[1:])
        self.extra_inputs = ExtraInputs(required, {*optional} - {*ADDED_INPUTS})
        on_device = device_run(session, layer_outputs(range(len(self._layers))))
        self._runner = BatchRunner(session, self.image_input, self.extra_inputs, on_device, OPEN)
        self._fused = FusedCam.alone_in(self.metadata)
        self._gives_more = further_outputs(self.metadata)
        self._offered = OFFERED.union(self._gives_more.values())
        self._reruns: Reruns | None = None
        if opened is not None:
            self._reruns = Reruns(Parts(opened), self.metadata, self._runner)
            self._offered |= self._reruns.offered
        self._prediction = Prediction(self._runner, self._reruns, self._seeds)
        self._usual: dict[str | None, How] = {}

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The K class names, or None."""
        return self._labels

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
        return method_names(self._offered) if self._fused is None else (self._fused.method,)

    @property
    def default_method(self) -> str:
        """The method where none is named: ``gradcam``, or the only one that the file holds."""
        return "gradcam" if self._fused is None else self._fused.method

    def predict(self, x: ArrayLike, *, extra_inputs: Values | None = None) -> FloatArray:
        """Return the scores, float32 ``(N, K)``: the model's own output for the classes.

        The gradient is not computed: this takes as long as the original model; see `prediction`.

        Args:
            x: images ``(N, C, H, W)`` or in the model's own layout; one image may come without
                the batch axis.
            extra_inputs: values for the model's other inputs, by name.

        Raises:
            UsageError: images or extra inputs that do not fit the model.
        """
        batch = self.image_input.fit(x)
        return self._scores.read(self._prediction.scores(batch, extra_inputs), len(batch))

    def explain(
        self,
        x: ArrayLike,
        classes: ClassIds | None = None,
        method: str | None = None,
        **options: Unpack[ExplainOptions],
    ) -> Explanation:
        """Return heat maps for a batch of images.

        Args:
            x: images ``(N, C, H, W)`` or in the model's own layout, preprocessed; one image may
                come without the batch axis.
            classes: the class to explain: an index, -k for the k-th highest score, a label, a
                sequence of one per image, or None for the highest score of each image (for the
                fixed class of a file exported with ``--class-input fixed:K``).
            method: name of the CAM method, one of `methods`; None for `default_method`.
            options: see `ExplainOptions`.

        Raises:
            ClassNotFoundError: class index out of range, or an unknown label.
            UsageError: images, classes or extra inputs that do not fit; NaN in the images; an
                unknown method, or one that cannot be smoothed as asked.
            UnsupportedModelError: a method that the file cannot serve.
        """
        how = self._how(method, options)
        batch = self.image_input.fit(x)
        seeds = self._seeds.read(classes, options, len(batch), each=False)
        return self._explain(batch, seeds, how, options.get("extra_inputs") or {})

    def explain_classes(
        self,
        x: ArrayLike,
        classes: ClassIds | None = None,
        method: str | None = None,
        **options: Unpack[ExplainOptions],
    ) -> Explanation:
        """Return heat maps for one or several classes of one prepared image.

        Args:
            x: the image as in `explain`, with a batch axis of one or without.
            classes: one class or a sequence of them; None for the highest score.
            method: as in `explain`.
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
        seeds = self._seeds.read(classes, options, 1, each=True)
        return self._explain(image, seeds, how, options.get("extra_inputs") or {})

    def explain_image(
        self,
        photo: PhotoSource,
        classes: ClassIds | None = None,
        method: str | None = None,
        **options: Unpack[ExplainOptions],
    ) -> Explanation:
        """Return heat maps for one or several classes of one photo.

        The photo goes through the preprocessing stored in the file. N of the explanation is the
        number of classes; it carries the photo and the geometry of the crop, see
        `Explanation.photo_cams`.

        Args:
            photo: path, encoded bytes, or a uint8 RGB array ``(H, W, 3)``.
            classes: one class or a sequence of them, as in `explain`; None for the highest score.
            method: as in `explain`.
            options: see `ExplainOptions`.

        Raises:
            ImageError: not an image.
            ClassNotFoundError: class index out of range, or an unknown label.
            UsageError: the file holds no preprocessing, the photo does not fit the model, or what
                `explain` refuses.
            UnsupportedModelError: a method that the file cannot serve.
        """
        how = self._how(method, options)
        prepared = self.prepare(photo)
        seeds = self._seeds.read(classes, options, 1, each=True)
        extra = options.get("extra_inputs") or {}
        seen = {"photo": prepared.photo, "geometry": prepared.geometry}
        return self._explain(prepared.image, seeds, how, extra, **seen)

    def prepare(self, photo: PhotoSource) -> PreparedPhoto:
        """Return a photo as `explain` takes it, by the preprocessing stored in the file.

        Args:
            photo: path, encoded bytes, or a uint8 RGB array ``(H, W, 3)``.

        Raises:
            ImageError: not an image.
            UsageError: the file holds no preprocessing, or the photo does not fit the model.
        """
        return prepare_photo(photo, self.preprocessing, self.image_input)

    def _how(self, method: str | None, options: ExplainOptions) -> How:
        """Return the choices of a call; without options they are made once for each method."""
        if not options and method in self._usual:
            return self._usual[method]
        checked_names(options)
        layers = chosen_layers(self._layers, options.get("layers"))
        how = How.of(method or self.default_method, options, layers)
        how = how.checked(self.image_input, self._offered, self._fused)
        return how if options else self._usual.setdefault(method, how)

    def _explain(
        self, batch: NDArray[Any], seeds: Seeds, how: How, extra_inputs: Values, **photo: Any
    ) -> Explanation:
        """Return the explanation of N images with T maps each, N T rows.

        Raises:
            UsageError: `aug_smooth` of places in the image.
        """
        if how.aug_smooth and self.metadata.places:
            raise UsageError("aug_smooth mirrors images, and masks and boxes do not follow")
        feeds = seeds.together(self.metadata.several)
        extra = extra_inputs
        if not seeds.maps:
            batch, feeds = batch[:0], {name: value[:0] for name, value in feeds.items()}
        elif not self.metadata.several and seeds.maps > 1:
            extra = self.extra_inputs.for_each_class(extra, seeds.maps, len(batch))
            batch = np.repeat(batch, seeds.maps, axis=0)
        found, each = self._maps(batch, feeds, extra, seeds.maps, how)
        size = self.image_input.spatial(batch.shape)
        painted = how.joined(each, size)
        if how.aug_smooth:
            maps = [each]
            same = same_classes(feeds, found.classes)
            for version in other_versions(batch, self.image_input):
                maps.append(self._maps(version, same, extra, seeds.maps, how)[1])
            painted = average([how.joined(one, size) for one in maps])
            each = [average(of_layer) for of_layer in zip(*maps, strict=True)]
        choices = vars(how) | {"settings": dict(how.settings)}
        choices["layers"] = layer_maps(self._layers, how.layers, found.layers, each)
        return Explanation(
            cams=painted.cams,
            raw_maps=painted.raw,
            notes=painted.notes,
            labels=self.labels,
            objective=self.metadata.objective,
            **found.explained,
            **choices,
            **photo,
        )

    def _run(
        self,
        batch: NDArray[Any],
        feeds: Mapping[str, NDArray[Any]],
        extra_inputs: Values,
        maps: int,
        layers: Sequence[int] = (0,),
    ) -> Found:
        """Return what the session gives, a row for each map."""
        values = self._runner.run(self._outputs, batch, feeds, extra_inputs)
        self._scores.check_boxes(values[0], feeds.get(BOX_INPUT))
        scores = self._scores.read(values[0], len(batch))
        outputs = dict(zip(self._outputs, values, strict=True))
        several = maps if self.metadata.several else 0
        further = further_given(self.metadata, outputs, several, layers) if self._gives_more else {}
        return Found.from_outputs(scores, outputs, several, further, layers)

    def _maps(
        self,
        batch: NDArray[Any],
        feeds: Mapping[str, NDArray[Any]],
        extra_inputs: Values,
        maps: int,
        how: How,
    ) -> tuple[Found, list[Painted]]:
        """Return what the session gives, a row for each map, and the maps of each layer."""
        found = self._run(batch, feeds, extra_inputs, maps, how.layers)
        size = self.image_input.spatial(batch.shape)
        if self._fused is not None:
            return found, [self._fused.paint(found.fused, size)]
        again = how.runs_again
        further = self._further(batch, feeds, found, extra_inputs, maps) if again else found.further
        return found, how.paint_layers(found.layers, size, further)

    def _further(
        self,
        batch: NDArray[Any],
        feeds: Mapping[str, NDArray[Any]],
        found: Found,
        extra_inputs: Values,
        maps: int,
    ) -> Mapping[Need, Any]:
        """Return what methods may ask for beside the gradients."""
        if self._reruns is None:
            return found.further
        if self.metadata.several:  # a row for each map, as in what was found
            extra_inputs = self.extra_inputs.for_each_class(extra_inputs, maps, len(batch))
            batch = np.repeat(batch, maps, axis=0)
        rows = seed_rows(self.metadata, feeds, maps)
        again = self._reruns.of(batch, rows, found, extra_inputs, self._explained)
        return {**found.further, **again}

    def _explained(
        self, batch: NDArray[Any], seeds: Mapping[str, NDArray[Any]], extra_inputs: Values
    ) -> tuple[FloatArray, FloatArray]:
        """Return A and G for one map of each image."""
        return self._run(batch, seeds, extra_inputs, 1).known_maps
