"""What is verified and with which inputs: shared by the checks that run something."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnx_gradcam import bfloat16
from onnx_gradcam.contract import (
    BOX_INPUT,
    BOXES_OUTPUT,
    CLASS_INPUT,
    CLASSES_OUTPUT,
    EMBEDDING_INPUT,
    GRADIENTS_OUTPUT,
    MASK_INPUT,
    SCORE_OUTPUT,
    SEED_INPUTS,
    WEIGHTS_INPUT,
    ExportMetadata,
    layer_output,
)
from onnx_gradcam.export.files.model_file import LoadedModel
from onnx_gradcam.export.sessions import open_session
from onnx_gradcam.export.verification.probe_inputs import (
    InputSpec,
    candidate_shapes,
    draw,
    has_open_batch,
    value_ranges,
)

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]


@dataclass(frozen=True)
class Subject:
    """What is verified, and the inputs it is verified with.

    Attributes:
        exported: the exported file.
        metadata: what it says about itself.
        reference: the original model, or the exported file itself where that is not at hand.
        specs: the required inputs of the model, without those of y.
        shapes: a shape for each of them that the model runs with.
        given: values given by the caller, which replace random ones.
        seed: of random values.
    """

    exported: LoadedModel
    metadata: ExportMetadata
    reference: LoadedModel
    specs: tuple[InputSpec, ...]
    shapes: Mapping[str, tuple[int, ...]]
    given: Feeds
    seed: int

    def inputs(self, attempt: int = 0) -> Feeds:
        """Return input values; each attempt gives other ones, at another scale."""
        ranges = value_ranges(self.metadata.preprocessing)
        values = ranges[attempt % len(ranges)]
        drawn = draw(
            self.specs, self.shapes, self.metadata.image_input, values, self.seed + attempt
        )
        return drawn | self.given

    @property
    def attempts(self) -> int:
        """How many different inputs there are to try."""
        return 1 if self.given else len(value_ranges(self.metadata.preprocessing))

    @property
    def batch(self) -> int:
        """Number of images in a run."""
        return self.shapes[self.metadata.image_input][0]

    def class_feed(self, classes: Sequence[int] | Array | None) -> Feeds:
        """Return the feed for ``cam_class``; None asks for the default, the highest score."""
        return self.seeds({} if classes is None else {CLASS_INPUT: np.asarray(classes, np.int64)})

    def seeds(self, given: Feeds) -> Feeds:
        """Return the feed of the inputs that say which y; those not given get their default.

        Args:
            given: values without the axis of several classes per image.
        """
        meta = self.metadata
        every = default_seeds(meta, self.seed, self.exported.model)
        if meta.class_input != "required":
            every = {name: v for name, v in every.items() if name == EMBEDDING_INPUT}
        return _with_class_axis(meta, every | given)

    def explain(self, session: Any, feeds: Feeds, given: Feeds) -> dict[str, Array]:
        """Return the outputs for one y per image."""
        found = run(session, feeds | self.seeds(given))
        if self.metadata.several:
            for name in (n for n in found if _HAS_CLASS_AXIS.fullmatch(n)):
                found[name] = found[name][:, 0]
        return found

    @property
    def gradient_outputs(self) -> list[str]:
        """The outputs that hold gradients, one of each target layer."""
        return [layer_output(GRADIENTS_OUTPUT, i) for i in range(len(self.metadata.layers))]

    @property
    def fixed(self) -> bool:
        """Whether the class was fixed at export."""
        return self.metadata.class_input.startswith("fixed")


_HAS_CLASS_AXIS = re.compile(
    rf"{GRADIENTS_OUTPUT}(_\d+)?|{CLASSES_OUTPUT}|{SCORE_OUTPUT}|{BOXES_OUTPUT}"
)


def default_seeds(meta: ExportMetadata, seed: int, exported: onnx.ModelProto) -> Feeds:
    """Return a value for each input that says which y, without the axis of several classes."""
    shapes = {i.name: i.type.tensor_type.shape.dim for i in exported.graph.input}
    places = [dim.dim_value or 1 for dim in list(shapes.get(MASK_INPUT, []))[1:]]
    embedding = np.random.default_rng(seed).standard_normal((1, meta.num_classes))
    values = {
        CLASS_INPUT: np.array([-1]),
        WEIGHTS_INPUT: np.zeros((1, meta.num_classes), np.float32),
        MASK_INPUT: np.zeros([1, *places], np.float32),
        BOX_INPUT: np.array([-1]),
        EMBEDDING_INPUT: embedding.astype(np.float32),
    }
    return {name: values[name] for name in meta.fed_inputs}


def _with_class_axis(meta: ExportMetadata, seeds: Feeds) -> Feeds:
    if not meta.several:
        return seeds
    return {n: value if n == MASK_INPUT else value[:, None] for n, value in seeds.items()}


def session_of(model: LoadedModel, *, optimise: bool) -> Any:
    """Return a session of a whole model."""
    given = model.path or model.model.SerializeToString()
    return open_session(given, optimise=optimise, base_dir=model.base_dir)


def run(session: Any, feeds: Feeds) -> dict[str, Array]:
    """Return all outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, bfloat16.run(session, names, feeds), strict=True))


def input_names(session: Any) -> set[str]:
    """Return the names of the required inputs."""
    return {node.name for node in session.get_inputs()}


def input_specs(session: Any, metadata: ExportMetadata) -> tuple[InputSpec, ...]:
    """Return the required inputs without ``cam_class``; an image of open rank gets one."""
    unknown = {metadata.image_input: (None,) * (metadata.spatial_axes + 2)}
    return tuple(
        InputSpec(node.name, node.type, tuple(node.shape) or unknown.get(node.name, ()))
        for node in session.get_inputs()
        if node.name not in SEED_INPUTS
    )


def find_shapes(
    session: Any,
    specs: tuple[InputSpec, ...],
    metadata: ExportMetadata,
    given: Mapping[str, Array],
    seed: int,
    exported: onnx.ModelProto,
) -> dict[str, tuple[int, ...]] | str:
    """Return shapes that the model runs with, or what went wrong with all that were tried."""
    image = metadata.image_input
    if image not in {spec.name for spec in specs}:
        return f"the model has no input {image!r}, which the metadata names as the image"
    asked = _with_class_axis(metadata, default_seeds(metadata, seed, exported))
    extra = {name: value for name, value in asked.items() if name in input_names(session)}
    values = value_ranges(metadata.preprocessing)[0]
    problem = ""
    for batch in (2, 1) if has_open_batch(specs, image) else (1,):
        for shapes in candidate_shapes(specs, image, batch, metadata.spatial_axes):
            shapes.update({name: np.shape(value) for name, value in given.items()})
            try:
                found = run(session, draw(specs, shapes, image, values, seed) | dict(given) | extra)
            except Exception as error:
                problem = problem or " ".join(str(error).split())
                continue
            scores = found.get(metadata.score_output)
            if batch > 1 and scores is not None and np.ndim(scores) > 1 and len(scores) != batch:
                break  # the batch is open by name alone
            return shapes
    return (
        f"no input sizes were found that the model runs with ({problem[:200]}); give some with"
        " --input NAME=FILE.npy"
    )
